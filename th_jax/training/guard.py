"""Guard against single bad steps: a step whose loss or gradient is far outside of its recent range changes nothing.

All of it happens on the device within the step's program, so that no step waits for the host. Values are compared as
sign(x) log(1 + |x|), because gradient norms vary by factors. An outlier is clipped at the limit before it enters the
statistics, so that a lasting change is accepted after a few steps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

WATCHED = (
    *("loss/generator", "loss/discriminator_hinge"),
    *("grad_norm/synthesis", "grad_norm/discriminator", "grad_norm/rows"),
)
"""Metrics that are watched, where a step has them."""

_LEAST_DEVIATION = 0.02
"""A value that hardly varies may always change by a few percent."""


class GuardSettings(NamedTuple):
    """Settings of the guard."""

    sigma: float | int = 6.0
    """Number of standard deviations above the mean from which a step is skipped; 0 turns the guard off."""
    decay: float = 0.99
    """Weight of the past in the running mean and variance."""
    warm_up: int = 100
    """Number of steps of a stage that only feed the statistics."""

    def checked(self) -> "GuardSettings":
        """Return the settings.

        Raises:
            ValueError: naming the setting that is out of range.
        """
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"guard.sigma must be 0 or more, but is {self.sigma}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"guard.decay must be in [0, 1), but is {self.decay}")
        if self.warm_up < 2:
            raise ValueError(f"guard.warm_up must be at least 2, but is {self.warm_up}")
        return self


class GuardStatistics(NamedTuple):
    """Running statistics of the watched metrics, part of the state of a run. All zeros is the start."""

    mean: Float[Array, " M"]
    variance: Float[Array, " M"]
    steps: Int[Array, " M"]
    """Number of steps of this stage that had the metric."""
    stage: Int[Array, ""]
    """Which players trained, as a number."""
    outliers: Int[Array, ""]
    """Number of steps that the guard skipped."""


def no_statistics() -> GuardStatistics:
    """Return the statistics of a new run."""
    return GuardStatistics(
        *(jnp.zeros((len(WATCHED),), kind) for kind in (jnp.float32, jnp.float32, jnp.int32)),
        *(jnp.zeros((), jnp.int32) for _ in range(2)),
    )


def judge(
    statistics: GuardStatistics, metrics: Mapping[str, Array], settings: GuardSettings, *, stage: int
) -> tuple[Bool[Array, ""], Float[Array, ""], GuardStatistics]:
    """Decide whether a step is an outlier, and update the statistics.

    Args:
        statistics: of the steps before.
        metrics: of this step.
        settings: of the guard.
        stage: which players train, as a number from 1; another one than before begins the statistics again.

    Returns:
        Whether the step may change the state, the largest deviation above a mean in standard deviations (0 during
        warm-up), and the new statistics.
    """
    present = jnp.asarray([name in metrics for name in WATCHED])
    plain = jnp.stack([jnp.asarray(metrics.get(name, 0.0), jnp.float32) for name in WATCHED])
    value = jnp.sign(plain) * jnp.log1p(jnp.abs(plain))
    count = jnp.where(statistics.stage == stage, statistics.steps, 0)
    usable = present & jnp.isfinite(value)
    deviation = jnp.maximum(jnp.sqrt(statistics.variance), _LEAST_DEVIATION)
    judged = usable & (count >= settings.warm_up)
    above = jnp.where(judged, (value - statistics.mean) / deviation, 0.0)
    kept = jnp.where(judged, jnp.minimum(value, statistics.mean + settings.sigma * deviation), value)
    weight = jnp.maximum(1.0 / (count + 1), 1.0 - settings.decay)
    change = kept - jnp.where(count == 0, kept, statistics.mean)
    mean = kept - (1.0 - weight) * change
    variance = (1.0 - weight) * (jnp.where(count == 0, 0.0, statistics.variance) + weight * jnp.square(change))
    outlier = jnp.any(above > settings.sigma)
    return (
        ~outlier,
        jnp.max(above, initial=0.0),
        GuardStatistics(
            mean=jnp.where(usable, mean, statistics.mean),
            variance=jnp.where(usable, variance, statistics.variance),
            steps=count + usable,
            stage=jnp.full((), stage, jnp.int32),
            outliers=statistics.outliers + outlier,
        ),
    )
