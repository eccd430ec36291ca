"""Compact avatar files: quantized differences from the meta weights, with the measured loss of quality.

`th-jax compress` prints both file sizes and the loss.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from th_jax.avatars.file import (
    AvatarError,
    LoadedAvatar,
    avatar_of_leaves,
    check_avatar,
    feed_forward_with,
    meta_reference,
    named_leaves,
    write_avatar,
)
from th_jax.avatars.quantization import Bits, decode_difference, encode_difference
from th_jax.models.networks import Networks
from th_jax.types import AnyArray, Avatar, NetworkState
from th_jax.weights import MetaModel

_PARAMS = "generator_params/"


class Compaction(NamedTuple):
    """The result of `save_compact`."""

    digest: str
    loss: float
    """Mean absolute difference from the frames of the original avatar, in pixel values of 0 to 255."""
    frames: int
    """Number of frames that the loss was measured on."""


def save_compact(
    path: str | Path,
    loaded: LoadedAvatar,
    *,
    meta: MetaModel,
    bits: Bits = "int8",
    landmarks: Float[AnyArray, "S P 2"] | None = None,
) -> Compaction:
    """Write an avatar as its difference from the meta weights, measure the loss of quality, and store it.

    The write is atomic. The spectral-norm vectors u and v are stored unchanged: recomputing them would change each
    sigma by more than rounding changes its kernel.

    Args:
        path: output file, ending in .safetensors.
        loaded: full avatar to compress; its provenance, landmarks and notes are copied.
        meta: meta weights that the avatar was fine-tuned from.
        bits: "int8" with one scale per output channel, or "float16".
        landmarks: landmarks `[S, P, 2]` in [0, 1] to measure the loss on; by default those of the avatar's shots.

    Returns:
        The digest of the file, the measured loss and the number of frames that it was measured on.

    Raises:
        AvatarError: if the avatar is not a full one or has no provenance record, if there are no landmarks to measure
            on, if the meta weights have other networks or are not the ones that the avatar was made from, or if a
            difference overflows.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    provenance = loaded.made_of
    measured = loaded.landmarks if landmarks is None else np.asarray(landmarks, np.float32)
    if loaded.kind != "full":
        raise AvatarError(f"expected a full avatar, got a {loaded.kind} one, which is already small")
    if measured is None or not len(measured):
        raise AvatarError(
            "landmarks are needed to measure the loss of quality, and the avatar has none: pass `landmarks`"
        )
    reference = meta_reference("this avatar", loaded.description)
    if reference is not None and reference[1] != meta.digest:
        expected, given = (
            f"{name!r} ({digest})" for name, digest in (reference, (meta.description["name"], meta.digest))
        )
        raise AvatarError(f"this avatar was made from the meta weights {expected}, but got {given}")
    start = named_leaves(feed_forward_with(meta, np.asarray(loaded.avatar.adain)))
    check_avatar("the avatar of these meta weights", start, loaded.networks)
    leaves = named_leaves(loaded.avatar)
    changed, base = ({name: tree[name] for name in tree if name.startswith(_PARAMS)} for tree in (leaves, start))
    try:
        stored = encode_difference(changed, base, bits=bits)
    except ValueError as error:
        raise AvatarError(f"this avatar cannot be compressed: {error}") from error
    kept = {name: leaf for name, leaf in leaves.items() if not name.startswith(_PARAMS)}
    avatar = avatar_of_leaves("this", kept | decode_difference(stored, base), loaded.networks)
    loss = frame_difference(loaded.networks, loaded.avatar, avatar, measured)
    digest = write_avatar(
        path,
        stored | kept,
        networks=loaded.networks,
        provenance=provenance,
        meta=meta,
        landmarks=loaded.landmarks,
        kind="compact",
        notes=loaded.notes | {"compaction": {"bits": bits, "loss": loss, "frames": len(measured), "of": loaded.digest}},
    )
    return Compaction(digest, loss, len(measured))


def frame_difference(networks: Networks, one: Avatar, other: Avatar, landmarks: Float[AnyArray, "S P 2"]) -> float:
    """Compute the mean absolute difference between two avatars' frames, in pixel values of 0 to 255."""
    points = jnp.asarray(landmarks, jnp.float32)
    return 127.5 * float(np.mean([_difference(networks, one, other, frame) for frame in points]))


@functools.partial(jax.jit, static_argnums=0)
def _difference(networks: Networks, one: Avatar, other: Avatar, points: Float[Array, "P 2"]) -> Float[Array, ""]:
    landmark_image = networks.landmark_image(points[None])
    frames = [
        networks.generate(NetworkState(params, stats), landmark_image, jnp.asarray(adain)[None])
        for params, adain, stats in (one, other)
    ]
    return jnp.abs(frames[0] - frames[1]).mean()
