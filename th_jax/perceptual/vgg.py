"""Feature pyramids of VGG16, VGG19 and VGGFace at Caffe scale, from one table (paper, section 3.2: the content loss).

Weights are arguments, never closures: a network is a row of the table and a dictionary of kernels.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.images import to_byte_scale
from th_jax.models.convolution import convolve

VggWeights = Mapping[str, Mapping[str, Array]]
"""Maps `block{n}_conv{m}` to its `kernel` [3, 3, in, out] and `bias` [out]."""

Pyramid = tuple[Float[Array, "B _ _ _"], ...]
"""relu1_1, relu2_1, relu3_1, relu4_1, relu5_1."""

CHANNELS = (64, 128, 256, 512, 512)


class VggTable(NamedTuple):
    """One VGG network: convolutions before each pool, and the channel means that are subtracted from its input."""

    convolutions: tuple[int, int, int, int, int]
    mean_bgr: tuple[float, float, float]
    """0..255 in the order blue, green, red: all three networks were trained with Caffe."""
    what: str


_IMAGENET_MEAN = (103.939, 116.779, 123.68)

VGG_TABLE: dict[str, VggTable] = {
    "vgg16": VggTable((2, 2, 3, 3, 3), _IMAGENET_MEAN, "VGG16 for ImageNet, Simonyan and Zisserman 2014"),
    "vgg19": VggTable((2, 2, 4, 4, 4), _IMAGENET_MEAN, "VGG19 for ImageNet, Simonyan and Zisserman 2014"),
    "vggface": VggTable((2, 2, 3, 3, 3), (93.594, 104.762, 129.186), "VGGFace, Parkhi et al. 2015"),
}


def layer_names(network: str) -> list[str]:
    """List the convolutions up to relu5_1, in order; block5 ends after its first convolution.

    Raises:
        ValueError: if the network is not in the table.
    """
    table = vgg_table(network)
    counts = (*table.convolutions[:-1], 1)
    return [f"block{block}_conv{n}" for block, count in enumerate(counts, 1) for n in range(1, count + 1)]


def layer_shapes(network: str) -> dict[str, tuple[int, int, int, int]]:
    """Return the kernel shape of each convolution up to relu5_1."""
    shapes, incoming = {}, 3
    for name in layer_names(network):
        outgoing = CHANNELS[int(name[5]) - 1]
        shapes[name] = (3, 3, incoming, outgoing)
        incoming = outgoing
    return shapes


def vgg_table(network: str) -> VggTable:
    """Return the network's row of the table.

    Raises:
        ValueError: if the network is not in the table.
    """
    if network not in VGG_TABLE:
        raise ValueError(f"unknown VGG network {network!r}; expected one of {', '.join(VGG_TABLE)}")
    return VGG_TABLE[network]


@functools.partial(jax.jit, static_argnames=("network", "dtype"))  # traced once for x and x̂
def feature_pyramid(
    weights: VggWeights, images: Float[Array, "B H W 3"], *, network: str, dtype: Any = jnp.float32
) -> Pyramid:
    """Compute the activations relu1_1 … relu5_1 of RGB images in [-1, 1] whose sides divide by 16.

    Each is the output after the ReLU of a block's first convolution: layers 1, 6, 11, 20, 29 of VGG19 and 1, 6, 11, 18, 25
    of VGGFace in the plain sequence that the paper counts.

    Args:
        weights: kernels and biases in any float type; they are converted to `dtype`.
        images: RGB in [-1, 1].
        network: "vgg16", "vgg19" or "vggface".
        dtype: dtype of the arithmetic, float32 or bfloat16.

    Raises:
        ValueError: if the network is unknown, the weights belong to another network, or pooling cannot halve the size four
            times.
    """
    names = layer_names(network)
    if missing := [name for name in names if name not in weights]:
        raise ValueError(f"these are not the weights of {network}: {missing[0]} is missing")
    height, width = images.shape[1:3]
    if height % 16 or width % 16:
        raise ValueError(f"images for {network} must have sides divisible by 16, got {height}x{width}")
    mean = jnp.asarray(vgg_table(network).mean_bgr, jnp.float32)
    h = (to_byte_scale(images)[..., ::-1] - mean[None, None, None, :]).astype(dtype)
    pyramid = []
    for name, following in zip(names, [*names[1:], ""], strict=True):
        h = convolve(h, weights[name]["kernel"].astype(dtype), out=dtype)
        if following.endswith("_conv1"):
            h = _max_pool(h)  # commutes with bias and ReLU, which then need a quarter of the positions
        h = nn.relu(h + weights[name]["bias"].astype(dtype)[None, None, None, :])
        if name.endswith("_conv1"):
            pyramid.append(h)
    return tuple(pyramid)


def _max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H/2 W/2 C"]:
    def of_views(x: Array) -> Array:
        # On a CPU the gradient of XLA's windowed reduction is a far slower scatter.
        rows = jnp.maximum(x[:, ::2], x[:, 1::2])
        return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])

    def of_windows(x: Array) -> Array:
        return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))

    # A TPU has an instruction for either direction, and copies strided views.
    pooled: Array = jax.lax.platform_dependent(x, tpu=of_windows, default=of_views)
    return pooled
