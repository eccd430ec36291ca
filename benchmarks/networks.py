"""The paper's networks and content loss beside the same in PyTorch, alternating in one run: `python -m benchmarks.networks`.

PyTorch's side is tests/golden's independent rendering, with the same weights. Batch 1, float32, width 64, both sides with
all cores. "forward and backward" takes gradients of all parameters through sigma; the content loss, VGG19 with VGGFace's
shape, takes the gradient of the generated frame. GFLOP/s are nominal: arithmetic as the paper writes its layers, a backward
pass counted as two forward passes, over th_jax's time; fused layers do less of it.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from benchmarks.alternating import HEADER, Comparison, compare, row
from tests.golden import torch_layers, torch_perceptual, torch_reference
from th_jax.losses import content_loss
from th_jax.models.networks import Networks, group
from th_jax.models.summary import flop_counts
from th_jax.perceptual.pyramids import feature_pyramids
from th_jax.perceptual.vgg import layer_shapes
from th_jax.types import NetworkState

CONTENT = {"vgg19": 0.15, "vggface": 0.025}


def to_torch(tree: Any) -> dict[str, torch.Tensor]:
    """A tree of JAX arrays as the flat dictionary of tensors that the rendering in PyTorch takes."""
    return {path: torch.tensor(np.asarray(leaf)) for path, leaf in flatten_dict(tree, sep="/").items()}


class Beside:
    """The same networks, weights and inputs on both sides, at one image size."""

    def __init__(self, image_size: int) -> None:
        """Make weights and inputs once."""
        self.networks = Networks(image_size=image_size)
        self.weights = self.networks.init(jax.random.key(0))
        shape = (1, image_size, image_size, 3)
        self.frame, self.landmarks = (
            jax.random.uniform(jax.random.key(i), shape, minval=-1, maxval=1) for i in range(2)
        )
        self.identity = jnp.zeros((1, self.networks.plan.embedding))
        self.adain = 1 + 0.3 * jax.random.normal(jax.random.key(3), (1, self.networks.plan.adain_size))
        self.torch_frame, self.torch_landmarks, self.torch_identity, self.torch_adain = (
            torch.tensor(np.asarray(x)) for x in (self.frame, self.landmarks, self.identity, self.adain)
        )

    def generate(self, rounds: int) -> Comparison:
        """One frame with kernels divided beforehand, as an avatar is driven."""
        plain, folded = self.networks.folded(self.weights)
        program = jax.jit(plain.generate)
        state = group(folded.synthesis, "generator")
        divided = torch_layers.to_torch_layout(to_torch(folded.synthesis.params["generator"]))

        def theirs() -> None:
            with torch.no_grad():
                torch_reference.generator(divided, self.torch_landmarks, self.torch_adain)

        return compare(lambda: done(program(state, self.landmarks, self.adain)), theirs, rounds=rounds)

    def embed(self, rounds: int) -> Comparison:
        """E, and the gradient of all its parameters."""

        def objective(params: Any, stats: Any) -> jax.Array:
            return self.networks.embed(NetworkState(params, stats), self.frame, self.landmarks).sum()

        def torch_objective(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch_reference.embedder(weights, self.torch_frame, self.torch_landmarks).sum()

        return self._with_gradients(group(self.weights.synthesis, "embedder"), objective, torch_objective, rounds)

    def discriminate(self, rounds: int) -> Comparison:
        """D, and the gradient of all its parameters."""

        def objective(params: Any, stats: Any) -> jax.Array:
            state = NetworkState(params, stats)
            return self.networks.discriminate(state, self.frame, self.landmarks, self.identity)[0].sum()

        def torch_objective(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            arguments = self.torch_frame, self.torch_landmarks, self.torch_identity
            return torch_reference.discriminator(weights, *arguments)[0].sum()

        return self._with_gradients(self.weights.discriminator, objective, torch_objective, rounds)

    def content(self, rounds: int) -> Comparison:
        """Both pyramids of the generated and the real frame, and the gradient of the generated one."""
        rng = np.random.default_rng(0)
        vggs = {
            network: {
                layer: {
                    "kernel": (rng.standard_normal(shape, np.float32) * np.sqrt(2 / (9 * shape[2]))).astype(np.float32),
                    "bias": np.zeros(shape[-1], np.float32),
                }
                for layer, shape in layer_shapes(network).items()
            }
            for network in CONTENT
        }
        torch_vggs = {network: torch_layers.to_torch_layout(to_torch(layers)) for network, layers in vggs.items()}
        jax_vggs = jax.tree.map(jnp.asarray, vggs)

        def loss(generated: jax.Array, real: jax.Array, weights: Any) -> jax.Array:
            return content_loss(feature_pyramids(weights, generated), feature_pyramids(weights, real), weights=CONTENT)

        program = jax.jit(jax.value_and_grad(loss))

        def theirs() -> None:
            generated = self.torch_landmarks.clone().requires_grad_()
            pyramids = []
            for image in (generated, self.torch_frame):
                with torch.set_grad_enabled(image.requires_grad):
                    pyramids.append(
                        {
                            network: torch_perceptual.pyramid(
                                weights,
                                image,
                                network={"vggface": "vgg16"}.get(network, network),
                                mean_bgr=torch_perceptual.IMAGENET_MEAN_BGR,
                            )
                            for network, weights in torch_vggs.items()
                        }
                    )
            torch_reference.content_loss(*pyramids, CONTENT).backward()

        return compare(lambda: done(program(self.landmarks, self.frame, jax_vggs)), theirs, rounds=rounds)

    def _with_gradients(
        self, state: NetworkState, objective: Callable, torch_objective: Callable, rounds: int
    ) -> Comparison:
        program = jax.jit(jax.value_and_grad(objective))
        params = torch_layers.to_torch_layout(to_torch(state.params))
        params = {path: value.detach().requires_grad_() for path, value in params.items()}
        stats = to_torch(state.spectral_stats)

        def theirs() -> None:
            torch_objective(torch_layers.divide_by_sigma(params, stats)).backward()
            for value in params.values():
                value.grad = None

        return compare(lambda: done(program(state.params, state.spectral_stats)), theirs, rounds=rounds)


def done(result: Any) -> None:
    """Wait for a result."""
    jax.block_until_ready(result)


def content_flop(image_size: int) -> float:
    """Forward arithmetic of both pyramids on one frame."""
    total = 0.0
    for network in CONTENT:
        for layer, shape in layer_shapes(network).items():
            side = image_size >> (int(layer[5]) - 1)
            total += 2.0 * np.prod(shape) * side * side
    return total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks")
    parser.add_argument("--image_sizes", default="64,256")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, torch {torch.__version__}, {options.rounds} rounds")
    for image_size in map(int, options.image_sizes.split(",")):
        beside = Beside(image_size)
        flop = flop_counts(beside.networks)
        print(f"\n{image_size} px, width 64, batch 1\n{HEADER}")
        print(row("G: one frame", beside.generate(options.rounds), flop=flop["G"]), flush=True)
        print(row("E: forward and backward", beside.embed(options.rounds), flop=3 * flop["E"]), flush=True)
        print(row("D: forward and backward", beside.discriminate(options.rounds), flop=3 * flop["D"]), flush=True)
        content = 3 * content_flop(image_size)  # two forward passes, and the generated frame's backward
        print(row("content loss and its gradient", beside.content(options.rounds), flop=content), flush=True)


if __name__ == "__main__":
    main()
