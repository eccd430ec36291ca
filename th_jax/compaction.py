"""Makes avatars small: what changed against the meta weights, in few bits, with the loss of quality that it costs.

`python -m th_jax.compaction ada.safetensors --meta heads --out ada_small.safetensors` prints both sizes and the loss.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from th_jax.avatar_format import AvatarError, avatar_of_leaves, check_avatar, meta_reference, named_leaves
from th_jax.avatars import LoadedAvatar, feed_forward_with, load_avatar, write_avatar
from th_jax.console import forgiving_output
from th_jax.models.networks import Networks
from th_jax.pretrained import MetaModel, load_meta
from th_jax.quantization import Bits, decode_difference, encode_difference
from th_jax.types import AnyArray, Avatar, NetworkState
from th_jax.whole_file import check_place

_PARAMS = "generator_params/"


class Compaction(NamedTuple):
    """What was written."""

    digest: str
    loss: float
    """Mean absolute difference from the frames of the avatar itself, of values in 0..255."""
    frames: int
    """How many it was measured on."""


def save_compact(
    path: str | Path,
    loaded: LoadedAvatar,
    *,
    meta: MetaModel,
    bits: Bits = "int8",
    landmarks: Float[AnyArray, "S P 2"] | None = None,
) -> Compaction:
    """Write what changed in an avatar against its meta weights, whole or not at all; the loss is measured and stored.

    u and v are kept as they are: computed again, they would change each sigma by more than rounding changes its kernel.

    Args:
        path: ends in .safetensors.
        loaded: the avatar; its provenance, its landmarks and its notes go with it.
        meta: the weights that it was made from.
        bits: "int8" with a scale for each output channel, or "float16".
        landmarks: to measure the loss on, in [0, 1]; by default those of the shots.

    Raises:
        AvatarError: for another kind of avatar than a full one; if there are no landmarks to measure on, for meta weights
            that the avatar was not made from or of other networks, if it does not say what it was made of, or if a change
            overflows.
        OSError: if the disk refuses; nothing is left behind.
    """
    provenance = loaded.made_of
    measured = loaded.landmarks if landmarks is None else np.asarray(landmarks, np.float32)
    if loaded.kind != "full":
        raise AvatarError(f"this is a {loaded.kind} avatar, which is small already: a full one can be made compact")
    if measured is None or not len(measured):
        raise AvatarError("the loss of quality is measured on landmarks, but the avatar holds none: give some")
    made_from = meta_reference("this avatar", loaded.description)
    if made_from is not None and made_from[1] != meta.digest:
        wanted, came = (f"{name!r} ({digest})" for name, digest in (made_from, (meta.description["name"], meta.digest)))
        raise AvatarError(f"this avatar was made from the meta weights {wanted}, but {came} came")
    start = named_leaves(feed_forward_with(meta, np.asarray(loaded.avatar.adain)))
    check_avatar("the meta weights hold", start, loaded.networks)
    leaves = named_leaves(loaded.avatar)
    changed, base = ({name: tree[name] for name in tree if name.startswith(_PARAMS)} for tree in (leaves, start))
    try:
        stored = encode_difference(changed, base, bits=bits)
    except ValueError as error:
        raise AvatarError(f"this avatar cannot be made compact: {error}") from error
    kept = {name: leaf for name, leaf in leaves.items() if not name.startswith(_PARAMS)}
    avatar = avatar_of_leaves("this is", kept | decode_difference(stored, base), loaded.networks)
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
    """Mean absolute difference of two avatars' frames, of values in 0..255, over landmarks in [0, 1]."""
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


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m th_jax.compaction", description=__doc__.splitlines()[0])
    parser.add_argument("avatar", type=Path, help="an avatar's file")
    parser.add_argument("--meta", required=True, help="the meta weights that it was made from: file, run or name")
    parser.add_argument("--bits", choices=("int8", "float16"), default="int8")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, ending in .safetensors")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.out.exists() and chosen.avatar.exists() and chosen.out.samefile(chosen.avatar):
            raise AvatarError(f"{chosen.out} is the avatar itself, in full precision: name another file with --out")
        check_place(chosen.out)
        meta = load_meta(chosen.meta, only_generate=True)
        loaded = load_avatar(chosen.avatar, meta=meta)
        done = save_compact(chosen.out, loaded, meta=meta, bits=chosen.bits)
    except (ValueError, OSError) as error:
        print(f"th_jax.compaction: {error}", file=sys.stderr)
        return 1
    before, after = (path.stat().st_size / 2**20 for path in (chosen.avatar, chosen.out))
    print(f"{chosen.out}: {after:.2f} MiB instead of {before:.2f} MiB, {chosen.bits}")
    print(f"mean absolute difference of {done.frames} frames: {done.loss:.3f} of 255")
    return 0


if __name__ == "__main__":
    sys.exit(main())
