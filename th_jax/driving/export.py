"""Exports an avatar as one artifact that runs without this package: StableHLO, or ONNX with the extra "onnx".

`th-jax export --avatar ada.safetensors --out ada.stablehlo` (or `ada.onnx`, also with `--int8`)

The artifact contains the weights, divided by their sigmas. The program maps landmark points in [0, 1] or landmark
images in [-1, 1] to frames in [-1, 1], in float32; with `--int8`, an ONNX model's convolutions use 8-bit integers.
StableHLO runs on CPU, CUDA and TPU, for any batch size:

    program = jax.export.deserialize(bytearray(open("ada.stablehlo", "rb").read()))
    frames = program.call(points)                         # [B, 68, 2] -> [B, H, W, 3]
"""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export
from jaxtyping import Float

from th_jax.avatars.examples import DRIVER
from th_jax.avatars.file import LoadedAvatar
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.driving.int8 import Quantized, quantize
from th_jax.driving.onnx_model import write_onnx
from th_jax.landmarks.scheme import IBUG_POINTS, check_point_count
from th_jax.models.networks import Networks
from th_jax.models.spectral import fold_spectral_norm
from th_jax.optional import load_backend
from th_jax.provenance.record import sidecar_path, sidecar_text
from th_jax.storage.files import check_place, file_sha256, flush_to_disk, whole_file, whole_path
from th_jax.types import NetworkState

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIXES = (".stablehlo", ".onnx")

_CHECKED = 12
"""Index of the held-out bundled person whose landmarks check a quantized model."""

Takes = Literal["points", "images"]
Program = Callable[[Float[Array, "B *input"]], Float[Array, "B H W 3"]]


def avatar_program(loaded: LoadedAvatar, *, takes: Takes = "points") -> Program:
    """Return the avatar as a function of its input alone, with kernels already divided by their sigmas.

    The function is written for one frame and mapped over the batch. Choices that depend on the number of spatial
    positions then remain static, even when the batch size is symbolic.

    Raises:
        ValueError: if `takes` is neither "points" nor "images".
    """
    if takes not in ("points", "images"):
        raise ValueError(f'takes must be "points" or "images", got {takes!r}')
    networks, generator = _unnormalized(loaded)
    adain = jnp.asarray(loaded.avatar.adain)

    def one(given: Float[Array, "*input"]) -> Float[Array, "H W 3"]:
        landmark_image = networks.landmark_image(given) if takes == "points" else given
        return networks.generate(generator, landmark_image[None], adain[None])[0]

    return jax.vmap(one)


def input_shape(loaded: LoadedAvatar, *, takes: Takes, points: int) -> tuple[int, ...]:
    """Return the shape of one frame's input: `[P, 2]` for points, `[H, W, 3]` for a landmark image."""
    size = loaded.networks.image_size
    return (points, 2) if takes == "points" else (size, size, 3)


def to_stablehlo(loaded: LoadedAvatar, *, takes: Takes = "points", points: int = IBUG_POINTS) -> bytes:
    """Serialize the avatar as StableHLO for all of `PLATFORMS`.

    Raises:
        ValueError: if `takes` is neither "points" nor "images", or the number of points is neither 68 nor 70.
    """
    check_point_count(points)
    program = avatar_program(loaded, takes=takes)
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, *input_shape(loaded, takes=takes, points=points)), jnp.float32)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(shape)
    return bytes(exported.serialize())


def to_onnx(loaded: LoadedAvatar, path: Path, *, batch: int | None = None) -> None:
    """Write an ONNX model with the input "landmarks", a batch of landmark images, and the output "frames".

    Args:
        loaded: avatar to export.
        path: file to write.
        batch: number of frames, or None for any.

    Raises:
        ImportError: if the extra "onnx" is not installed.
        ValueError: if the batch size is below 1.
    """
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1 frame, got {batch}")
    load_backend("onnx", "exporting ONNX", extra="onnx")
    networks, generator = _unnormalized(loaded)
    write_onnx(
        path, generator.params, np.asarray(loaded.avatar.adain), layout=networks.plan, image_size=networks.image_size,
        gray=networks.gray, batch=batch,
    )  # fmt: skip


def to_int8_onnx(loaded: LoadedAvatar, path: Path, *, batch: int | None = None) -> Quantized:
    """Write an ONNX model as `to_onnx` does, with convolutions of 8-bit integers (`th_jax.driving.int8`).

    Ranges are measured on the landmarks of the avatar's shots and of a bundled person, and checked on those of another one.

    Raises:
        ImportError: if the extra "onnx" is not installed.
        ValueError: if the batch size is below 1, or the frames differ too much from the float model's.
    """
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "float.onnx"
        to_onnx(loaded, model, batch=batch)
        draw = loaded.networks.landmark_image
        shots, drivers = loaded.landmarks, VideoRecords(bundled_heads(), "heldout")
        typical = [*([] if shots is None else [shots]), drivers.read(DRIVER).landmarks[::2]]
        ranges = np.concatenate([draw(jnp.asarray(points)) for points in typical])
        check = np.asarray(draw(jnp.asarray(drivers.read(_CHECKED).landmarks[::4])))
        return quantize(model, path, ranges=ranges, check=check)


def _unnormalized(loaded: LoadedAvatar) -> tuple[Networks, NetworkState]:
    """Return float32 networks without spectral norm, and a generator whose kernels are divided by their sigmas."""
    networks, avatar = dataclasses.replace(loaded.networks, compute_dtype="float32"), loaded.avatar
    generator = NetworkState(avatar.generator_params, avatar.spectral_stats)
    if networks.spectral_norm:
        networks = dataclasses.replace(networks, spectral_norm=False)
        generator = NetworkState(fold_spectral_norm(generator), {})
    return networks, generator


def export_avatar(
    loaded: LoadedAvatar,
    out: str | Path,
    *,
    takes: Takes | None = None,
    points: int = IBUG_POINTS,
    batch: int | None = None,
    int8: bool = False,
) -> tuple[Path, Quantized | None]:
    """Write the artifact atomically, in the format given by the suffix, with the avatar's provenance beside it.

    Args:
        loaded: avatar to export.
        out: output file, ending in .stablehlo or .onnx.
        takes: input type: "points" by default; ONNX supports only "images".
        points: number of landmarks per frame, 68 or 70.
        batch: fixed batch size of an ONNX model; StableHLO, and ONNX by default, take any.
        int8: whether an ONNX model's convolutions use 8-bit integers.

    Returns:
        The path of the artifact, and with `int8` how the model was quantized.

    Raises:
        ValueError: if the suffix is unknown or an option is invalid (see `to_stablehlo` and `to_onnx`).
        ImportError: if the extra "onnx" is needed but not installed.
        OSError: if a file cannot be written; no partial file is left behind.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise ValueError(f"the file name of an exported avatar must end in {' or '.join(SUFFIXES)}, got {out}")
    check_place(out)
    onnx = out.suffix == ".onnx"
    if onnx and takes == "points":
        raise ValueError(
            "an ONNX model takes landmark images: draw them with th_jax.draw_landmarks, or export StableHLO"
        )
    if int8 and not onnx:
        raise ValueError("int8 is only for ONNX: give a file name that ends in .onnx")
    if batch is not None and not onnx:
        raise ValueError("batch is only for ONNX: a StableHLO artifact accepts any batch size")
    quantized: Quantized | None = None
    with whole_path(out) as partial:
        if int8:
            quantized = to_int8_onnx(loaded, partial, batch=batch)
        elif onnx:
            to_onnx(loaded, partial, batch=batch)
        else:
            partial.write_bytes(to_stablehlo(loaded, takes=takes or "points", points=points))
        flush_to_disk(partial)
        with whole_file(sidecar_path(out)) as beside:  # in place first: a file never exists without its record
            beside.write(sidecar_text(out, file_sha256(partial), loaded.provenance).encode())
    return out, quantized
