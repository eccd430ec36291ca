"""`th-jax release`: a run's averaged weights as one file for others (docs/training.md)."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = new_parser(
        "release",
        "Writes a run's averaged weights as one file for others.",
        example="th-jax release runs/heads_128 --name heads --licence CC0-1.0 --out heads.safetensors",
    )
    made.add_argument("workdir", help="the folder of a run")
    made.add_argument("--out", type=Path, required=True, help="the file to write, ending in .safetensors")
    made.add_argument("--name", required=True, help="what the weights are called")
    made.add_argument("--licence", required=True, help="the licence of the weights, in words")
    made.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    made.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the stored numbers")
    made.add_argument("--mean-pooling", action="store_true", help="change a run's sums to means; see docs/learning.md")
    return made


def run(options: argparse.Namespace) -> int:
    """Read the checkpoint, on the CPU, and write the file."""
    import jax

    from th_jax.training.released import release

    jax.config.update("jax_platforms", "cpu")
    digest = release(
        options.workdir,
        options.out,
        name=options.name,
        licence=options.licence,
        step=options.step,
        dtype=options.dtype,
        mean_pooling=options.mean_pooling,
    )
    print(f"{options.out}  sha256 {digest}  {options.out.stat().st_size / 2**20:.1f} MiB")
    return DONE
