"""Percentile bootstrap intervals of means, resampled over people, because frames of one person are not independent."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean with its interval. The mean is NaN without known values, and the interval with fewer than two people."""

    value: float
    low: float
    high: float
    people: int
    """Number of people with at least one known frame."""
    frames: int
    """Number of known frames, over which the mean is taken."""


def bootstrap_mean(
    values: Float[np.ndarray, "I S"],
    *,
    groups: Shaped[np.ndarray, " G"] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Compute the mean over all known frames, and its percentile interval when people are resampled.

    A resample draws as many people as there are, with replacement, each with all of their frames. Frames of one person
    are similar, so that an interval over frames would be too narrow. With few people, the percentile interval is
    somewhat too narrow as well.

    Args:
        values: one row per video; NaN where a frame has no value.
        groups: identity of each row's person, for people with several rows; by default each row is another person.
        resamples: number of resamples.
        confidence: confidence level of the interval.
        seed: random seed. Equal numbers of people and equal seeds give equal draws, so that intervals are reproducible.

    Raises:
        ValueError: if there are no rows, `resamples` is below 1, the confidence is outside (0, 1), or `groups` has
            another length.
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
    # Rounding may put the mean an ulp outside an interval of zero width.
    return Estimate(value, float(min(low, value)), float(max(high, value)), people, frames)


def bootstrap_difference(
    ours: Float[np.ndarray, "I S"],
    theirs: Float[np.ndarray, "J R"],
    *,
    groups: Shaped[np.ndarray, " G"] | None = None,
    seed: int = 0,
) -> Estimate:
    """Compute `bootstrap_mean` of the paired differences ours - theirs.

    The interval is narrower than those of the two means suggest, because frames and people are the same. Frames without
    a value on either side do not count.

    Raises:
        ValueError: as `bootstrap_mean`, or if the shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"only scores of the same frames can be paired, got shapes {ours.shape} and {theirs.shape}")
    return bootstrap_mean(ours - theirs, groups=groups, seed=seed)


@functools.lru_cache(maxsize=2)
def _draws(people: int, resamples: int, seed: int) -> Float[np.ndarray, "R P"]:
    """Return how often each person is drawn in each resample; cached for the hundreds of measures of a run."""
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), resamples)
    return drawn.astype(np.float64)


def _per_person(values: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each person's known values."""
    if not len(values):
        raise ValueError("a mean over people needs at least one person, got none")
    if groups is not None and len(groups) != len(values):
        raise ValueError(f"groups must have one entry for each of {len(values)} rows, got {len(groups)}")
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(1), known.sum(1).astype(np.float64)
    if groups is None:
        return sums, counts
    _, person = np.unique(groups, return_inverse=True)
    return np.bincount(person, sums), np.bincount(person, counts)


def _check(resamples: int, confidence: float) -> None:
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"an interval needs at least 1 resample and a confidence in (0, 1), got {resamples} and {confidence}"
        )
