"""A fine-tuning step beside the same step in PyTorch, alternating in one run: `python -m benchmarks.finetune_step`.

Two updates of D', one of G' and ψ' with all losses and Adam; the paper's networks, VGG19 and VGGFace (of random weights),
float32, both sides with all cores and the same noise as shots. Ours is the jitted chunk that users run:
what a step costs within a longer one stands below each line. `benchmarks.torch_finetune_step` says what PyTorch's side is.

    python -m benchmarks.finetune_step [--image_sizes 64,256] [--shots 1,8] [--rounds N]
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.alternating import HEADER, compare, row
from benchmarks.compiled_step import random_perceptual
from benchmarks.networks import content_flop
from benchmarks.torch_finetune_step import TorchFinetuneStep
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.models.summary import flop_counts
from th_jax.training.finetune import FinetuneState, make_finetune_chunk, start_finetune
from th_jax.training.optimizers import Optimizers
from th_jax.types import Shots

CHUNK = 4
_FOREVER = 10**6


class CompiledChunk:
    """Ours: `chunk()` runs so many steps on noise and returns when the result is there."""

    def __init__(self, networks: Networks, *, shots: int, steps: int) -> None:
        """Make weights and shots, and compile."""
        rng, size = np.random.default_rng(0), networks.image_size
        self.shots = Shots(
            rng.integers(0, 256, (shots, size, size, 3), dtype=np.uint8),
            rng.uniform(0.2, 0.8, (shots, 68, 2)).astype(np.float32),
            np.ones(shots, np.float32),
        )
        losses, optimizers = LossWeights(), Optimizers()
        self.perceptual = random_perceptual(tuple(losses.content))
        weights = networks.init(jax.random.key(0))
        start = jax.jit(
            lambda weights, shots: start_finetune(
                networks, weights, shots, optimizers=optimizers, key=jax.random.key(0)
            )
        )
        self.state: FinetuneState = start(weights, self.shots)
        chunk = jax.jit(make_finetune_chunk(networks, losses, optimizers, steps=steps), donate_argnums=0)
        began = time.perf_counter()
        self._end = jnp.int32(_FOREVER)
        self._program = chunk.lower(self.state, self.perceptual, self.shots, self._end).compile()
        self.compile_seconds = time.perf_counter() - began

    def __call__(self) -> None:
        """Once."""
        self.state, _ = self._program(self.state, self.perceptual, self.shots, self._end)
        jax.block_until_ready(self.state)


def step_flop(networks: Networks, *, discriminator_updates: int = 2) -> float:
    """Nominal arithmetic of a step for one shot; a backward pass counts as two forward passes."""
    forward = flop_counts(networks)
    judged = forward["D"] + content_flop(networks.image_size)
    return 3 * (forward["G"] + 2 * discriminator_updates * forward["D"] + judged)


def compare_at(image_size: int, *, base_width: int, shots: int, rounds: int) -> None:
    """Print a line of the table, and a step's time within a longer chunk."""
    networks = Networks(image_size=image_size, base_width=base_width)
    ours = CompiledChunk(networks, shots=shots, steps=1)
    theirs = TorchFinetuneStep(
        networks, ours.state, ours.perceptual, ours.shots, loss_weights=LossWeights(), optimizers=Optimizers()
    )
    comparison = compare(ours, lambda: _run(theirs), rounds=rounds)._replace(compile_seconds=ours.compile_seconds)
    print(row(f"{image_size} px, width {base_width}, {shots} shots", comparison, flop=shots * step_flop(networks)))
    del theirs
    longer = CompiledChunk(networks, shots=shots, steps=CHUNK)
    within = compare(ours, longer, rounds=rounds)
    print(
        f"    ratios {', '.join(f'{a / b:.2f}' for a, b in zip(comparison.ours, comparison.theirs, strict=True))}; "
        f"a step within a chunk of {CHUNK} takes {1 / within.ratio / CHUNK:.2f} of one alone",
        flush=True,
    )


def _run(step: TorchFinetuneStep) -> None:
    step()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_step")
    parser.add_argument("--image_sizes", default="64,256")
    parser.add_argument("--shots", default="1,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base_width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{os.cpu_count()} cores, jax {jax.__version__}, torch {torch.__version__}\n{HEADER}")
    for size in map(int, options.image_sizes.split(",")):
        for shots in map(int, options.shots.split(",")):
            compare_at(size, base_width=options.base_width, shots=shots, rounds=options.rounds)


if __name__ == "__main__":
    main()
