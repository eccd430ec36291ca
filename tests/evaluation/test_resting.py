"""A resting driver: where the background is, flicker and jitter in closed form, and a generator that sees noise."""

import jax
import numpy as np
import pytest

from th_jax.evaluation.resting import (
    FRAMES,
    NOISE,
    background,
    flicker,
    landmark_jitter,
    passed_jitter,
    resting_flicker,
    resting_report,
)
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.models.networks import Networks
from th_jax.training.finetune import feed_forward
from th_jax.types import Shots

SIZE = 32


def measure() -> dict[str, float]:
    """Flicker and jitter of an avatar of noise."""
    networks, rng = Networks(image_size=16, base_width=4), np.random.default_rng(0)
    points = (0.5 + 0.2 * rng.uniform(-1, 1, (68, 2))).astype(np.float32)
    shots = Shots(rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), points[None], np.ones(1, np.float32))
    avatar = jax.jit(feed_forward, static_argnums=0)(networks, networks.init(jax.random.key(0)), shots)
    return resting_flicker(networks, [avatar], [points])


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return measure()


def test_background_is_beside_and_above_the_head() -> None:
    turn = np.linspace(0, 2 * np.pi, IBUG_POINTS)
    face = 0.5 + 0.15 * np.stack([np.cos(turn), np.sin(turn)], -1)
    where = background(face, size=64)
    assert where[2, 2]
    assert where[2, 32]
    assert not where[32, 32]
    assert not where[16, 32]  # hair
    assert not where[60].any()  # shoulders


def test_flicker_in_closed_form() -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[1], where = 10, np.ones((4, 4), bool)
    assert flicker(frames, where) == 10
    frames[1:, 0] = 0
    assert flicker(frames[:2], where) == 7.5
    assert np.isnan(flicker(frames, ~where))


def test_smoothing_makes_a_resting_background_stiller(measured: dict[str, float]) -> None:
    assert 0 < measured["smoothed"] < measured["detected"]
    assert f"| smoothed landmarks | {measured['smoothed']:.2f} |" in resting_report(measured)
    assert measured["detected"] == pytest.approx(measure()["detected"])


def test_landmark_jitter_in_closed_form() -> None:
    points = np.full((3, 68, 2), 0.5)
    points[1, :, 0] += 3 / SIZE
    points[1, :, 1] += 4 / SIZE
    assert landmark_jitter(points, size=SIZE) == pytest.approx(5), "there and back by 3 and 4 px"
    points[1, 34:] = 0.5
    assert landmark_jitter(points, size=SIZE) == pytest.approx(2.5)


@pytest.mark.parametrize("slope", [0, 2, 5])
def test_a_moved_ramp_passes_on_its_slope(slope: int) -> None:
    """value = 40 + slope * (x - shift): the frame changes by the slope for each pixel of motion."""
    shifts = np.array([0, 1, -1, 2, 0])
    ramp = 40 + slope * (np.arange(SIZE)[None, :] - shifts[:, None])
    frames = np.broadcast_to(ramp[:, None, :, None], (5, SIZE, SIZE, 3)).astype(np.uint8)
    points = np.full((5, 68, 2), 0.4) + np.stack([shifts / SIZE, np.zeros(5)], -1)[:, None]
    assert passed_jitter(frames, points) == pytest.approx(slope)
    assert np.isnan(passed_jitter(frames, points[:1].repeat(5, 0)))


def test_the_report_has_the_numbers_of_a_generator(measured: dict[str, float]) -> None:
    # Successive detections differ by noise of twice the variance in both directions: a Rayleigh distribution.
    expected = NOISE * np.sqrt(2) * np.sqrt(np.pi / 2) * 16
    assert measured["detected/landmarks"] == pytest.approx(expected, rel=3 / np.sqrt(FRAMES * 68))
    assert 0 < measured["smoothed/landmarks"] < measured["detected/landmarks"]
    for name in ("detected", "smoothed"):
        assert measured[f"{name}/passed"] == pytest.approx(measured[f"{name}/frame"] / measured[f"{name}/landmarks"])
    report = resting_report(measured)
    for name in ("detected", "smoothed"):
        values = [measured[f"{name}{part}"] for part in ("", "/frame", "/landmarks", "/passed")]
        assert f"| {name} landmarks | " + " | ".join(f"{value:.2f}" for value in values) + " |" in report
