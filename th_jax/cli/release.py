"""`th-jax release`: writes a run's averaged weights as one file, or as a folder for a model hub (docs/training.md)."""

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
    made.add_argument("--out", type=Path, required=True, help="output file, ending in .safetensors; or a new folder")
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
    made.add_argument(
        "--average-with",
        metavar="META",
        help="make G and D the mean of the run and of the weights that it started from; see docs/training.md",
    )
    made.add_argument("--share", type=float, help="share of the run in this mean; default: 0.7")
    made.add_argument(
        "--hub",
        action="store_true",
        help="write a folder for model hubs: weights, config, model card, checksums",
    )
    return made


def run(options: argparse.Namespace) -> int:
    """Read the checkpoint, on the CPU, and write the file."""
    import jax

    from th_jax.storage.hub_folder import WEIGHTS
    from th_jax.training.released import release, release_folder

    if options.share is not None and options.average_with is None:
        raise ValueError(
            "--share is the share of the run in the mean with other weights: name them with --average-with"
        )
    jax.config.update("jax_platforms", "cpu")
    digest = (release_folder if options.hub else release)(
        options.workdir,
        options.out,
        name=options.name,
        licence=options.licence,
        step=options.step,
        dtype=options.dtype,
        mean_pooling=options.mean_pooling,
        earlier=options.average_with,
        **({} if options.share is None else {"share": options.share}),
    )
    file = options.out / WEIGHTS if options.hub else options.out
    print(f"{options.out}  sha256 {digest}  {file.stat().st_size / 2**20:.1f} MiB")
    return DONE
