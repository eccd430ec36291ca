"""LPIPS v0.1 with VGG16 (Zhang et al. 2018), from a file given by path: trunk, input scaling and learned weights.

The bundled VGG16 cannot be used: it is from another training run and ends at relu5_1. docs/evaluation.md explains how
to make the file from the authors' package.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float, UInt8

from th_jax.evaluation import metrics
from th_jax.evaluation.chunks import in_chunks
from th_jax.evaluation.judges.network_file import read_checked
from th_jax.evaluation.judges.network_input import NetworkFileError
from th_jax.images import to_network_range
from th_jax.models.convolution import convolve
from th_jax.perceptual import vgg
from th_jax.storage.tensors import TensorFileError, read_tensors

FORMAT = "lpips-vgg/0.1"
SMALLEST = 16
"""Minimum side of an image in pixels: four poolings leave one."""

_SHIFT = -0.030, -0.088, -0.188
_SCALE = 0.458, 0.448, 0.450
"""Offset and scale of red, green and blue, for images in [-1, 1]."""


class LpipsWeights(NamedTuple):
    """All weights of LPIPS."""

    trunk: tuple[tuple[tuple[Array, Array], ...], ...]
    """Kernels [3, 3, in, out] and biases of each block's convolutions."""
    linear: tuple[Array, ...]
    """Learned channel weights for each block's last activation."""


def load_lpips(path: Path, *, sha256: str) -> LpipsWeights:
    """Load weights from a safetensors file with the authors' tensor names.

    Raises:
        NetworkFileError: if the file is missing, has another checksum, is not safetensors of the format
            "lpips-vgg/0.1", or lacks a tensor of the right shape.
    """
    path = Path(path)
    read_checked(path, sha256=sha256)
    try:
        tensors, _ = read_tensors(path, file_format=FORMAT)
    except TensorFileError as error:
        raise NetworkFileError(
            f"{error}; docs/evaluation.md describes how to create a file of LPIPS weights"
        ) from error

    def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in tensors or tensors[name].shape != shape:
            raise NetworkFileError(f"{path}: the tensor {name} of LPIPS with VGG16 is missing or not {list(shape)}")
        return tensors[name].astype(np.float32)

    trunk, linear = [], []
    position, incoming = 0, 3
    for block, (count, channels) in enumerate(zip(vgg.VGG_TABLE["vgg16"].convolutions, vgg.CHANNELS, strict=True)):
        layers = []
        for _ in range(count):
            name = f"net.slice{block + 1}.{position}"
            kernel = tensor(f"{name}.weight", (channels, incoming, 3, 3)).transpose(2, 3, 1, 0)
            layers.append((jnp.asarray(kernel), jnp.asarray(tensor(f"{name}.bias", (channels,)))))
            position, incoming = position + 2, channels  # each is followed by a ReLU
        position += 1  # the pooling layer
        trunk.append(tuple(layers))
        linear.append(jnp.asarray(tensor(f"lin{block}.model.1.weight", (1, channels, 1, 1)).reshape(-1)))
    return LpipsWeights(tuple(trunk), tuple(linear))


def lpips_distance(
    weights: LpipsWeights, made: UInt8[np.ndarray, "N H W 3"], wanted: UInt8[np.ndarray, "N H W 3"]
) -> Float[np.ndarray, " N"]:
    """Compute LPIPS of each pair of RGB frames at their own size; 0 for identical frames, lower is more similar.

    Raises:
        ValueError: if a side is smaller than `SMALLEST` pixels.
    """
    if min(made.shape[1:3]) < SMALLEST:
        raise ValueError(f"LPIPS needs frames of at least {SMALLEST} px per side, got {made.shape[1:3]}")
    compare = functools.partial(_compare, weights)
    return in_chunks(compare, (made, wanted)).astype(np.float64)


@jax.jit
def _compare(weights: LpipsWeights, made: Array, wanted: Array) -> Array:
    return jnp.asarray(metrics.lpips(_pyramid(weights, made), _pyramid(weights, wanted), weights.linear))


def _pyramid(weights: LpipsWeights, frames: Array) -> list[Array]:
    """Compute relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""
    shift, scale = (jnp.asarray(values, jnp.float32)[None, None, None, :] for values in (_SHIFT, _SCALE))
    h = (to_network_range(frames) - shift) / scale
    pyramid: list[Array] = []
    for layers in weights.trunk:
        if pyramid:
            h = nn.max_pool(h, (2, 2), strides=(2, 2))
        for kernel, bias in layers:
            h = nn.relu(convolve(h, kernel, out=jnp.float32) + bias[None, None, None, :])
        pyramid.append(h)
    return pyramid
