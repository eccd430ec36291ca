"""A run's averaged weights as one file for others: `python -m th_jax.release WORKDIR --out FILE` (docs/training.md)."""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

from th_jax.checkpoints import Checkpoints, check_video_list
from th_jax.console import forgiving_output
from th_jax.data.bundled import data_folder
from th_jax.data.video_list import load_video_list
from th_jax.models.repool import with_mean_pooling
from th_jax.pretrained import load_meta, save_meta
from th_jax.run_files import read_config


def release(
    workdir: str | Path,
    out: Path,
    *,
    name: str,
    licence: str,
    step: int | None = None,
    dtype: str = "float16",
    mean_pooling: bool = False,
) -> str:
    """Write the averaged E, P and G, D, and W with the hash of each row's video; returns the file's digest.

    Args:
        workdir: of the run; its training data must still be there.
        out: the file, ending in .safetensors.
        name: of the weights.
        licence: of the weights, in words.
        step: of the run's checkpoints, the newest by default.
        dtype: "float16" or "float32".
        mean_pooling: change networks that pool by sum (`th_jax.models.repool`), before their discriminator has been trained;
            W is then left out, for the next run to settle.

    Raises:
        ValueError: if the run or its data are missing, damaged, or do not belong together.
    """
    meta = load_meta(workdir, step=step, only_generate=True)
    networks, weights = meta.networks, meta.weights
    if mean_pooling:
        networks, weights = with_mean_pooling(networks, weights)
    config = read_config(workdir)
    videos = load_video_list(data_folder(config["data"]["folder"]))
    split = config["data"]["split"]
    with Checkpoints(f"{workdir}/checkpoints", read_only=True) as checkpoints:
        leaves, record = checkpoints.read(["table/rows", "discriminator_updates"], step=int(meta.description["steps"]))
    check_video_list(record, videos.digest(split=split))
    keys = [entry.row_key for entry in videos.entries(split)]
    return save_meta(
        out,
        networks=networks,
        weights=weights,
        perceptual=tuple(config["perceptual"]),
        description={
            "name": name,
            "steps": int(record["step"]),
            "discriminator_updates": int(leaves["discriminator_updates"]),
            "data": f"{videos.name}, {len(keys)} videos of split {split}",
            "licence": licence,
            "config": config,
        },
        table_rows=None if mean_pooling else np.asarray(leaves["table/rows"])[: len(keys)],
        row_ids=None if mean_pooling else keys,
        dtype=dtype,  # type: ignore[arg-type]
    )


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", help="the folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, ending in .safetensors")
    parser.add_argument("--name", required=True, help="what the weights are called")
    parser.add_argument("--licence", required=True, help="the licence of the weights, in words")
    parser.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument(
        "--mean_pooling", action="store_true", help="change a run's sums to means; see docs/learning.md"
    )
    chosen = parser.parse_args(arguments)
    try:
        digest = release(
            chosen.workdir,
            chosen.out,
            name=chosen.name,
            licence=chosen.licence,
            step=chosen.step,
            dtype=chosen.dtype,
            mean_pooling=chosen.mean_pooling,
        )
    except (ValueError, OSError) as error:
        print(f"th_jax.release: {error}", file=sys.stderr)
        return 1
    print(f"{chosen.out}  sha256 {digest}  {chosen.out.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
