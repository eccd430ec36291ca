"""The generator G and the projection P: landmark image and AdaIN parameters to a frame (paper, section 3.1).

The person enters as the argument `adain`, P·ê while meta-learning and an avatar's own vector after fine-tuning: the module
looks nobody up, so one program serves both.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.models.blocks import AdaptiveResidualBlock, DownBlock, Normalize, UpBlock
from th_jax.models.layers import SelfAttention, SpectralConv, SpectralDense, adaptive_instance_norm
from th_jax.models.plan import MIDDLE_BLOCKS, plan

_FLOAT32_BLOCKS = 2


class AdainProjection(nn.Module):
    """P: an identity embedding to the scales and shifts of every adaptive instance norm, ψ̂ = P·ê."""

    image_size: int = 256
    base_width: int = 64
    spectral_norm: bool = True

    @nn.compact
    def __call__(self, embedding: Float[Array, "B N"]) -> Float[Array, "B A"]:
        """AdaIN parameters in float32: for each norm in order of execution its scales, then its shifts."""
        widths = plan(image_size=self.image_size, base_width=self.base_width).adain_widths

        def neutral(key: Array, shape: tuple[int, ...]) -> Array:
            del key, shape
            return neutral_adain(widths)

        return SpectralDense(2 * sum(widths), bias_start=neutral, spectral_norm=self.spectral_norm, name="dense")(
            embedding
        )


def neutral_adain(widths: tuple[int, ...]) -> Float[Array, " A"]:
    """Scales of one and shifts of zero: where P's bias starts."""
    return jnp.concatenate([jnp.concatenate([jnp.ones(width), jnp.zeros(width)]) for width in widths])


class Generator(nn.Module):
    """G(y, ψ'): down blocks with instance norm, residual and up blocks with AdaIN, self-attention in both, tanh.

    With `dtype` bfloat16 the first two blocks (13 % of the arithmetic) and the last convolution stay float32: a landmark
    image is nearly constant, and the norms after them magnify what rounding would leave there.
    """

    image_size: int = 256
    base_width: int = 64
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, landmark_image: Float[Array, "B H W 3"], adain: Float[Array, "B A"]) -> Float[Array, "B H W 3"]:
        """A frame in [-1, 1], float32, from a landmark image in [-1, 1] and the person's AdaIN parameters."""
        layout = plan(image_size=self.image_size, base_width=self.base_width)
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        norms = _person_norms(adain, layout.adain_widths)
        h = landmark_image
        for level, features in enumerate(layout.generator_down):
            h = DownBlock(
                features,
                first=level == 0,
                normalize=level > 0,
                output_dtype=jnp.float32,
                name=f"down_{level}",
                spectral_norm=self.spectral_norm,
                dtype=jnp.float32 if level < _FLOAT32_BLOCKS else self.dtype,
            )(h)
            if h.shape[1] == layout.encoder_attention:
                h = SelfAttention(name="attention_down", **settings)(h)
        for block in range(MIDDLE_BLOCKS):
            h = AdaptiveResidualBlock(name=f"residual_{block}", **settings)(h, next(norms), next(norms))
        for level, features in enumerate(layout.generator_up):
            h = UpBlock(features, name=f"up_{level}", **settings)(h, next(norms), next(norms))
            if h.shape[1] == layout.generator_attention:
                h = SelfAttention(name="attention_up", **settings)(h)
        h = SpectralConv(3, spectral_norm=self.spectral_norm, name="to_rgb")(nn.relu(next(norms)(h)))
        return jnp.tanh(h.astype(jnp.float32))


def _person_norms(adain: Float[Array, "B A"], widths: tuple[int, ...]) -> Iterator[Normalize]:
    offset = 0
    for width in widths:
        scale = adain[:, offset : offset + width]
        shift = adain[:, offset + width : offset + 2 * width]
        offset += 2 * width
        yield functools.partial(adaptive_instance_norm, scale=scale, shift=shift)
