"""The meta-learning step in plain PyTorch, as its users would write it well: the other side of `benchmarks.meta_step`.

Networks and losses are tests/golden's independent rendering, in channels-last memory. As in th_jax, one forward pass of E, P
and G serves both players, D sees real and generated frame in one batch, nothing of a real frame is differentiated, and a
player's vectors u and v move once an update, with sigmas divided once for all passes between. Adam is PyTorch's fused one,
averaging its foreach. What is not done here counts in PyTorch's favour: landmarks come drawn, and there are neither norms of
gradients nor a check that everything is finite.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from benchmarks.networks import to_torch
from tests.golden import torch_reference
from tests.golden.torch_layers import Parameters, divide_by_sigma, power_iteration, to_torch_layout
from tests.golden.torch_perceptual import IMAGENET_MEAN_BGR, VGGFACE_MEAN_BGR, pyramid
from th_jax.losses import LossWeights
from th_jax.models.networks import SYNTHESIS, Networks
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.training.state import TrainState
from th_jax.types import EpisodeBatch

PYRAMIDS = {
    "vgg16": ("vgg16", IMAGENET_MEAN_BGR),
    "vgg19": ("vgg19", IMAGENET_MEAN_BGR),
    "vggface": ("vgg16", VGGFACE_MEAN_BGR),
}
"""A frozen network's layers and its means."""

DISCRIMINATOR = "discriminator"


class TorchBatch(NamedTuple):
    """An episode batch as tensors: frames are uint8, landmarks are drawn, in [-1, 1]."""

    source_frames: Tensor
    source_landmarks: Tensor
    target_frame: Tensor
    target_landmarks: Tensor
    video_index: Tensor


def torch_batch(networks: Networks, batch: EpisodeBatch) -> TorchBatch:
    """The same batch, its landmarks drawn by ours."""

    def tensor(array: Any) -> Tensor:
        return torch.tensor(np.asarray(array))

    def drawn(points: Any) -> Tensor:
        return tensor(networks.landmark_image(jnp.asarray(points)))

    return TorchBatch(
        source_frames=tensor(batch.source_frames),
        source_landmarks=drawn(batch.source_landmarks),
        target_frame=tensor(batch.target_frame),
        target_landmarks=drawn(batch.target_landmarks),
        video_index=tensor(batch.video_index).long(),
    )


class TorchMetaStep:
    """The step with all that it changes: `step(batch)` gives the losses under th_jax's names.

    Args:
        state: of th_jax, at its start; its numbers are copied.
        perceptual: weights of the frozen networks.
        loss_weights: without a pixel term.
        optimizers: Adam without warm-up, halvings or clipping.
    """

    def __init__(
        self, state: TrainState, perceptual: Any, *, loss_weights: LossWeights, optimizers: Optimizers
    ) -> None:
        """Copy the state into PyTorch's layout."""
        trees = {name: state.weights.synthesis.params[name] for name in SYNTHESIS}
        stats = {name: state.weights.synthesis.spectral_stats[name] for name in SYNTHESIS}
        trees[DISCRIMINATOR], stats[DISCRIMINATOR] = state.weights.discriminator
        self.params: dict[str, Parameters] = {
            name: {path: value.requires_grad_() for path, value in to_torch_layout(to_torch(tree)).items()}
            for name, tree in trees.items()
        }
        self.stats = {name: to_torch(tree) for name, tree in stats.items()}
        self.rows = torch.tensor(np.asarray(state.table.rows), requires_grad=True)
        self.perceptual = {name: to_torch_layout(to_torch(layers)) for name, layers in perceptual.items()}
        self.loss_weights = loss_weights
        self._moving = [value for name in SYNTHESIS for value in self.params[name].values()]
        self.averaged = [value.detach().clone() for value in self._moving]
        self._averaging, self._steps = optimizers.averaging, 0
        self._synthesis_adam = _adam(self._moving, optimizers.synthesis)
        self._discriminator_adam = _adam(list(self.params[DISCRIMINATOR].values()), optimizers.discriminator)
        adam = optimizers.discriminator
        self._rows_adam = torch.optim.SparseAdam(
            [self.rows], lr=adam.learning_rate, betas=(0.0, adam.beta2), eps=adam.eps
        )

    def __call__(self, batch: TorchBatch) -> dict[str, Tensor]:
        """Two updates of D and W, one of E, P and G, and the averaging."""
        target = _network_range(batch.target_frame)
        fake, embedding = self.synthesize(batch)
        losses: dict[str, Tensor] = {}
        for _ in range(2):
            losses |= self._update_discriminator(batch, target, fake.detach(), embedding.detach())

        terms = self._generator_terms(batch, target, fake, embedding)
        strengths = {"feature_matching": self.loss_weights.feature_matching, "matching": self.loss_weights.matching}
        total = sum((strengths.get(name, 1.0) * term for name, term in terms.items()), torch.zeros(()))
        total.backward()
        _step(self._synthesis_adam)
        for name in SYNTHESIS:
            self.stats[name] = power_iteration(self.params[name], self.stats[name])
        self._average()
        losses |= {f"loss/{name}": term.detach() for name, term in terms.items()}
        return losses | {"loss/generator": total.detach()}

    def synthesize(self, batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """x̂ [B H W 3] and ê [B N]."""
        weights = {name: divide_by_sigma(self.params[name], self.stats[name]) for name in SYNTHESIS}
        sources = _network_range(batch.source_frames).flatten(0, 1)
        embeddings = torch_reference.embedder(weights["embedder"], sources, batch.source_landmarks.flatten(0, 1))
        embedding = embeddings.unflatten(0, batch.source_frames.shape[:2]).mean(1)
        adain = torch_reference.adain_projection(weights["projection"], embedding)
        return torch_reference.generator(weights["generator"], batch.target_landmarks, adain), embedding

    def _update_discriminator(
        self, batch: TorchBatch, target: Tensor, fake: Tensor, embedding: Tensor
    ) -> dict[str, Tensor]:
        weights = divide_by_sigma(self.params[DISCRIMINATOR], self.stats[DISCRIMINATOR])
        rows = torch.nn.functional.embedding(batch.video_index, self.rows, sparse=True)
        pair, landmarks = torch.cat([fake, target]), torch.cat([batch.target_landmarks] * 2)
        scores, _ = torch_reference.discriminator(weights, pair, landmarks, torch.cat([rows, rows]))
        fake_score, real_score = scores.chunk(2)
        hinge = torch_reference.discriminator_loss(real_score, fake_score)
        match = torch_reference.matching_loss(rows, embedding)
        (hinge + self.loss_weights.matching * match).backward()
        _step(self._discriminator_adam)
        _step(self._rows_adam)
        self.stats[DISCRIMINATOR] = power_iteration(self.params[DISCRIMINATOR], self.stats[DISCRIMINATOR])
        return {
            "loss/discriminator_hinge": hinge.detach(),
            "loss/row_matching": match.detach(),
            "score/real": real_score.detach().mean(),
            "score/fake": fake_score.detach().mean(),
        }

    def _generator_terms(self, batch: TorchBatch, target: Tensor, fake: Tensor, embedding: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            rows = self.rows[batch.video_index]
            judge = divide_by_sigma(self.params[DISCRIMINATOR], self.stats[DISCRIMINATOR])
            judge = {path: value.detach() for path, value in judge.items()}  # biases pass through as they are
            _, real_features = torch_reference.discriminator(judge, target, batch.target_landmarks, rows)
            real_pyramids = self._pyramids(target)
        score, features = torch_reference.discriminator(judge, fake, batch.target_landmarks, rows)
        content = self.loss_weights.content
        return {
            "content": torch_reference.content_loss(self._pyramids(fake), real_pyramids, content),
            "adversarial": torch_reference.adversarial_loss(score),
            "feature_matching": torch_reference.feature_matching_loss(features, real_features),
            "matching": torch_reference.matching_loss(embedding, rows),
        }

    def _pyramids(self, frames: Tensor) -> dict[str, list[Tensor]]:
        return {
            name: pyramid(layers, frames, network=PYRAMIDS[name][0], mean_bgr=PYRAMIDS[name][1])
            for name, layers in self.perceptual.items()
        }

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self._averaging, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self.averaged, self._moving, 1 - decay)
        self._steps += 1


def _network_range(frames: Tensor) -> Tensor:
    return frames.float().mul_(2 / 255).sub_(1)


def _adam(parameters: list[Tensor], settings: AdamSettings) -> torch.optim.Adam:
    return torch.optim.Adam(
        parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True
    )


def _step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
