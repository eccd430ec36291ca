"""Flax modules of the four networks: embedder E, AdaIN projection P, generator G and discriminator D (paper, section 3.1).

The person enters the generator as the argument `adain`: P·ê while meta-learning, the avatar's own vector after fine-tuning.
The modules do not look up people, so one program serves both.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.models import init
from th_jax.models.convolution import average_pool, upsample
from th_jax.models.layers import (
    AdaptiveResidualBlock,
    DownBlock,
    Normalize,
    ResidualBlock,
    SelfAttention,
    SpectralConv,
    SpectralDense,
    UpBlock,
    adaptive_instance_norm,
    global_pool,
)
from th_jax.models.sizes import MIDDLE_BLOCKS, plan


class _Encoder(nn.Module):
    """The part that E and D have in common: residual down blocks to 4x4 with one self-attention block."""

    image_size: int = 256
    base_width: int = 64
    max_width: int = 0
    pool: str = "sum"
    pool_order: str = "sum_relu"
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    def encode(
        self, frame: Float[Array, "B H W 3"], landmark_image: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B _ _ C"], list[Float[Array, "B _ _ _"]]]:
        """Return the final activations, and the output of each residual block; only for calls in a compact method."""
        layout = plan(image_size=self.image_size, base_width=self.base_width, max_width=self.max_width)
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        features = []
        h = jnp.concatenate([frame, landmark_image], axis=-1)
        if layout.outer:
            outer = DownBlock(layout.outer, first=True, name="outer_down", **settings)(h)
            features.append(outer)
            h = jnp.concatenate([average_pool(h).astype(outer.dtype), outer], axis=-1)
        for level, channels in enumerate(layout.encoder):
            h = DownBlock(channels, first=level == 0, name=f"down_{level}", **settings)(h)
            features.append(h)
            if h.shape[1] == layout.encoder_attention:
                h = SelfAttention(name="attention", **settings)(h)
        return h, features


class Embedder(_Encoder):
    """E(x, y): residual down blocks to 4x4 with one self-attention block, no normalization, global pooling and ReLU."""

    @nn.compact
    def __call__(self, frame: Float[Array, "B H W 3"], landmark_image: Float[Array, "B H W 3"]) -> Float[Array, "B N"]:
        """Embed each frame.

        Args:
            frame: frames in [-1, 1].
            landmark_image: drawn landmarks of the frames in [-1, 1].

        Returns:
            One embedding per frame, in float32. The mean over K frames is ê (paper, section 3.2).
        """
        h, _ = self.encode(frame, landmark_image)
        return global_pool(h, pool=self.pool, pool_order=self.pool_order)


_FLOAT32_BLOCKS = 2


class AdainProjection(nn.Module):
    """P: maps an identity embedding to the scales and shifts of every adaptive instance norm, ψ̂ = P·ê."""

    image_size: int = 256
    base_width: int = 64
    max_width: int = 0
    spectral_norm: bool = True

    @nn.compact
    def __call__(self, embedding: Float[Array, "B N"]) -> Float[Array, "B A"]:
        """Compute AdaIN parameters in float32: for each norm, in order of execution, its scales, then its shifts."""
        widths = plan(image_size=self.image_size, base_width=self.base_width, max_width=self.max_width).adain_widths

        def neutral(key: Array, shape: tuple[int, ...]) -> Array:
            del key, shape
            return neutral_adain(widths)

        return SpectralDense(2 * sum(widths), bias_start=neutral, spectral_norm=self.spectral_norm, name="dense")(
            embedding
        )


def neutral_adain(widths: tuple[int, ...]) -> Float[Array, " A"]:
    """Return scales of one and shifts of zero, the initial bias of P."""
    return jnp.concatenate([jnp.concatenate([jnp.ones(width), jnp.zeros(width)]) for width in widths])


class Generator(nn.Module):
    """G(y, ψ'): down blocks with instance norm, residual and up blocks with AdaIN, self-attention in both halves, tanh.

    If `dtype` is bfloat16, the first two blocks (13 % of the arithmetic) and the last convolution stay in float32: a landmark
    image is nearly constant, and the norms that follow would magnify rounding errors.
    """

    image_size: int = 256
    base_width: int = 64
    max_width: int = 0
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, landmark_image: Float[Array, "B H W 3"], adain: Float[Array, "B A"]) -> Float[Array, "B H W 3"]:
        """Generate frames in [-1, 1], float32.

        Args:
            landmark_image: drawn landmarks in [-1, 1].
            adain: AdaIN parameters of each frame's person.
        """
        layout = plan(image_size=self.image_size, base_width=self.base_width, max_width=self.max_width)
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        norms = _person_norms(adain, layout.adain_widths)
        h = landmark_image
        if layout.outer:
            outer = DownBlock(layout.outer, first=True, name="outer_down", spectral_norm=self.spectral_norm)(h)
            h = jnp.concatenate([average_pool(h), outer], axis=-1)
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
        rgb = SpectralConv(3, spectral_norm=self.spectral_norm, name="to_rgb")(nn.relu(next(norms)(h)))
        if layout.outer:
            h = UpBlock(layout.outer, name="outer_up", **settings)(h, next(norms), next(norms))
            finer = SpectralConv(3, spectral_norm=self.spectral_norm, name="outer_to_rgb")(nn.relu(next(norms)(h)))
            gamma = self.param("gamma", init.GAMMA, ())  # the core's image is initially unchanged
            rgb = upsample(rgb) + gamma * finer
        return jnp.tanh(rgb.astype(jnp.float32))


def _person_norms(adain: Float[Array, "B A"], widths: tuple[int, ...]) -> Iterator[Normalize]:
    offset = 0
    for width in widths:
        scale = adain[:, offset : offset + width]
        shift = adain[:, offset + width : offset + 2 * width]
        offset += 2 * width
        yield functools.partial(adaptive_instance_norm, scale=scale, shift=shift)


class Discriminator(_Encoder):
    """D(x, y, i) = V(x, y)ᵀ (W_i + w0) + b. The row W_i is an argument; it is zero for a fine-tuned person."""

    @nn.compact
    def __call__(
        self,
        frame: Float[Array, "B H W 3"],
        landmark_image: Float[Array, "B H W 3"],
        identity: Float[Array, "B N"],
    ) -> tuple[Float[Array, " B"], tuple[Float[Array, "B _ _ _"], ...]]:
        """Score the realism of frames.

        Args:
            frame: frames in [-1, 1].
            landmark_image: drawn landmarks of the frames in [-1, 1].
            identity: W_i, each video's row of the table; zeros once w0 contains the person (paper, section 3.3).

        Returns:
            Scores in float32, and the output of each residual block for feature matching.
        """
        h, features = self.encode(frame, landmark_image)
        h = ResidualBlock(spectral_norm=self.spectral_norm, dtype=self.dtype, name="residual")(h)
        features.append(h)
        pooled = global_pool(h, pool=self.pool, pool_order=self.pool_order)
        shared = self.param("shared", init.SHARED, (pooled.shape[-1],))
        bias = self.param("bias", init.BIAS, ())
        score = jnp.sum(pooled * (identity.astype(jnp.float32) + shared[None, :]), axis=-1) + bias
        return score, tuple(features)
