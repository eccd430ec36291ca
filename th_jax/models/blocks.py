"""The residual blocks of the four networks, after BigGAN (paper, section 3.4; docs/paper-map.md).

Where norms follow, convolutions hand on float32 sums even if their factors are bfloat16: a norm divides by a deviation that
can be far smaller than the mean, and would magnify what rounding left.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.models.layers import InstanceNorm, SpectralConv

Normalize = Callable[[Float[Array, "B H W C"]], Float[Array, "B H W C"]]
"""Adaptive instance norm with its scale and shift already taken from the person's parameters."""


class DownBlock(nn.Module):
    """Halves the resolution: [norm] → ReLU → conv → [norm] → ReLU → conv → pool, beside conv1x1 → pool.

    The first block of a network has no leading norm and no leading ReLU: it reads a picture.
    """

    features: int
    first: bool = False
    normalize: bool = False
    spectral_norm: bool = True
    dtype: Any = jnp.float32
    output_dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W _"]) -> Float[Array, "B H/2 W/2 {self.features}"]:
        """Apply the block. With norms the 3x3 convolutions have no bias; the skip keeps its own."""
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype, "output_dtype": self.output_dtype}
        h = x
        if not self.first:
            h = InstanceNorm(name="norm_0")(h) if self.normalize else h
            h = nn.relu(h)
        h = SpectralConv(self.features, use_bias=not self.normalize, name="conv_0", **settings)(h)
        h = InstanceNorm(name="norm_1")(h) if self.normalize else h
        h = SpectralConv(self.features, use_bias=not self.normalize, resample="then_pool", name="conv_1", **settings)(
            nn.relu(h)
        )
        return h + SpectralConv(self.features, size=1, resample="then_pool", name="skip", **settings)(x)


class ResidualBlock(nn.Module):
    """Keeps the resolution: ReLU → conv → ReLU → conv, identity skip (the discriminator's last block)."""

    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Apply the block."""
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype}
        h = SpectralConv(x.shape[-1], name="conv_0", **settings)(nn.relu(x))
        return x + SpectralConv(x.shape[-1], name="conv_1", **settings)(nn.relu(h))


class AdaptiveResidualBlock(nn.Module):
    """Keeps the resolution: AdaIN → ReLU → conv → AdaIN → ReLU → conv, identity skip (the generator's middle)."""

    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], normalize_0: Normalize, normalize_1: Normalize
    ) -> Float[Array, "B H W C"]:
        """Apply the block; `normalize_0` and `normalize_1` are the person's AdaINs of C channels each."""
        settings = {
            "use_bias": False,
            "spectral_norm": self.spectral_norm,
            "dtype": self.dtype,
            "output_dtype": jnp.float32,
        }
        h = SpectralConv(x.shape[-1], name="conv_0", **settings)(nn.relu(normalize_0(x)))
        return x + SpectralConv(x.shape[-1], name="conv_1", **settings)(nn.relu(normalize_1(h)))


class UpBlock(nn.Module):
    """Doubles the resolution: AdaIN → ReLU → nearest x2 → conv → AdaIN → ReLU → conv, beside nearest x2 → conv1x1."""

    features: int
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W _"], normalize_0: Normalize, normalize_1: Normalize
    ) -> Float[Array, "B 2*H 2*W {self.features}"]:
        """Apply the block; `normalize_0` takes the input's channels, `normalize_1` the output's."""
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype, "output_dtype": jnp.float32}
        h = SpectralConv(self.features, use_bias=False, resample="after_upsample", name="conv_0", **settings)(
            nn.relu(normalize_0(x))
        )
        h = SpectralConv(self.features, use_bias=False, name="conv_1", **settings)(nn.relu(normalize_1(h)))
        return h + SpectralConv(self.features, size=1, resample="after_upsample", name="skip", **settings)(x)
