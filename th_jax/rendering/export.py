"""Writes an avatar as one artefact that a server runs without this package: StableHLO, or ONNX with the extra "onnx".

`python -m th_jax.rendering.export --avatar ada.safetensors --out ada.stablehlo` (or `ada.onnx`)

The weights, divided by their sigmas, are inside. The program takes landmark points in [0, 1] or landmark images in [-1, 1]
and gives frames in [-1, 1], all float32. StableHLO runs on CPU, CUDA and TPU, for a batch of any size:

    program = jax.export.deserialize(bytearray(open("ada.stablehlo", "rb").read()))
    frames = program.call(points)                         # [B, 68, 2] -> [B, H, W, 3]
"""

import argparse
import dataclasses
import hashlib
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from unittest import mock

import jax
import jax.numpy as jnp
from jax import Array, export
from jaxtyping import Float

from th_jax.avatars import LoadedAvatar, load_avatar
from th_jax.console import forgiving_output
from th_jax.media.provenance import sidecar_path, sidecar_text
from th_jax.models.spectral import fold_spectral_norm
from th_jax.topology import IBUG_POINTS, check_point_count
from th_jax.types import NetworkState

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIXES = (".stablehlo", ".onnx")

Takes = Literal["points", "images"]
Program = Callable[[Float[Array, "B *input"]], Float[Array, "B H W 3"]]


def avatar_program(loaded: LoadedAvatar, *, takes: Takes = "points") -> Program:
    """The avatar as a function of its input alone, with pre-divided kernels.

    It is written for one frame and mapped over the batch: what is decided by the number of positions stays decided when the
    batch has no number yet.

    Raises:
        ValueError: for another input than "points" and "images".
    """
    if takes not in ("points", "images"):
        raise ValueError(f'an exported avatar takes "points" or "images", but {takes!r} was asked for')
    generate = _folded(loaded)

    def one(given: Float[Array, "*input"]) -> Float[Array, "H W 3"]:
        landmark_image = loaded.networks.landmark_image(given) if takes == "points" else given
        return generate(landmark_image[None])[0]

    return jax.vmap(one)


def input_shape(loaded: LoadedAvatar, *, takes: Takes, points: int) -> tuple[int, ...]:
    """Of one frame's input: `[P, 2]` points, or a landmark image `[H, W, 3]`."""
    size = loaded.networks.image_size
    return (points, 2) if takes == "points" else (size, size, 3)


def to_stablehlo(loaded: LoadedAvatar, *, takes: Takes = "points", points: int = IBUG_POINTS) -> bytes:
    """The artefact's bytes, for all of `PLATFORMS`.

    Raises:
        ValueError: for another input than "points" and "images", or another number of points than 68 and 70.
    """
    check_point_count(points)
    program = avatar_program(loaded, takes=takes)
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, *input_shape(loaded, takes=takes, points=points)), jnp.float32)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(shape)
    return bytes(exported.serialize())


def to_onnx(loaded: LoadedAvatar, path: Path, *, batch: int = 1) -> None:
    """Write an ONNX model with the input "landmarks", images of a fixed batch, and the output "frames".

    jax2onnx 0.17 translates neither a batch of unknown size nor the loop that draws points.

    Raises:
        ImportError: without the extra "onnx".
        ValueError: for a batch below 1.
    """
    if batch < 1:
        raise ValueError(f"a batch holds at least 1 frame, but {batch} were asked for")
    try:
        from jax2onnx import to_onnx as convert
    except ImportError as error:
        raise ImportError(
            "ONNX needs the extra and a converter: pip install 'th_jax[onnx]', then "
            "pip install --no-deps jax2onnx==0.17.1"
        ) from error
    # jax2onnx knows no choice between platforms: while it traces, each is the default, which suits any runtime.
    with mock.patch.object(jax.lax, "platform_dependent", lambda *operands, default, **_: default(*operands)):
        convert(
            _folded(loaded),
            [(batch, *input_shape(loaded, takes="images", points=IBUG_POINTS))],
            model_name="avatar",
            return_mode="file",
            output_path=str(path),
            input_names=["landmarks"],
            output_names=["frames"],
        )


def _folded(loaded: LoadedAvatar) -> Program:
    """A batch of landmark images to frames, with kernels divided by their sigmas."""
    networks, avatar = loaded.networks, loaded.avatar
    generator = NetworkState(avatar.generator_params, avatar.spectral_stats)
    if networks.spectral_norm:
        networks = dataclasses.replace(networks, spectral_norm=False)
        generator = NetworkState(fold_spectral_norm(generator), {})
    adain = jnp.asarray(avatar.adain)

    def generate(landmark_images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        everybody = jnp.broadcast_to(adain[None], (landmark_images.shape[0], adain.shape[0]))
        return networks.generate(generator, landmark_images, everybody)

    return generate


def export_avatar(
    loaded: LoadedAvatar,
    out: str | Path,
    *,
    takes: Takes | None = None,
    points: int = IBUG_POINTS,
    batch: int | None = None,
) -> Path:
    """Write the artefact, whole or not at all, in the format of its ending, and the avatar's provenance beside it.

    Args:
        loaded: the avatar.
        out: ends in .stablehlo or .onnx.
        takes: "points" by default, and for ONNX "images", which is all that it can take.
        points: landmarks of a frame, 68 or 70.
        batch: frames of an ONNX model's batch, 1 by default; StableHLO takes any.

    Raises:
        ValueError: for another ending, a missing folder, or as `to_stablehlo` and `to_onnx`.
        ImportError: for ONNX without its extra.
        OSError: if the disk refuses; nothing is left behind.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise ValueError(f"an exported avatar is named {' or '.join(SUFFIXES)}, but {out} was asked for")
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"{out} cannot be written: its folder does not exist, or it is a folder itself")
    onnx = out.suffix == ".onnx"
    if onnx and takes == "points":
        raise ValueError(
            "an ONNX model takes landmark images: draw them with th_jax.draw_landmarks, or export StableHLO"
        )
    if batch is not None and not onnx:
        raise ValueError("batch is for ONNX: a StableHLO artefact takes a batch of any size")
    token = secrets.token_hex(8)
    partial, beside = (out.with_name(f".{token}.partial{suffix}") for suffix in (out.suffix, ".json"))
    try:
        if onnx:
            to_onnx(loaded, partial, batch=1 if batch is None else batch)
        else:
            partial.write_bytes(to_stablehlo(loaded, takes=takes or "points", points=points))
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        beside.write_text(sidecar_text(out, digest, loaded.provenance), encoding="utf-8")
        os.replace(beside, sidecar_path(out))  # first: never a file without its record
        os.replace(partial, out)
    finally:
        for left in (partial, beside):
            left.unlink(missing_ok=True)
    return out


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m th_jax.rendering.export", description=__doc__.splitlines()[0])
    parser.add_argument("--avatar", type=Path, required=True, help="an avatar's file")
    parser.add_argument("--meta", help="meta weights of a small avatar: file, run or name; the bundled ones by default")
    parser.add_argument("--out", type=Path, required=True, help="ends in .stablehlo or .onnx")
    parser.add_argument("--takes", choices=("points", "images"), help="the input; ONNX takes images alone")
    parser.add_argument("--points", type=int, choices=(68, 70), default=IBUG_POINTS, help="landmarks of a frame")
    parser.add_argument("--batch", type=int, help="frames of an ONNX model's batch, 1 by default")
    chosen = parser.parse_args(arguments)
    try:
        loaded = load_avatar(chosen.avatar, meta=chosen.meta)
        out = export_avatar(loaded, chosen.out, takes=chosen.takes, points=chosen.points, batch=chosen.batch)
    except (ValueError, OSError, ImportError) as error:
        print(f"th_jax.rendering.export: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, frames of {loaded.networks.image_size} px in [-1, 1]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
