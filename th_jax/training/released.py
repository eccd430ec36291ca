"""Release of a run's averaged weights as a single file."""

from pathlib import Path

import numpy as np

from th_jax.data.records import data_folder
from th_jax.data.video_list import load_video_list
from th_jax.storage.checkpoints import Checkpoints, check_video_list
from th_jax.storage.run_folder import read_config
from th_jax.weights import load_meta, save_meta, with_mean_pooling


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
    """Write the averaged E, P and G, D, and W with the hash of each row's video to one file.

    Args:
        workdir: the run's folder; its training data must still exist.
        out: path of the file to write, ending in .safetensors.
        name: name of the weights.
        licence: license of the weights, in words.
        step: step of the checkpoint to release; by default the newest.
        dtype: "float16" or "float32".
        mean_pooling: convert networks that pool by sum (`th_jax.weights`) before their discriminator is trained; W is then
            left out, and the next run recomputes it from the embeddings.

    Returns:
        The digest of the tensors in the file.

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
