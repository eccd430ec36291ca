"""When the adversary joins a run: content alone, then the discriminator alone, then a ramp (docs/training.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from th_jax.models.boundary import check_setting_names

SYNTHESIS, DISCRIMINATOR = "synthesis", "discriminator"


@dataclass(frozen=True)
class AdversarySchedule:
    """The stages of a run by its step; the paper's is the default: both players from the first step.

    Attributes:
        content_steps: steps of the content loss alone, in which D and W rest. At their end every row of W becomes the
            mean embedding of its video and w0 zero (`th_jax.training.settle`).
        discriminator_steps: steps after those in which only D and W train.
        ramp_steps: steps after those over which the adversary's weight grows from 0.
        weight: of the adversarial and the feature matching loss after the ramp; 1 in the paper.
        fall_steps: steps after the ramp over which that weight falls, or rises, to `final_weight`; 0 keeps it. As content
            is learned its gradient shrinks, and a constant adversary takes over (docs/learning.md).
        final_weight: the weight after those.
    """

    content_steps: int = 0
    discriminator_steps: int = 0
    ramp_steps: int = 0
    weight: float = 1.0
    fall_steps: int = 0
    final_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse negative stages."""
        for entry in fields(self):
            if getattr(self, entry.name) < 0:
                raise ValueError(f"{entry.name} must be at least 0, but is {getattr(self, entry.name)}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "AdversarySchedule":
        """A schedule from a config section.

        Raises:
            ValueError: for an unknown key, with the nearest known one, or a negative number.
        """
        check_setting_names("the adversary's schedule", [entry.name for entry in fields(cls)], settings)
        return cls(**settings)

    def players(self, step: int) -> tuple[str, ...]:
        """Who trains at a step."""
        if step < self.content_steps:
            return (SYNTHESIS,)
        if step < self.content_steps + self.discriminator_steps:
            return (DISCRIMINATOR,)
        return (SYNTHESIS, DISCRIMINATOR)

    def adversary(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The adversary's weight at a step, on the device."""
        start = self.content_steps + self.discriminator_steps
        weight = jnp.asarray(self.weight, jnp.float32)
        if self.fall_steps:
            fallen = (step - start - self.ramp_steps + 1).astype(jnp.float32) / self.fall_steps
            weight += (self.final_weight - self.weight) * jnp.clip(fallen, 0.0, 1.0)
        if self.ramp_steps:
            risen = (step - start + 1).astype(jnp.float32) / self.ramp_steps
            weight *= jnp.clip(risen, 0.0, 1.0)
        return weight

    def settles_at(self, step: int) -> bool:
        """Whether W is set to the embeddings before this step."""
        return bool(self.content_steps) and step == self.content_steps
