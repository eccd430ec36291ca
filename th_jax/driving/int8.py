"""Static quantization of an avatar's ONNX model: convolutions use 8-bit integers, by ONNX Runtime's quantizer.

Ranges of the activations are measured on landmark images, and kernels have a scale for each output channel. As many of the
last convolutions, whose errors are seen directly, stay in float32 as are needed to keep the frames near the float model's.
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

Images = Float32[np.ndarray, "_ H W 3"]


class Quantized(NamedTuple):
    """How a model was quantized."""

    ssim: float
    """Mean structural similarity to the float model, for a person whom the ranges were not measured on."""
    integers: int
    """Number of convolutions of integers."""
    floats: int
    """Number of convolutions that stay in float32."""


def quantize(model: Path, out: Path, *, ranges: Images, check: Images) -> Quantized:
    """Write the quantized form of an ONNX model of an avatar.

    Args:
        model: the float model.
        out: file to write.
        ranges: landmark images in [-1, 1] of typical poses, on which ranges are measured.
        check: other landmark images, whose frames are compared.

    Raises:
        ImportError: if `onnx` or `onnxruntime` is not installed.
        ValueError: if no form is near enough to the float model.
    """
    onnx = load_backend("onnx", "exporting ONNX", extra="onnx")
    quantization = load_backend("onnxruntime.quantization", "quantization", extra="onnx")
    with tempfile.TemporaryDirectory() as place, _quiet():
        prepared = Path(place) / "prepared.onnx"
        quantization.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        kept_names = {node.name for node in onnx.load(prepared).graph.node}
        nodes = onnx.load(model).graph.node
        convolutions = [node.name for node in nodes if node.op_type == "Conv" and node.name in kept_names]
        batch, wanted = _batch_of(_session(model)), frames_of(model, check)
        found = -1.0
        for floats in range(min(MOST_FLOAT, len(convolutions) - 1) + 1):
            quantization.quantize_static(
                str(prepared), str(out), _Reader(ranges, batch), per_channel=True, op_types_to_quantize=["Conv"],
                nodes_to_exclude=convolutions[len(convolutions) - floats :], quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
            found = float(np.mean(ssim(wanted, frames_of(out, check), data_range=2.0)))
            if found >= LEAST_SSIM:
                return Quantized(found, len(convolutions) - floats, floats)
    raise ValueError(
        f"the int8 model's frames differ too much: SSIM {found:.4f} to the float model's, at least {LEAST_SSIM} is required; "
        "export without --int8"
    )


def frames_of(model: Path, images: Images) -> Images:
    """Return the frames of a model; where its batch is fixed, images that do not fill the last one are repeated in it."""
    session = _session(model)
    made = [session.run(["frames"], {"landmarks": part})[0] for part in _batches(images, _batch_of(session))]
    return np.concatenate(made)[: len(images)]


def _session(model: Path) -> Any:
    onnxruntime = load_backend("onnxruntime", "quantization", extra="onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _batch_of(session: Any) -> int:
    """Return the fixed size of a batch, or 1 if it may be any."""
    batch = session.get_inputs()[0].shape[0]
    return batch if isinstance(batch, int) else 1


def _batches(images: Images, batch: int) -> Iterator[Images]:
    for start in range(0, len(images), batch):
        yield images[np.arange(start, start + batch) % len(images)]


class _Reader:
    """Images in the form in which ONNX Runtime's quantizer asks for them."""

    def __init__(self, images: Images, batch: int) -> None:
        self._left = _batches(images, batch)

    def get_next(self) -> dict[str, Images] | None:
        part = next(self._left, None)
        return None if part is None else {"landmarks": part}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice on its other options from the terminal; it writes to the root logger."""

    def is_ours(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    logging.root.addFilter(is_ours)
    try:
        yield
    finally:
        logging.root.removeFilter(is_ours)
