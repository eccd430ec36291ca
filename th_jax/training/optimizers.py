"""Optimizers of both players, the adversary's schedule, and the scaling rule for large batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from th_jax.models.checks import construct

SYNTHESIS, DISCRIMINATOR = "synthesis", "discriminator"


@dataclass(frozen=True)
class AdversarySchedule:
    """Stages of a run by step. The default is the paper's: both players train from the first step.

    Attributes:
        content_steps: initial steps with the content loss only, in which D and W do not train. At the end of this stage every
            row of W is set to the mean embedding of its video, and w0 to zero (`th_jax.training.state`).
        discriminator_steps: subsequent steps in which only D and W train.
        ramp_steps: subsequent steps over which the adversary's weight grows from 0.
        weight: weight of the adversarial and the feature matching loss after the ramp; 1 in the paper.
        fall_steps: steps after the ramp over which that weight changes to `final_weight`; 0 keeps it constant. The gradient of
            the content loss shrinks as content is learned, so that a constant adversary would dominate (docs/learning.md).
        final_weight: weight after `fall_steps`.
    """

    content_steps: int = 0
    discriminator_steps: int = 0
    ramp_steps: int = 0
    weight: float = 1.0
    fall_steps: int = 0
    final_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check that no setting is negative."""
        for entry in fields(self):
            if getattr(self, entry.name) < 0:
                raise ValueError(f"{entry.name} must be at least 0, but is {getattr(self, entry.name)}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "AdversarySchedule":
        """Build a schedule from a config section.

        Raises:
            ValueError: if a key is unknown (the message suggests the nearest known one) or a number is negative.
        """
        return construct(cls, settings, what="the adversary's schedule")

    def players(self, step: int) -> tuple[str, ...]:
        """Return the players that train at a step."""
        if step < self.content_steps:
            return (SYNTHESIS,)
        if step < self.content_steps + self.discriminator_steps:
            return (DISCRIMINATOR,)
        return (SYNTHESIS, DISCRIMINATOR)

    def adversary(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the adversary's weight at a step, on the device."""
        start = self.content_steps + self.discriminator_steps
        weight = jnp.asarray(self.weight, jnp.float32)
        if self.fall_steps:
            fallen = (step - start - self.ramp_steps + 1).astype(jnp.float32) / self.fall_steps
            weight += (self.final_weight - self.weight) * jnp.clip(fallen, 0.0, 1.0)
        if self.ramp_steps:
            risen = (step - start + 1).astype(jnp.float32) / self.ramp_steps
            weight *= jnp.clip(risen, 0.0, 1.0)
        return weight

    def resets_table_at(self, step: int) -> bool:
        """Return whether W is set to the embeddings before this step."""
        return bool(self.content_steps) and step == self.content_steps


def averaging_decay(averaging: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """Compute min(averaging, (1 + n) / (10 + n)), the decay of averaged parameters at step n."""
    n = step.astype(jnp.float32)
    return jnp.minimum(jnp.float32(averaging), (1.0 + n) / (10.0 + n))


REFERENCE_BATCH = 8
"""Global batches up to this size use the configured rates unchanged."""

BATCH_RULES = ("none", "square_root", "linear")


@dataclass(frozen=True)
class AdamSettings:
    """Adam settings of one player (paper, section 4; docs/paper-map.md), or plain gradient descent for equality tests.

    Attributes:
        learning_rate: rate after the warm-up.
        beta1, beta2, eps: Adam's parameters. With beta1 = 0 no first moment is stored.
        warmup: updates over which the rate grows from zero.
        halve_at: increasing numbers of updates at which the rate is halved.
        clip: maximum global norm of a gradient; 0 for no limit.
        kind: "adam"; "radam", whose first updates are smaller while the second moments are uncertain (Liu et al., 2020); or
            "sgd", whose updates are continuous in the gradients.
    """

    learning_rate: float
    beta1: float = 0.0
    beta2: float = 0.999
    eps: float = 1e-5
    warmup: int = 0
    halve_at: Sequence[int] = ()
    clip: float = 0.0
    kind: str = "adam"

    def __post_init__(self) -> None:
        """Check that all settings are in range."""
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be above 0, but is {self.learning_rate}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must be in [0, 1), but are {self.beta1} and {self.beta2}")
        if self.kind not in ("adam", "radam", "sgd"):
            raise ValueError(f'kind must be "adam", "radam" or "sgd", but is {self.kind!r}')
        if list(self.halve_at) != sorted(set(self.halve_at)):
            raise ValueError(f"halve_at must rise, but is {list(self.halve_at)}")
        object.__setattr__(self, "halve_at", tuple(self.halve_at))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "AdamSettings":
        """Build settings from a config section.

        Raises:
            ValueError: if a key is unknown (the message suggests the nearest known one) or a value is out of range.
        """
        return construct(cls, settings, what="an optimizer")

    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the learning rate after a number of updates."""
        done = updates.astype(jnp.float32)
        # Not a power, because XLA would inline its expansion into the update of every parameter.
        halved = math.prod(jnp.where(done >= boundary, 0.5, 1.0) for boundary in self.halve_at)
        warm = jnp.minimum(1.0, (done + 1.0) / self.warmup) if self.warmup else 1.0
        return jnp.asarray(self.learning_rate * warm * halved, jnp.float32)

    def optimizer(self) -> optax.GradientTransformation:
        """Build the optimizer of a parameter tree."""
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        if self.kind == "sgd":
            scale = optax.identity()
        elif self.kind == "radam":
            scale = optax.scale_by_radam(self.beta1, self.beta2, self.eps)
        elif self.beta1 == 0.0:  # same result as Adam, without storing a first moment as large as the parameters
            scale = optax.scale_by_rms(self.beta2, self.eps, eps_in_sqrt=False, bias_correction=True)
        else:
            scale = optax.scale_by_adam(self.beta1, self.beta2, self.eps)
        return optax.chain(clip, scale, optax.scale_by_learning_rate(self.rate))


def _synthesis() -> AdamSettings:
    return AdamSettings(learning_rate=5e-5)


def _discriminator() -> AdamSettings:
    return AdamSettings(learning_rate=2e-4)


@dataclass(frozen=True)
class Optimizers:
    """Optimizers of both players, and the averaging of E, G and P.

    Attributes:
        synthesis: settings for E, G and P.
        discriminator: settings for D with w0 and b; W's rows use the same rate and their own Adam (`th_jax.training.state`).
        averaging: decay per step of the averaged E, G and P; the decay at step n is min(averaging, (1 + n) / (10 + n)).
        embedding_rate: factor of the synthesis rate for E and P; 1 in the paper. Above 1, they go on learning when G has
            nearly converged and needs a low rate (docs/learning.md).
    """

    synthesis: AdamSettings = field(default_factory=_synthesis)
    discriminator: AdamSettings = field(default_factory=_discriminator)
    averaging: float = 0.999
    embedding_rate: float = 1.0

    def __post_init__(self) -> None:
        """Check that the settings are in range, and that the video table's Adam supports them."""
        if not (math.isfinite(self.embedding_rate) and self.embedding_rate > 0):
            raise ValueError(f"embedding_rate must be finite and above 0, but is {self.embedding_rate}")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be in [0, 1), but is {self.averaging}")
        if self.discriminator.kind == "radam":
            raise ValueError('the discriminator\'s kind must be "adam" or "sgd": W\'s rows use the same updates')
        if self.discriminator.kind == "adam" and self.discriminator.beta1:
            raise ValueError(
                f"the discriminator's beta1 must be 0, but is {self.discriminator.beta1}: "
                "with another value rows of W that no episode visits would move as well"
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Optimizers":
        """Build optimizers from a config section with the sections `synthesis` and `discriminator`.

        Raises:
            ValueError: if a key is unknown or a value is out of range.
        """
        players = {
            name: AdamSettings.from_settings(settings[name]) for name in (SYNTHESIS, DISCRIMINATOR) if name in settings
        }
        return construct(cls, {**settings, **players}, what="the optimizers")

    def averaging_decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Compute the decay of the averaged weights at a step.

        It is small at first, so that the random initial weights are forgotten quickly.
        """
        return averaging_decay(self.averaging, step)

    def synthesis_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Scale the changes of E and P, by network, by `embedding_rate`."""
        if self.embedding_rate == 1.0:
            return changes
        factors = {network: 1.0 if network == "generator" else self.embedding_rate for network in changes}
        return {name: jax.tree.map(lambda x, by=factors[name]: x * by, part) for name, part in changes.items()}

    def for_batch(self, batch_size: int, *, rule: str) -> "Optimizers":
        """Scale these optimizers to another global batch size (docs/training.md).

        Args:
            batch_size: episodes per update over all devices.
            rule: "none" changes nothing. "square_root" multiplies Adam's rates by the square root of batch / 8 and raises
                beta2 and the averaging decay to the power batch / 8, so that they span the same number of episodes. "linear"
                multiplies the rates by batch / 8 itself, and raises the decays likewise. Batches up to 8 change nothing under
                any rule.

        Raises:
            ValueError: if the rule is unknown or `batch_size` is below 1.
        """
        if rule not in BATCH_RULES:
            raise ValueError(f"the batch rule must be one of {', '.join(BATCH_RULES)}, but is {rule!r}")
        if batch_size < 1:
            raise ValueError(f"a batch holds at least 1 episode, but batch_size is {batch_size}")
        factor = max(1.0, batch_size / REFERENCE_BATCH)
        if rule == "none" or factor == 1.0:
            return self

        def scaled(adam: AdamSettings) -> AdamSettings:
            rate = adam.learning_rate * (math.sqrt(factor) if rule == "square_root" else factor)
            return replace(adam, learning_rate=rate, beta2=adam.beta2**factor)

        return Optimizers(
            scaled(self.synthesis), scaled(self.discriminator), self.averaging**factor, self.embedding_rate
        )
