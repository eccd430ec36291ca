"""Static quantization of an avatar's ONNX model: convolutions of 8-bit integers, by ONNX Runtime's quantizer.

Ranges of the activations are measured on landmark images, and kernels have a scale for each output channel. The last
convolutions, whose errors are seen directly, stay in float32 until the frames are near enough to those of the float model.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from th_jax.evaluation.metrics.similarity import ssim
from th_jax.optional import load_backend

LEAST_SSIM = 0.995
"""Structural similarity to the float model's frames that must be reached."""

MOST_FLOAT = 8
"""Maximum number of convolutions that stay in float32."""

Images = Float32[np.ndarray, "N H W 3"]


class Quantized(NamedTuple):
    """What became of a model."""

    ssim: float
    """Mean structural similarity to the float model, on frames that the ranges were not measured on."""
    integers: int
    """Number of convolutions of integers."""
    floats: int
    """Number of convolutions that stay in float32."""


def quantize(model: Path, out: Path, images: Images) -> Quantized:
    """Write the quantized form of an ONNX model of an avatar.

    Args:
        model: the float model.
        out: file to write.
        images: landmark images in [-1, 1] of typical poses, at least two; every other one measures ranges, the others
            the result.

    Raises:
        ImportError: if `onnx` or `onnxruntime` is not installed.
        ValueError: if there are fewer than two images, or no form is near enough to the float model.
    """
    onnx = load_backend("onnx", "exporting ONNX", extra="onnx")
    quantization = load_backend("onnxruntime.quantization", "quantization", extra="onnx")
    if len(images) < 2:
        raise ValueError(f"measuring ranges takes at least two landmark images, got {len(images)}")
    with tempfile.TemporaryDirectory() as place, _quiet():
        prepared = Path(place) / "prepared.onnx"
        quantization.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        wanted = frames_of(model, images[1::2])
        found = -1.0
        for kept in range(min(MOST_FLOAT, len(convolutions) - 1) + 1):
            quantization.quantize_static(
                str(prepared), str(out), _Reader(model, images[::2]), per_channel=True, op_types_to_quantize=["Conv"],
                nodes_to_exclude=convolutions[len(convolutions) - kept :], quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
            found = float(np.mean(ssim(wanted, frames_of(out, images[1::2]), data_range=2.0)))
            if found >= LEAST_SSIM:
                return Quantized(found, len(convolutions) - kept, kept)
    raise ValueError(
        f"the int8 model's frames differ too much: SSIM {found:.4f} to the float model's, at least {LEAST_SSIM} is required; "
        "export without --int8"
    )


def frames_of(model: Path, images: Images) -> Float32[np.ndarray, "N H W 3"]:
    """Return the frames of a model; where its batch is fixed, images that do not fill the last one are repeated in it."""
    onnxruntime = load_backend("onnxruntime", "quantization", extra="onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    made = [session.run(["frames"], {"landmarks": part})[0] for part in _batches(session, images)]
    return np.concatenate(made)[: len(images)]


def _batches(session: Any, images: Images) -> Iterator[Images]:
    batch = session.get_inputs()[0].shape[0]
    batch = batch if isinstance(batch, int) else 1
    for start in range(0, len(images), batch):
        yield images[np.arange(start, start + batch) % len(images)]


class _Reader:
    """Images in the form in which ONNX Runtime's quantizer asks for them."""

    def __init__(self, model: Path, images: Images) -> None:
        onnxruntime = load_backend("onnxruntime", "quantization", extra="onnx")
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._left = _batches(session, images)

    def get_next(self) -> dict[str, Images] | None:
        part = next(self._left, None)
        return None if part is None else {"landmarks": part}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep advice on the quantizer's other options from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
