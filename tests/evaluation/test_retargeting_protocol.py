"""The protocol on points: measures in closed form, three people as a whole, and the command's errors."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.heads.retarget_truth import driving_states, make_truth
from th_jax.cli.main import main
from th_jax.evaluation.retargeting import (
    BINS,
    MEASURES,
    Measured,
    aligned_error,
    closure,
    estimate,
    fit_errors,
    gaze_error,
    in_bin,
    landmark_error,
    measure_pairs,
    ratio,
    report,
)
from th_jax.landmarks.truth import RetargetTruth

PEOPLE = 3


@pytest.fixture(scope="module")
def truth() -> RetargetTruth:
    return make_truth(people=PEOPLE, frames=3, shots=6)


@pytest.fixture(scope="module")
def measured(truth: RetargetTruth) -> Measured:
    return measure_pairs(truth)


def test_truth_is_of_the_target_in_the_drivers_states(truth: RetargetTruth) -> None:
    assert truth.truth.shape == (PEOPLE, PEOPLE, 9, 70, 2)
    np.testing.assert_array_equal(truth.truth[1, 1], truth.driving[1])
    assert np.abs(truth.truth[0, 1] - truth.truth[2, 1]).max() > 0.01
    yaw = np.abs(np.degrees(truth.angles[:, :, 0])).reshape(PEOPLE, 3, 3)
    for number, span in enumerate(BINS):
        low, high = map(float, span.split("-"))
        assert ((yaw[:, number] >= low) & (yaw[:, number] <= high)).all()
    assert (truth.units[:, ::3, 8] == 1).all()  # the first of each bin has shut lids
    states = driving_states(truth.seeds[0], frames=3)
    np.testing.assert_allclose([state[1:] for state in states], truth.angles[0])
    with pytest.raises(ValueError, match="at least 2 people, 1 frame and 1 shot, but 1, 8 and 8"):
        make_truth(people=1)


def test_measures_in_closed_form(truth: RetargetTruth) -> None:
    points = truth.truth[0, 1]
    unit = np.full(len(points), 0.25)
    moved = points + np.array([0.03, 0.04])
    np.testing.assert_allclose(landmark_error(moved, points, unit=unit), 0.2)
    turned = 1.3 * (points @ np.array([[0.8, 0.6], [-0.6, 0.8]])) + 0.1
    np.testing.assert_allclose(aligned_error(turned, points, unit=unit), 0, atol=1e-9)
    assert aligned_error(points * np.array([1.2, 1.0]), points, unit=unit).min() > 0.01
    own = {"eyes": truth.eyes[0, 1], "radius": truth.radius[0, 1]}
    np.testing.assert_allclose(gaze_error(moved, points, **own), 0, atol=1e-4)
    side = points.copy()
    side[:, 68:, 0] += 0.1 * truth.radius[0, 1]
    found = gaze_error(side, points, **own)  # 0.1 of the radius is 5.7 degrees for a look at the camera, more beside it
    assert (found > 5).all()
    assert found.min() < 6.5
    shut = points.copy()
    for high, low in ((37, 41), (38, 40), (43, 47), (44, 46)):
        shut[:, high] = shut[:, low]
    np.testing.assert_allclose(closure(shut, of="lids"), 0)
    assert closure(points, of="lids").min() > 0


def test_the_truth_itself_has_no_error_and_the_model_the_least(measured: Measured) -> None:
    for method, name in measured.values:
        assert measured.values[method, name].shape == (PEOPLE * (PEOPLE - 1), 9)
        assert name in MEASURES
    model, others = "model", ("none", "similarity", "relative", "parts", "shape")
    for name in ("landmarks", "shape"):
        best = estimate(measured, model, name).value
        assert best < 0.6 * min(estimate(measured, other, name).value for other in others)  # type: ignore[arg-type]
    assert max(measured.self_error.values()) <= 1e-6
    assert estimate(measured, model, "lids").value < 0.03
    assert np.isfinite(measured.values["model", "lids"][:, ::3]).all()
    assert np.isnan(measured.values["model", "lids"][:, 1::3]).any()


def test_ratios_and_bins_in_closed_form() -> None:
    ours, theirs = np.full((4, 6), 1.0), np.full((4, 6), 4.0)
    theirs[:, 4:] = 2.0
    made = Measured(
        {("model", "landmarks"): ours, ("none", "landmarks"): theirs}, {"model": 0.0, "none": 0.0}, np.arange(4.0)
    )
    np.testing.assert_allclose(ratio(made, "model", "none", bin=0, resamples=50), 0.25)
    np.testing.assert_allclose(ratio(made, "model", "none", bin=2, resamples=50), 0.5)
    assert in_bin(theirs, 2).tolist() == [[2.0, 2.0]] * 4
    assert in_bin(theirs, None) is theirs


def test_the_report_names_everything(truth: RetargetTruth, measured: Measured) -> None:
    fitted = fit_errors(truth)
    assert fitted["gaze of the fit"].value < 4
    assert fitted["ARKit coefficients"].value < 0.06
    text = report(measured, fitted)
    for name in (
        "none",
        "similarity",
        "relative",
        "parts",
        "shape",
        "model",
        "model / shape beyond 30°",
        "gaze of the fit",
    ):
        assert f"| {name} |" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--data", "bundled"], 2, "renders its own people: omit --data"),
        (["--meta", "missing.safetensors"], 1, "missing.safetensors"),
        (["--shots", "1", "8"], 1, "takes one number of shots, but 2 were given"),
        (["--people", "1"], 1, "at least 2 people"),
        (["--seed", "-1"], 1, "seed must be 0 or more"),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--protocol", "retarget", "--out", str(tmp_path / "out"), *options]) == code
    assert message in capsys.readouterr().err


def test_other_protocols_still_need_weights_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--protocol", "heads", "--out", str(tmp_path)]) == 2
    assert "the protocol heads needs --meta and --data" in capsys.readouterr().err
