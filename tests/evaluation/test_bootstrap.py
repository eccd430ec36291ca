"""Bootstrap intervals against closed forms and SciPy: people are resampled, not frames, and pairing narrows intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from th_jax.evaluation.bootstrap import bootstrap_difference, bootstrap_mean


def noise(people: int, frames: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(people, 1)) + 0.1 * rng.normal(size=(people, frames))


def test_equal_values_have_no_width() -> None:
    assert bootstrap_mean(np.full((5, 3), 0.1)) == pytest.approx((0.1, 0.1, 0.1, 5, 15))


def test_two_people_give_three_means_with_known_chances() -> None:
    """Both samples one person, both the other, or one of each: a quarter, a quarter and a half."""
    values = np.array([[0.0, 0.0], [1.0, 1.0]])
    wide = bootstrap_mean(values)
    assert (wide.value, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = bootstrap_mean(values, confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_many_people_follow_the_normal_law_of_people_not_of_frames() -> None:
    values = noise(400, 20)
    found = bootstrap_mean(values)
    error = values.mean(1).std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    frames = values.ravel()
    assert found.high - found.low > 3 * 2 * 1.96 * frames.std() / math.sqrt(frames.size)


def test_as_scipy_does_it() -> None:
    values = noise(12, 4)
    theirs = stats.bootstrap((values.mean(1),), np.mean, method="percentile", n_resamples=20_000, rng=1)
    ours = bootstrap_mean(values)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02 * width)


def test_unknown_frames_leave_the_others_their_weight() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 3.0, 3.0], [np.nan] * 3])
    found = bootstrap_mean(values)
    assert (found.value, found.people, found.frames) == (2.5, 2, 4)
    assert (found.low, found.high) == (1.0, 3.0)
    nothing = bootstrap_mean(np.full((2, 2), np.nan))
    assert math.isnan(nothing.value)
    assert nothing.frames == 0
    alone = bootstrap_mean(np.ones((1, 4)))
    assert alone.value == 1
    assert math.isnan(alone.low)


def test_videos_of_one_person_are_drawn_together() -> None:
    values = noise(30, 3)
    people = np.repeat(np.arange(10), 3)
    together = bootstrap_mean(values, groups=people)
    joined = bootstrap_mean(values.reshape(10, 9))
    assert together == pytest.approx(joined)
    assert together.people == 10


def test_pairs_are_narrower_and_turn_with_their_order() -> None:
    ours = noise(20, 4)
    theirs = ours + 0.01 * noise(20, 4, seed=1) + 0.05
    found = bootstrap_difference(ours, theirs)
    assert found.high < 0
    alone = bootstrap_mean(ours)
    assert found.high - found.low < 0.1 * (alone.high - alone.low)
    turned = bootstrap_difference(theirs, ours)
    assert turned.low == pytest.approx(-found.high)
    theirs[0, 0] = np.nan
    assert bootstrap_difference(ours, theirs).frames == 79


def test_the_order_of_frames_changes_nothing_and_seeds_repeat() -> None:
    values = noise(9, 5)
    found = bootstrap_mean(values, resamples=3000)
    assert bootstrap_mean(values, resamples=3000) == found
    np.testing.assert_allclose(bootstrap_mean(values[:, ::-1], resamples=3000), found)
    assert bootstrap_mean(values, resamples=3000, seed=1).low != found.low


def test_invalid_intervals_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least one person, got none"):
        bootstrap_mean(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"got 0 and 0.95"):
        bootstrap_mean(np.zeros((2, 3)), resamples=0)
    with pytest.raises(ValueError, match="each of 2 rows, got 3"):
        bootstrap_mean(np.zeros((2, 3)), groups=np.arange(3))
    with pytest.raises(ValueError, match="same frames"):
        bootstrap_difference(np.zeros((2, 3)), np.zeros((2, 2)))
