"""The optimisers of both players: Adam with the paper's rates, warm-up and halvings, and the rule for large batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from th_jax.models.boundary import check_setting_names

REFERENCE_BATCH = 8
"""Global batches up to this size use the rates as they are written."""

BATCH_RULES = ("none", "square_root", "linear")


@dataclass(frozen=True)
class AdamSettings:
    """Adam of one player (paper, section 4; docs/paper-map.md), or plain descent for tests of equality.

    Attributes:
        learning_rate: after the warm-up.
        beta1, beta2, eps: Adam's. With beta1 = 0 no first moment is kept.
        warmup: updates over which the rate grows from zero.
        halve_at: numbers of updates at which the rate is halved, rising.
        clip: greatest global norm of a gradient; 0 for no limit.
        kind: "adam", or "sgd", whose updates are continuous in the gradients.
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
        """Refuse settings that could never train."""
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be above 0, but is {self.learning_rate}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must be in [0, 1), but are {self.beta1} and {self.beta2}")
        if self.kind not in ("adam", "sgd"):
            raise ValueError(f'kind must be "adam" or "sgd", but is {self.kind!r}')
        if list(self.halve_at) != sorted(set(self.halve_at)):
            raise ValueError(f"halve_at must rise, but is {list(self.halve_at)}")
        object.__setattr__(self, "halve_at", tuple(self.halve_at))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "AdamSettings":
        """Settings from a config section.

        Raises:
            ValueError: for an unknown key, with the nearest known one, or a value out of range.
        """
        check_setting_names("an optimizer", [entry.name for entry in fields(cls)], settings)
        return cls(**settings)

    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        """The learning rate after so many updates."""
        done = updates.astype(jnp.float32)
        # No power: XLA would write its expansion into the update of every parameter.
        halved = math.prod(jnp.where(done >= boundary, 0.5, 1.0) for boundary in self.halve_at)
        warm = jnp.minimum(1.0, (done + 1.0) / self.warmup) if self.warmup else 1.0
        return jnp.asarray(self.learning_rate * warm * halved, jnp.float32)

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser of a tree of parameters."""
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        if self.kind == "sgd":
            scale = optax.identity()
        elif self.beta1 == 0.0:  # the same numbers as Adam, without a first moment as large as the parameters
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
    """Both players' optimisers and the averaging of E, G and P.

    Attributes:
        synthesis: of E, G and P.
        discriminator: of D with w0 and b; W's rows use its rate and its Adam (see `th_jax.training.video_table`).
        averaging: decay of the averaged E, G and P a step, reached by min(averaging, (1 + n) / (10 + n)).
    """

    synthesis: AdamSettings = field(default_factory=_synthesis)
    discriminator: AdamSettings = field(default_factory=_discriminator)
    averaging: float = 0.999

    def __post_init__(self) -> None:
        """Refuse what the video table's own Adam cannot follow."""
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be in [0, 1), but is {self.averaging}")
        if self.discriminator.kind == "adam" and self.discriminator.beta1:
            raise ValueError(
                f"the discriminator's beta1 must be 0, but is {self.discriminator.beta1}: "
                "with another value rows of W that no episode visits would move as well"
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Optimizers":
        """Optimisers from a config section with the sections synthesis and discriminator.

        Raises:
            ValueError: for an unknown key or a value out of range.
        """
        check_setting_names("the optimizers", [entry.name for entry in fields(cls)], settings)
        sections: dict[str, Any] = {
            name: AdamSettings.from_settings(value) if name in ("synthesis", "discriminator") else value
            for name, value in settings.items()
        }
        return cls(**sections)

    def averaging_decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The decay of the averaged weights at a step: short memory at first, so that the random start is forgotten."""
        n = step.astype(jnp.float32)
        return jnp.minimum(jnp.float32(self.averaging), (1.0 + n) / (10.0 + n))

    def for_batch(self, batch_size: int, *, rule: str) -> "Optimizers":
        """These optimisers for a global batch of another size (docs/training.md).

        Args:
            batch_size: episodes of one update over all devices.
            rule: "none" changes nothing. "square_root" multiplies Adam's rates by the root of batch / 8 and raises beta2
                and the averaging to the power batch / 8, so that they span the same number of episodes; "linear"
                multiplies the rates by batch / 8 itself. Batches up to 8 change nothing under any rule.

        Raises:
            ValueError: for an unknown rule or an empty batch.
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

        return Optimizers(scaled(self.synthesis), scaled(self.discriminator), self.averaging**factor)
