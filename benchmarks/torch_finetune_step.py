"""The fine-tuning step in plain PyTorch, as its users would write it well: the other side of `benchmarks.finetune_step`.

As `benchmarks.torch_meta_step`, for one person: ψ' takes the place of E and P, w' that of w0, no row is added and nothing
matches. One forward pass of G serves both players; a player's u and v move once an update.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from benchmarks.networks import to_torch
from benchmarks.torch_meta_step import PYRAMIDS
from tests.golden import torch_reference
from tests.golden.torch_layers import Parameters, divide_by_sigma, power_iteration, to_torch_layout
from tests.golden.torch_perceptual import pyramid
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.training.finetune import FinetuneState
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.types import Shots


class TorchFinetuneStep:
    """The step with all that it changes: `step()` gives the losses under th_jax's names, on all shots of up to eight.

    Args:
        networks: of the state.
        state: of th_jax, at its start; its numbers are copied.
        perceptual: weights of the frozen networks.
        shots: of one person, all of them real.
        loss_weights: without a pixel term.
        optimizers: Adam without warm-up, halvings or clipping.
    """

    def __init__(
        self,
        networks: Networks,
        state: FinetuneState,
        perceptual: Any,
        shots: Shots,
        *,
        loss_weights: LossWeights,
        optimizers: Optimizers,
    ) -> None:
        """Copy the state into PyTorch's layout."""
        self.generator, self.generator_stats = _copied(state.generator)
        self.discriminator, self.discriminator_stats = _copied(state.discriminator)
        self.adain = torch.tensor(np.asarray(state.adain), requires_grad=True)
        self.perceptual = {name: to_torch_layout(to_torch(layers)) for name, layers in perceptual.items()}
        self.content, self.feature_matching = loss_weights.content, loss_weights.feature_matching
        self._synthesis_adam = _adam([*self.generator.values(), self.adain], optimizers.synthesis)
        self._discriminator_adam = _adam(list(self.discriminator.values()), optimizers.discriminator)
        self.real = torch.tensor(np.asarray(shots.frames)).float().mul(2 / 255).sub(1)
        self.landmarks = torch.tensor(np.asarray(networks.landmark_image(jnp.asarray(shots.landmarks))))
        self._no_row = torch.zeros(len(self.real), networks.plan.embedding)

    def __call__(self) -> dict[str, Tensor]:
        """Two updates of D', one of G'."""
        weights = divide_by_sigma(self.generator, self.generator_stats)
        everybody = self.adain.expand(len(self.real), -1)
        fake = torch_reference.generator(weights, self.landmarks, everybody)
        losses: dict[str, Tensor] = {}
        for _ in range(2):
            losses |= self._update_discriminator(fake.detach())
        terms = self._generator_terms(fake)
        total = terms["content"] + terms["adversarial"] + self.feature_matching * terms["feature_matching"]
        total.backward()
        _step(self._synthesis_adam)
        self.generator_stats = power_iteration(self.generator, self.generator_stats)
        losses |= {f"loss/{name}": term.detach() for name, term in terms.items()}
        return losses | {"loss/generator": total.detach()}

    def _update_discriminator(self, fake: Tensor) -> dict[str, Tensor]:
        weights = divide_by_sigma(self.discriminator, self.discriminator_stats)
        pair, landmarks = torch.cat([fake, self.real]), torch.cat([self.landmarks] * 2)
        scores, _ = torch_reference.discriminator(weights, pair, landmarks, torch.cat([self._no_row] * 2))
        fake_score, real_score = scores.chunk(2)
        hinge = torch_reference.discriminator_loss(real_score, fake_score)
        hinge.backward()
        _step(self._discriminator_adam)
        self.discriminator_stats = power_iteration(self.discriminator, self.discriminator_stats)
        return {
            "loss/discriminator_hinge": hinge.detach(),
            "score/real": real_score.detach().mean(),
            "score/fake": fake_score.detach().mean(),
        }

    def _generator_terms(self, fake: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            judge = divide_by_sigma(self.discriminator, self.discriminator_stats)
            judge = {path: value.detach() for path, value in judge.items()}
            _, real_features = torch_reference.discriminator(judge, self.real, self.landmarks, self._no_row)
            real_pyramids = self._pyramids(self.real)
        score, features = torch_reference.discriminator(judge, fake, self.landmarks, self._no_row)
        return {
            "content": torch_reference.content_loss(self._pyramids(fake), real_pyramids, self.content),
            "adversarial": torch_reference.adversarial_loss(score),
            "feature_matching": torch_reference.feature_matching_loss(features, real_features),
        }

    def _pyramids(self, frames: Tensor) -> dict[str, list[Tensor]]:
        return {
            name: pyramid(layers, frames, network=PYRAMIDS[name][0], mean_bgr=PYRAMIDS[name][1])
            for name, layers in self.perceptual.items()
        }


def _copied(state: Any) -> tuple[Parameters, Any]:
    params = {path: value.requires_grad_() for path, value in to_torch_layout(to_torch(state.params)).items()}
    return params, to_torch(state.spectral_stats)


def _adam(parameters: list[Tensor], settings: AdamSettings) -> torch.optim.Adam:
    return torch.optim.Adam(
        parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True
    )


def _step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
