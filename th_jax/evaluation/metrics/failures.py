"""Scores that include detection failures: frames without a detected face are counted, never dropped silently."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import AnyArray


class ScoreWithFailures(NamedTuple):
    """A score in which frames without a value are counted and charged."""

    mean: float
    """Mean over the frames with a value; NaN if there are none."""
    failures: int
    """Number of frames without a value."""
    frames: int
    """Number of all frames."""
    mean_with_failures: float
    """Mean over all frames, with `failure_value` for each failure; NaN only without frames."""
    failure_value: float


def score_with_failures(values: Float[AnyArray, "*frames"], *, failure_value: float) -> ScoreWithFailures:
    """Score values in which NaN means that no face was detected.

    `failure_value` is charged for a failure: as bad as the measure gets in practice.

    Raises:
        ValueError: if `failure_value` is not finite, or a value is infinite.
    """
    if not np.isfinite(failure_value):
        raise ValueError(f"failure_value must be a finite score for frames without a face, got {failure_value}")
    numbers = np.asarray(values, np.float64).ravel()
    if np.isinf(numbers).any():
        raise ValueError("a score must be finite, or NaN for frames without a face, got an infinite one")
    failed = np.isnan(numbers)
    found = numbers[~failed]
    return ScoreWithFailures(
        mean=float(found.mean()) if found.size else float("nan"),
        failures=int(failed.sum()),
        frames=numbers.size,
        mean_with_failures=float(np.where(failed, failure_value, numbers).mean()) if numbers.size else float("nan"),
        failure_value=float(failure_value),
    )
