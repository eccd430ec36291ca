"""Gaze in generated frames: measures in closed form, the renderer's own frames, and the report."""

import jax
import numpy as np
import pytest

from data_prep.heads.gaze_truth import MOST_SHUT, gaze_states, make_gaze_truth
from th_jax.evaluation.generated_gaze import (
    ShownGaze,
    follows,
    gaze_report,
    lid_correlation,
    measure_generated,
    shown_gaze,
)
from th_jax.landmarks.arkit import NAMES
from th_jax.landmarks.truth import GazeTruth
from th_jax.models.networks import Networks
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots


@pytest.fixture(scope="module")
def truth() -> GazeTruth:
    return make_gaze_truth(size=128, people=2, frames=8, shots=1)


def made_up(slope: float, lids: float, *, frames: int = 400) -> ShownGaze:
    """Two people whose gaze follows by a slope, with an offset each and an error by the lids."""
    rng = np.random.default_rng(0)
    known, opening = rng.normal(0, 10, (2, frames, 2)), rng.uniform(0.1, 0.4, (2, frames))
    shown = slope * known + np.array([[[3.0]], [[-5.0]]]) + lids * (opening[..., None] - 0.25)
    return ShownGaze(np.abs(shown - known).mean(-1), shown - known, known, opening)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_how_much_gaze_follows_is_a_slope(slope: float) -> None:
    for axis in (0, 1):
        assert follows(made_up(slope, 0.0), axis=axis) == pytest.approx(slope, abs=1e-6)


def test_lids_that_move_the_gaze_are_correlated_with_its_error() -> None:
    assert lid_correlation(made_up(1.0, 30.0), axis=1) == pytest.approx(1, abs=1e-6)
    assert lid_correlation(made_up(1.0, -30.0), axis=0) == pytest.approx(-1, abs=1e-6)
    assert abs(lid_correlation(made_up(0.5, 0.0), axis=1)) < 0.1
    unseen = made_up(1.0, 30.0)
    unseen.error[:, ::2] = np.nan
    unseen.difference[:, ::2] = np.nan
    assert lid_correlation(unseen, axis=1) == pytest.approx(1, abs=1e-6)


def test_gaze_and_lids_are_drawn_independently() -> None:
    states = gaze_states(100_000, frames=400)
    gaze = np.array([[state.gaze_yaw, state.gaze_pitch] for state in states])
    blink, wide = (NAMES.index(name) for name in ("eyeBlinkLeft", "eyeWideLeft"))
    lids = np.array([state.units[blink] - state.units[wide] for state in states])
    assert abs(np.corrcoef(gaze[:, 0], lids)[0, 1]) < 0.15
    assert abs(np.corrcoef(gaze[:, 1], lids)[0, 1]) < 0.15
    assert -1 <= lids.min() < -0.95
    assert MOST_SHUT - 0.05 < lids.max() <= MOST_SHUT
    with pytest.raises(ValueError, match="must be 1 or more, but 0, 16 and 8"):
        make_gaze_truth(size=64, people=0)


def test_rendered_eyes_look_where_they_do(truth: GazeTruth) -> None:
    shown = shown_gaze(truth.frames, truth)
    assert np.isfinite(shown.error).mean() > 0.8
    assert np.nanmean(shown.error) < 5
    assert min(follows(shown, axis=axis) for axis in (0, 1)) > 0.7
    other = shown_gaze(np.roll(truth.frames, 1, axis=1), truth)  # frames with another gaze
    assert np.nanmean(other.error) > 1.5 * np.nanmean(shown.error)


def test_generated_frames_are_measured_with_and_without_pupils(truth: GazeTruth) -> None:
    small = GazeTruth(
        truth.shot_frames[:, :, ::8, ::8], truth.shots, truth.frames[:, :, ::8, ::8], truth.driving, truth.eyes, truth.radius
    )  # fmt: skip
    networks = Networks(image_size=16, base_width=4)
    shots = Shots(small.shot_frames[0], small.shots[0].astype(np.float32), np.ones(1, np.float32))
    avatar = jax.jit(feed_forward, static_argnums=0)(networks, networks.init(jax.random.key(0)), shots)
    measured = measure_generated(networks, {"feed-forward": [avatar, avatar], "fine-tuned": [avatar, avatar]}, small)
    kinds = [f"{kind}, {pupils} pupils" for kind in ("feed-forward", "fine-tuned") for pupils in ("with", "without")]
    assert list(measured) == ["rendered", *kinds]
    assert all(one.error.shape == (2, 8) for one in measured.values())
    measured["rendered"] = shown_gaze(truth.frames, truth)
    text = gaze_report({"rendered": measured["rendered"]}, size=128, radius=float(truth.radius.mean()))
    assert "| gaze in frames of 128 px | error, °" in text
    assert "| rendered |" in text
    assert "nan" not in text
    assert "° of gaze at 128 px" in text
