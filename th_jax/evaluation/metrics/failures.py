"""Scores over frames in which a face may not have been found: failures are counted, never dropped silently."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import AnyArray


class ScoreWithFailures(NamedTuple):
    """One score, with the frames that have none counted and charged."""

    mean: float
    """Over the frames that have a value; NaN if none has."""
    failures: int
    """Frames without a value."""
    frames: int
    """All frames."""
    mean_with_failures: float
    """Over all frames, each failure counted at `failure_value`; NaN only if there is no frame."""
    failure_value: float


def score_with_failures(values: Float[AnyArray, "*frames"], *, failure_value: float) -> ScoreWithFailures:
    """The score of values of which some are NaN, which is how every measure here says that a face was not found.

    Args:
        failure_value: what a frame without a face is charged: as bad as the measure gets in practice.

    Raises:
        ValueError: if `failure_value` is not finite, or a value is infinite.
    """
    if not np.isfinite(failure_value):
        raise ValueError(f"failure_value must be a finite score for frames without a face, but is {failure_value}")
    numbers = np.asarray(values, np.float64).ravel()
    if np.isinf(numbers).any():
        raise ValueError("a score must be finite, or NaN where there is no face, but an infinite one came")
    failed = np.isnan(numbers)
    found = numbers[~failed]
    return ScoreWithFailures(
        mean=float(found.mean()) if found.size else float("nan"),
        failures=int(failed.sum()),
        frames=numbers.size,
        mean_with_failures=float(np.where(failed, failure_value, numbers).mean()) if numbers.size else float("nan"),
        failure_value=float(failure_value),
    )
