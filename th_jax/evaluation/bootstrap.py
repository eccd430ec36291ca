"""How sure a mean is: percentile bootstrap intervals over people, whose frames are not independent of each other."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean with its interval. NaN where nothing is known, and in the interval where fewer than two people are."""

    value: float
    low: float
    high: float
    people: int
    """With at least one known frame."""
    frames: int
    """Known ones: those that the mean is over."""


def bootstrap_mean(
    values: Float[np.ndarray, "I S"],
    *,
    groups: Shaped[np.ndarray, " G"] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """The mean over all known frames, and the percentile interval of that mean when people are drawn anew.

    A resample draws as many people as there are, with replacement, each with all of their frames. Frames of one person are
    alike, so an interval over frames would be too narrow. With few people the percentile interval is somewhat too
    narrow as well.

    Args:
        values: a row a video; NaN where a frame has no value.
        groups: who is in each row, where a person has several; by default each row is somebody else.
        resamples: how often people are drawn.
        confidence: share of resamples that the interval holds.
        seed: of the draws. Equal numbers of people with equal seeds give equal draws, so that intervals can be repeated.

    Raises:
        ValueError: for no rows, less than one resample, a confidence outside of (0, 1), or groups of another length.
    """
    sums, counts = _per_person(values, groups)
    _check(resamples, confidence)
    known = counts > 0
    people, frames = int(known.sum()), int(counts.sum())
    if not frames:
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    value = float(sums.sum() / counts.sum())
    if people < 2:
        return Estimate(value, np.nan, np.nan, people, frames)
    drawn = _draws(len(sums), resamples, seed)
    total = drawn @ counts
    means = (drawn @ sums)[total > 0] / total[total > 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    # Rounding may leave the mean an ulp outside of an interval without width.
    return Estimate(value, float(min(low, value)), float(max(high, value)), people, frames)


def bootstrap_difference(
    ours: Float[np.ndarray, "I S"],
    theirs: Float[np.ndarray, "J R"],
    *,
    groups: Shaped[np.ndarray, " G"] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """`bootstrap_mean` of ours less theirs, frame by frame: narrower than two intervals, since frames and people are the same.

    A frame without a value on either side does not count.

    Raises:
        ValueError: as `bootstrap_mean`; also if the two differ in shape.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"only equal frames can be paired, but the shapes are {ours.shape} and {theirs.shape}")
    return bootstrap_mean(ours - theirs, groups=groups, resamples=resamples, confidence=confidence, seed=seed)


@functools.lru_cache(maxsize=2)
def _draws(people: int, resamples: int, seed: int) -> Float[np.ndarray, "R P"]:
    """How often each person is drawn in each resample: the same for hundreds of measures of one run."""
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), resamples)
    return drawn.astype(np.float64)


def _per_person(values: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the known values of each person."""
    if not len(values):
        raise ValueError("a mean over people needs at least one person, but none came")
    if groups is not None and len(groups) != len(values):
        raise ValueError(f"groups must say who is in each of {len(values)} rows, but {len(groups)} came")
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(1), known.sum(1).astype(np.float64)
    if groups is None:
        return sums, counts
    _, person = np.unique(groups, return_inverse=True)
    return np.bincount(person, sums), np.bincount(person, counts)


def _check(resamples: int, confidence: float) -> None:
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"an interval needs at least 1 resample and a confidence in (0, 1), but {resamples} and {confidence} came"
        )
