"""Release of a run's averaged weights as a single file, or as a folder for a model hub."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from th_jax.data.records import data_folder
from th_jax.data.video_list import load_video_list
from th_jax.storage.checkpoints import Checkpoints, check_video_list
from th_jax.storage.files import check_place, flush_to_disk, whole_file
from th_jax.storage.hub_folder import CARD, CONFIG, SUMS, WEIGHTS, sums_text
from th_jax.storage.run_folder import read_config
from th_jax.storage.tensors import read_description
from th_jax.training.state import refreshed
from th_jax.types import MetaWeights, NetworkState, Params
from th_jax.weights import FORMAT, load_meta, save_meta, with_mean_pooling


def release(
    workdir: str | Path,
    out: Path,
    *,
    name: str,
    licence: str,
    step: int | None = None,
    dtype: str = "float16",
    mean_pooling: bool = False,
    earlier: str | Path | None = None,
    share: float = 0.7,
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
        earlier: weights that this run started from, as a name, a file or a run's folder: G and D become the mean of both
            (`averaged_with`).
        share: share of this run in that mean, between 0 and 1.

    Returns:
        The digest of the tensors in the file.

    Raises:
        ValueError: if the run or its data are missing, damaged, or do not belong together, the earlier weights are of other
            networks, or the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of the run in the average must be between 0 and 1, but is {share}")
    meta = load_meta(workdir, step=step, only_generate=True)
    networks, weights = meta.networks, meta.weights
    if mean_pooling:
        networks, weights = with_mean_pooling(networks, weights)
    averaged: dict[str, Any] = {}
    if earlier is not None:
        other = load_meta(earlier, only_generate=True)
        if other.networks != networks:
            raise ValueError(
                f"{earlier} cannot be averaged with this run: its networks are {other.networks}, not {networks}"
            )
        weights = averaged_with(weights, other.weights, share=share)
        averaged = {"averaged_with": {**other.provenance.weights, "share": share}}
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
            "config": _published(config),
            **averaged,
        },
        table_rows=None if mean_pooling else np.asarray(leaves["table/rows"])[: len(keys)],
        row_ids=None if mean_pooling else keys,
        dtype=dtype,  # type: ignore[arg-type]
    )


def averaged_with(weights: MetaWeights, earlier: MetaWeights, *, share: float) -> MetaWeights:
    """Average G and D with those of the weights that a run started from; E and P are the run's own.

    What a run learns of its own data may cost some of what holds for other data, of which the mean keeps more in
    classifiers (WiSE-FT, arXiv 2109.01903). E is not averaged, because teaching may have changed what its components mean.

    Args:
        weights: weights of the run.
        earlier: weights that it started from, of the same networks.
        share: share of the run in the mean.
    """

    def mean(before: Params, after: Params) -> Params:
        mixed: Params = jax.tree.map(lambda old, new: (1 - share) * old + share * new, before, after)
        return mixed

    synthesis, discriminator = weights
    generator = mean(earlier.synthesis.params["generator"], synthesis.params["generator"])
    params = {**synthesis.params, "generator": generator}
    return MetaWeights(
        refreshed(NetworkState(params, synthesis.spectral_stats)),
        refreshed(NetworkState(mean(earlier.discriminator.params, discriminator.params), discriminator.spectral_stats)),
    )


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with absolute paths cut to their last part, so that they do not reveal the folders of a machine."""
    started = {"start_from": _last_part(config["start_from"])} if "start_from" in config else {}
    return {**config, **started, "data": config["data"] | {"folder": _last_part(config["data"]["folder"])}}


def _last_part(path: str) -> str:
    return os.path.basename(path.rstrip("/")) if os.path.isabs(path) else path


HUB_LICENSES = frozenset(
    ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
)
"""Identifiers of licenses that model hubs know; another license is "other", with its words."""


def release_folder(workdir: str | Path, out: Path, **options: Any) -> str:
    """Write a folder in the layout of model hubs: weights, settings, model card and checksums (`th_jax.storage.hub_folder`).

    Args:
        workdir: the run's folder, as for `release`.
        out: folder to create; it appears when it is complete.
        options: arguments of `release`.

    Returns:
        The digest of the tensors.

    Raises:
        FileExistsError: if the folder exists.
        ValueError, OSError: as `release`.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: choose a new folder for a release")
    check_place(out)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        digest = release(workdir, partial / WEIGHTS, **options)
        about = read_description(partial / WEIGHTS, file_format=FORMAT)
        settings = {key: value for key, value in about.items() if key != "config"} | {
            "format": FORMAT,
            "digest": digest,
        }
        for name, text in (
            (CONFIG, json.dumps(settings, indent=2, sort_keys=True) + "\n"),
            (CARD, model_card(about, digest=digest)),
        ):
            with whole_file(partial / name) as file:
                file.write(text.encode())
        with whole_file(partial / SUMS) as file:
            file.write(sums_text(partial, (CONFIG, CARD, WEIGHTS)).encode())
        flush_to_disk(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def model_card(about: dict[str, Any], *, digest: str) -> str:
    """Write the model card: a header for hubs in YAML, and what the weights are, how they are used, and what they may not do.

    Args:
        about: description of the weights.
        digest: digest of their tensors.
    """
    licence = str(about["licence"])
    known = licence.lower() in HUB_LICENSES
    header = ["library_name: th_jax", f"license: {licence.lower() if known else 'other'}"]
    if not known:
        slug = re.sub(r"[^a-z0-9]+", "-", licence.lower()).strip("-")[:80] or "see-below"
        header.append(f"license_name: {json.dumps(slug)}")
    header.append("tags: [jax, flax, talking-heads, few-shot-learning, face-reenactment]")
    size = about["networks"]["image_size"]
    averaged = dict(about.get("averaged_with", {}))
    share = averaged.pop("share", None)
    mean = f"\n| averaged with | {', '.join(map(_one_line, averaged))}; share of this run {share} |" if averaged else ""
    text = f"""
# {_one_line(about["name"])}

Meta-learned weights of few-shot neural talking heads (Zakharov et al., ICCV 2019) for th_jax.

| | |
|---|---|
| image size | {size} x {size} px |
| training data | {_one_line(about["data"])} |
| meta-learning steps | {about["steps"]} |{mean}
| numbers stored as | {about["dtype"]} |
| written by | th_jax {_one_line(about["version"])} |
| digest of the tensors | `{digest}` |
| license | {_one_line(licence)} |

## How to use them

With this folder on your machine, or a hub's local cache of it:

```sh
th-jax finetune --meta FOLDER --shots photos/ada --consent ada.consent.json --out avatars
th-jax animate --avatar avatars/ada.safetensors --driver speech.mp4 --out ada.mp4
```

`config.json` has the settings of the networks, `SHA256SUMS` the checksums (`sha256sum --check SHA256SUMS`). The weights also
carry a checksum of their own, and no pickle.

## What they may not be used for

Use them for yourself, for people who agreed to it, or for people who do not exist. Do not use them to deceive, to harass, to
impersonate, or to make sexual images of anyone. Generated files carry a signed manifest and a watermark.

## Limits

No measurement comes with this card: measure the weights with `th-jax evaluate` on people they were not trained on. They
show what their training data showed, and no more.
"""
    return "---\n" + "\n".join(header) + "\n---\n" + text


def _one_line(value: Any) -> str:
    """Return text that cannot end a table's cell or a line."""
    return " ".join(str(value).split()).replace("|", "/")
