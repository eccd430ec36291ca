"""The one-euro filter beside its formula, and what it is for: rest becomes steady, motion is followed."""

import math

import numpy as np
import pytest

from th_jax.landmarks.smooth import LandmarkFilter, OneEuro

SETTINGS = OneEuro(min_cutoff=1.5, beta=8.0)


def by_the_formula(values: list[float], times: list[float], settings: OneEuro) -> list[float]:
    """Algorithm 1 of Casiez et al., for one number at a time."""

    def alpha(period: float, cutoff: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / period)

    filtered, speed, out = values[0], 0.0, [values[0]]
    for value, period in zip(values[1:], np.diff(times).tolist(), strict=True):
        speed = alpha(period, 1.0) * ((value - filtered) / period) + (1 - alpha(period, 1.0)) * speed
        share = alpha(period, settings.min_cutoff + settings.beta * abs(speed))
        filtered = share * value + (1 - share) * filtered
        out.append(filtered)
    return out


def filtered(clip: np.ndarray, times: np.ndarray, settings: OneEuro = SETTINGS) -> np.ndarray:
    smooth = LandmarkFilter(settings)
    return np.stack([smooth(frame, time=float(time)) for frame, time in zip(clip, times, strict=True)])


def test_each_point_follows_the_formula_along_its_motion() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.05, 40))
    walks = np.cumsum(rng.normal(scale=0.01, size=(40, 3)), axis=0)
    direction = np.array([[1, 0], [0, 1], [0.6, 0.8]])
    came = filtered(walks[:, :, None] * direction, times)
    for point in range(3):
        want = by_the_formula(walks[:, point].tolist(), times.tolist(), SETTINGS)
        np.testing.assert_allclose((came[:, point] * direction[point]).sum(-1), want, atol=1e-12)


def test_rest_becomes_steady_and_motion_is_followed() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(100) / 25
    rest = 0.5 + 0.002 * rng.normal(size=(100, 68, 2))
    assert filtered(rest, times, OneEuro())[20:].std(0).mean() < 0.6 * rest[20:].std(0).mean()
    moving = np.linspace(0, 2, 100)[:, None, None] * np.ones((1, 68, 2))  # half a frame a second
    assert np.abs(filtered(moving, times, OneEuro()) - moving)[20:].max() < 0.02


def test_unknown_points_stay_unknown_and_begin_anew() -> None:
    times = np.arange(6) / 25
    clip = np.zeros((6, 2, 2), np.float32)
    clip[2, 1] = np.nan
    clip[3:, 1] = 5.0
    came = filtered(clip, times)
    assert came.dtype == np.float32
    assert np.isnan(came[2, 1]).all()
    np.testing.assert_array_equal(came[3:, 1], 5.0)
    np.testing.assert_array_equal(came[:, 0], 0.0)


def test_reset_forgets() -> None:
    smooth = LandmarkFilter(SETTINGS)
    smooth(np.zeros((68, 2)), time=0.0)
    smooth.reset()
    np.testing.assert_array_equal(smooth(np.ones((68, 2)), time=0.0), 1.0)


def test_refusals() -> None:
    for settings in (OneEuro(0.0, 1.0), OneEuro(-1.0, 1.0), OneEuro(1.0, -1.0), OneEuro(math.nan, 1.0)):
        with pytest.raises(ValueError, match="a positive cutoff and a beta of at least 0, got OneEuro"):
            LandmarkFilter(settings)
    smooth = LandmarkFilter(SETTINGS)
    smooth(np.zeros((68, 2)), time=1.0)
    with pytest.raises(ValueError, match=r"frames must follow each other in time, but 1\.0 s follows 1\.0 s"):
        smooth(np.zeros((68, 2)), time=1.0)
