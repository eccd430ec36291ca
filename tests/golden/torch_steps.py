"""Whole steps of meta-learning and of fine-tuning in plain PyTorch, of any precision, dense, written from the paper.

Networks and losses are those of `torch_reference`; nothing of th_jax's training is used. Parameters stay in JAX's layout.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden import step_cases as cases
from tests.golden import torch_reference
from tests.golden.step_cases import ImageOutcomes
from tests.golden.torch_layers import Parameters, divide_by_sigma, power_iteration, to_torch_layout
from tests.golden.torch_perceptual import IMAGENET_MEAN_BGR, pyramid

SYNTHESIS = ("embedder", "projection", "generator")


class DenseAdam:
    """Adam without a first moment, with warm-up and halvings, over all numbers of its arrays."""

    def __init__(self, settings: dict[str, Any], parameters: list[Tensor]) -> None:
        """Nothing was updated yet."""
        self.settings, self.parameters, self.updates = settings, parameters, 0
        self.second = [torch.zeros_like(value) for value in parameters]

    def rate(self) -> float:
        """Of the next update."""
        halvings = sum(self.updates >= boundary for boundary in self.settings["halve_at"])
        return self.settings["learning_rate"] * min(1.0, (self.updates + 1) / self.settings["warmup"]) / 2**halvings

    @torch.no_grad()
    def update(self, loss: Tensor) -> None:
        """Against the gradients of a loss."""
        gradients = torch.autograd.grad(loss, self.parameters)
        rate, beta2 = self.rate(), self.settings["beta2"]
        self.updates += 1
        for value, gradient, second in zip(self.parameters, gradients, self.second, strict=True):
            second.mul_(beta2).add_((1 - beta2) * gradient**2)
            value -= rate * gradient / ((second / (1 - beta2**self.updates)).sqrt() + self.settings["eps"])


class Player:
    """One network's parameters, which train, and its u and v."""

    def __init__(self, parameters: Parameters, stats: Parameters) -> None:
        """Of arrays that are the player's own."""
        self.parameters = {path: value.requires_grad_() for path, value in parameters.items()}
        self.stats = stats

    def weights(self) -> Parameters:
        """Divided by their sigmas, in torch's layout."""
        return divide_by_sigma(to_torch_layout(self.parameters), self.stats)

    def iterate(self) -> None:
        """One power iteration."""
        self.stats = power_iteration(to_torch_layout(self.parameters), self.stats)


class Scene:
    """Everything as tensors of one precision; `nudge` moves each parameter by about half of its last float32 digit."""

    def __init__(self, dtype: torch.dtype, nudge: np.random.RandomState | None = None) -> None:
        """Recreates all players."""
        self.dtype = dtype
        plain = cases.parameters()
        stats = cases.stats(plain)

        def tensor(array: np.ndarray) -> Tensor:
            noise = 0.0 if nudge is None else 6e-8 * nudge.uniform(-1, 1, array.shape)
            return torch.tensor(np.asarray(array * (1.0 + noise), array.dtype), dtype=dtype)

        self.players = {
            name: Player({p: tensor(v) for p, v in own.items()}, {p: tensor(v) for p, v in stats[name].items()})
            for name, own in plain.items()
        }
        self.rows = tensor(cases.rows()).requires_grad_()
        self._vgg16 = to_torch_layout({path: tensor(value) for path, value in cases.perceptual().items()})

    def frames(self, images: ImageOutcomes) -> Tensor:
        """In [-1, 1]."""
        return torch.tensor(images.frames, dtype=self.dtype) / 127.5 - 1

    def drawn(self, images: ImageOutcomes) -> Tensor:
        """Landmark images in [-1, 1], drawn by th_jax, whose lines have tests of their own."""
        from th_jax.landmarks.draw import draw_landmarks

        image = np.asarray(draw_landmarks(images.landmarks, size=cases.SIZE))
        return torch.tensor(image, dtype=self.dtype) * 2 - 1

    def emphasis(self, images: ImageOutcomes) -> Tensor:
        """Of each pixel in the pixel loss: heavier in the box around the known landmarks, with a mean of 1."""
        centers = (np.arange(cases.SIZE, dtype=np.float32) + np.float32(0.5)) / np.float32(cases.SIZE)
        weight = np.ones((len(images.frames), cases.SIZE, cases.SIZE, 1))
        for number, points in enumerate(images.landmarks):
            known = points[np.isfinite(points).all(-1)]
            (left, top), (right, bottom) = known.min(0), known.max(0)
            rows, columns = (centers >= top) & (centers <= bottom), (centers >= left) & (centers <= right)
            weight[number][np.ix_(rows, columns)] = cases.LOSSES["landmark_box"]
        return torch.tensor(weight / weight.mean((1, 2, 3), keepdims=True), dtype=self.dtype)

    def generator_terms(
        self, fake: Tensor, real: Tensor, drawn: Tensor, emphasis: Tensor, rows: Tensor
    ) -> dict[str, Tensor]:
        """What both trainings have in common of the generator's objective, unweighted."""
        judge = {path: value.detach() for path, value in self.players["discriminator"].weights().items()}
        with torch.no_grad():
            _, real_features = torch_reference.discriminator(judge, real, drawn, rows)
            real_pyramid = self._pyramid(real)
        score, features = torch_reference.discriminator(judge, fake, drawn, rows)
        return {
            "content": torch_reference.content_loss(
                {"vgg16": self._pyramid(fake)}, {"vgg16": real_pyramid}, cases.LOSSES["content"]
            ),
            "pixel": ((fake - real).abs() / 2 * emphasis).mean(),
            "adversarial": torch_reference.adversarial_loss(score),
            "feature_matching": torch_reference.feature_matching_loss(features, real_features),
        }

    def _pyramid(self, frames: Tensor) -> list[Tensor]:
        return pyramid(self._vgg16, frames, network="vgg16", mean_bgr=IMAGENET_MEAN_BGR)

    def scores(self, fake: Tensor, real: Tensor, drawn: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """D's hinge loss, and its metrics; fake and real frames are judged apart."""
        weights = self.players["discriminator"].weights()
        fake_score, _ = torch_reference.discriminator(weights, fake, drawn, rows)
        real_score, _ = torch_reference.discriminator(weights, real, drawn, rows)
        hinge = torch_reference.discriminator_loss(real_score, fake_score)
        return hinge, {
            "loss/discriminator_hinge": hinge,
            "score/real": real_score.mean(),
            "score/fake": fake_score.mean(),
        }


def weighted(terms: dict[str, Tensor], adversary: float) -> Tensor:
    """The generator's objective."""
    factors = {
        "content": 1.0,
        "pixel": cases.LOSSES["pixel"],
        "adversarial": adversary,
        "feature_matching": adversary * cases.LOSSES["feature_matching"],
        "matching": cases.LOSSES["matching"],
    }
    return torch.stack([factors[name] * value for name, value in terms.items()]).sum()


def meta_steps(scene: Scene) -> dict[str, Tensor]:
    """Steps of meta-learning: the metrics of each, and their results."""
    players = scene.players
    moving = [value for name in SYNTHESIS for value in players[name].parameters.values()]
    averaged = [value.detach().clone() for value in moving]
    synthesis_adam = DenseAdam(cases.SYNTHESIS, moving)
    adam = DenseAdam(cases.DISCRIMINATOR, [*players["discriminator"].parameters.values(), scene.rows])
    found: dict[str, Tensor] = {}
    for step, index in enumerate(cases.VIDEO_INDEX):
        sources, targets = cases.sources(step), cases.targets(step)
        real, drawn, emphasis = scene.frames(targets), scene.drawn(targets), scene.emphasis(targets)
        episodes = [
            torch_reference.embedder(players["embedder"].weights(), frames, landmarks).mean(0)
            for frames, landmarks in zip(scene.frames(sources), scene.drawn(sources), strict=True)
        ]
        embedding = torch.stack(episodes)
        adain = torch_reference.adain_projection(players["projection"].weights(), embedding)
        fake = torch_reference.generator(players["generator"].weights(), drawn, adain)
        logged: dict[str, Tensor] = {}
        for _ in range(2):
            rows = scene.rows[list(index)]
            hinge, parts = scene.scores(fake.detach(), real, drawn, rows)
            match = torch_reference.matching_loss(rows, embedding.detach())
            logged |= parts | {"loss/row_matching": match, "rate/discriminator": torch.tensor(adam.rate())}
            adam.update(hinge + cases.LOSSES["matching"] * match)
            players["discriminator"].iterate()
        rows = scene.rows[list(index)].detach()
        adversary = min(1.0, (step + 1) / cases.RAMP_STEPS)
        terms = scene.generator_terms(fake, real, drawn, emphasis, rows)
        terms["matching"] = torch_reference.matching_loss(embedding, rows)
        loss = weighted(terms, adversary)
        logged |= {f"loss/{name}": value for name, value in terms.items()} | {"loss/generator": loss}
        logged |= {"rate/synthesis": torch.tensor(synthesis_adam.rate()), "rate/adversary": torch.tensor(adversary)}
        synthesis_adam.update(loss)
        for name in SYNTHESIS:
            players[name].iterate()
        decay = min(cases.AVERAGING, (1 + step) / (10 + step))
        averaged = [decay * old + (1 - decay) * new.detach() for old, new in zip(averaged, moving, strict=True)]
        found |= {f"metric/{step}/{name}": value for name, value in logged.items()}
    paths = [f"{name}/{path}" for name in SYNTHESIS for path in players[name].parameters]
    found |= {f"averaged/{path}": value for path, value in zip(paths, averaged, strict=True)}
    return found | {"rows": scene.rows, "rows_second_moment": adam.second[-1]} | _left(players)


def finetune_steps(scene: Scene) -> dict[str, Tensor]:
    """Steps of fine-tuning one person on the real shots alone: padding does not exist here."""
    players = scene.players
    real_shots = ImageOutcomes(*(part[: cases.REAL_SHOTS] for part in cases.shots()))
    real, drawn, emphasis = scene.frames(real_shots), scene.drawn(real_shots), scene.emphasis(real_shots)
    with torch.no_grad():
        embedding = torch_reference.embedder(players["embedder"].weights(), real, drawn).mean(0)
        adain = torch_reference.adain_projection(players["projection"].weights(), embedding[None])[0]
        players["discriminator"].parameters["shared"] += embedding
    adain.requires_grad_()
    no_rows = torch.zeros(len(real), len(embedding), dtype=scene.dtype)
    synthesis_adam = DenseAdam(cases.SYNTHESIS, [*players["generator"].parameters.values(), adain])
    adam = DenseAdam(cases.DISCRIMINATOR, list(players["discriminator"].parameters.values()))
    found: dict[str, Tensor] = {"start/adain": adain.detach().clone()}
    for step in range(cases.STEPS):
        fake = torch_reference.generator(players["generator"].weights(), drawn, adain.expand(len(real), -1))
        logged: dict[str, Tensor] = {}
        for _ in range(2):
            hinge, parts = scene.scores(fake.detach(), real, drawn, no_rows)
            logged |= parts
            adam.update(hinge)
            players["discriminator"].iterate()
        terms = scene.generator_terms(fake, real, drawn, emphasis, no_rows)
        loss = weighted(terms, cases.FINETUNE_ADVERSARY)
        logged |= {f"loss/{name}": value for name, value in terms.items()} | {"loss/generator": loss}
        synthesis_adam.update(loss)
        players["generator"].iterate()
        found |= {f"metric/{step}/{name}": value for name, value in logged.items()}
    trained = {name: players[name] for name in ("generator", "discriminator")}
    return found | {"adain": adain} | _left(trained)


def _left(players: dict[str, Player]) -> dict[str, Tensor]:
    found = {f"params/{name}/{p}": v for name, player in players.items() for p, v in player.parameters.items()}
    return found | {f"stats/{name}/{p}": v for name, player in players.items() for p, v in player.stats.items()}
