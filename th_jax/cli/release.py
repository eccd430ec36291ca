"""`th-jax release`: writes a run's averaged weights as one file (docs/training.md)."""

import argparse
from pathlib import Path

from th_jax.cli.options import DONE, new_parser


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser(
        "release",
        "Writes a run's averaged weights as one file for others.",
        example="th-jax release runs/heads_128 --name heads --license CC0-1.0 --out heads.safetensors",
    )
    made.add_argument("workdir", help="folder of a run")
    made.add_argument("--out", type=Path, required=True, help="output file, ending in .safetensors")
    made.add_argument("--name", required=True, help="name of the weights")
    made.add_argument(
        "--license",
        "--licence",
        dest="licence",
        metavar="LICENSE",
        required=True,
        help="license of the weights, in words",
    )
    made.add_argument("--step", type=int, help="step of the checkpoint; default: the newest")
    made.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="precision of the stored numbers"
    )
    made.add_argument(
        "--mean-pooling", action="store_true", help="convert sum pooling to mean pooling; see docs/learning.md"
    )
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
