"""3x3 convolutions with bfloat16 products, by the kernels of `th-jax kernels` and by XLA: `python -m benchmarks.convolutions`.

Forward and both gradients of one layer, both forms in turn.
"""

import argparse
import functools
import sys
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.alternating import Program, compare
from th_jax.cli.kernels import kernels_file
from th_jax.models import onednn
from th_jax.models.convolution import convolve

LAYERS = ((128, 32, 32), (64, 64, 64), (32, 128, 128), (16, 256, 256), (16, 512, 512), (8, 512, 512))
"""Side, inputs and features."""


def forward_and_gradients(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    """Compute a layer's result and both gradients."""
    made, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, out=jnp.float32), x, kernel)
    return made, *pull(cotangent)


def compiled(library: Path | None, operands: list[jax.Array]) -> Program:
    """Compile a layer for a library of kernels, or for XLA alone."""
    onednn.use_library(library)
    program = jax.jit(lambda *operands: forward_and_gradients(*operands)).lower(*operands).compile()
    return functools.partial(_run, program, operands)


def _run(program: Any, operands: list[jax.Array]) -> None:
    jax.block_until_ready(program(*operands))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolutions")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    library = kernels_file()
    if library is None or not library.is_file():
        print("benchmarks.convolutions: the kernels are not compiled: th-jax kernels", file=sys.stderr)
        return 1
    jax.config.update("jax_default_matmul_precision", "bfloat16")
    print("| layer | XLA, GFLOP/s | kernels, GFLOP/s | kernels' time over XLA's |\n|---|---:|---:|---:|")
    batch = options.batch_size
    for side, inputs, features in LAYERS:
        shapes = ((batch, side, side, inputs), (3, 3, inputs, features), (batch, side, side, features))
        keys = jax.random.split(jax.random.key(0), 3)
        operands = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
        found = compare(compiled(library, operands), compiled(None, operands), rounds=options.rounds)
        gflop = 3 * 2 * 9 * inputs * features * batch * side**2 / 1e9
        rates = " | ".join(f"{gflop / median(times):,.0f}" for times in (found.theirs, found.ours))
        print(f"| {batch} x {side}x{side}, {inputs} to {features} | {rates} | {found.ratio:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
