"""Spectrally normalised layers, instance norms and self-attention (paper, section 3.4): the letters of all four networks.

Spectral norm in this project never iterates in a forward pass. A layer reads u and v from the collection
"spectral_stats", holds them constant in the gradient, and divides its kernel by sigma = vᵀ M u, through which the gradient
flows; `th_jax.models.spectral.power_iterate` moves u and v once for each parameter update. Flax's own `init` makes both fit
the kernel, so that a module that was just made can be applied. So the real and the fake half of
a discriminator update share one sigma, the discriminator does not move while the generator's objective is evaluated, and
applying a network is a pure function without mutable collections.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.convolution import convolve, convolve_then_pool, upsample_then_convolve
from th_jax.models import starts
from th_jax.models.spectral import SPECTRAL_STATS, fitting_vectors, normalized_kernel

INSTANCE_NORM_EPS = 1e-4
"""docs/paper-map.md: what the paper's authors used later; the paper does not say."""


_CONVOLUTIONS = {"same": convolve, "then_pool": convolve_then_pool, "after_upsample": upsample_then_convolve}


class SpectralConv(nn.Module):
    """Convolution with zero padding, its kernel divided by its largest singular value.

    `resample` is "same", "then_pool" (average-pool the result by 2) or "after_upsample" (upsample the input by 2 first).
    Products are of `dtype`; sums leave in `output_dtype`, by default the same.
    """

    features: int
    size: int = 3
    use_bias: bool = True
    resample: str = "same"
    spectral_norm: bool = True
    dtype: Any = jnp.float32
    output_dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B _ _ _"]) -> Float[Array, "B _ _ {self.features}"]:
        """Convolve; the kernel is [size, size, channels, features] in float32, the arithmetic in `dtype`."""
        kernel = self.param("kernel", starts.KERNEL, (self.size, self.size, x.shape[-1], self.features))
        if self.spectral_norm:
            kernel = _spectrally_normalized(self, kernel)
        out = self.output_dtype or self.dtype
        y = _CONVOLUTIONS[self.resample](x.astype(self.dtype), kernel.astype(self.dtype), out=out)
        if self.use_bias:
            bias = self.param("bias", starts.BIAS, (self.features,))
            y = y + bias[None, None, None, :].astype(y.dtype)
        return y


class SpectralDense(nn.Module):
    """Dense layer with a bias, its kernel divided by its largest singular value."""

    features: int
    bias_start: starts.Start = starts.BIAS
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B _"]) -> Float[Array, "B {self.features}"]:
        """Multiply by the kernel [channels, features], add the bias."""
        kernel = self.param("kernel", starts.KERNEL, (x.shape[-1], self.features))
        if self.spectral_norm:
            kernel = _spectrally_normalized(self, kernel)
        bias = self.param("bias", self.bias_start, (self.features,))
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias[None, :].astype(self.dtype)


def _spectrally_normalized(
    module: nn.Module, kernel: Float[Array, "*inputs features"]
) -> Float[Array, "*inputs features"]:
    @functools.cache
    def fitting() -> tuple[Array, Array]:
        """Only while there are none: random vectors would give a sigma far below the kernel's, and enormous outputs."""
        return fitting_vectors(kernel, starts.direction(module.make_rng("params"), kernel.shape[-1:]))

    u = module.variable(SPECTRAL_STATS, "u", lambda: fitting()[0])
    v = module.variable(SPECTRAL_STATS, "v", lambda: fitting()[1])
    return normalized_kernel(kernel, u.value, v.value)


def instance_norm(
    x: Float[Array, "B H W C"], scale: Float[Array, "_ C"], shift: Float[Array, "_ C"]
) -> Float[Array, "B H W C"]:
    """Zero mean and unit variance over each picture's positions, then a scale and a shift a channel.

    All of it in float32 whatever the input's dtype, and rounded to that dtype once.
    """
    wide = x.astype(jnp.float32)
    mean = wide.mean((1, 2), keepdims=True)
    centered = wide - mean
    variance = jnp.square(centered).mean((1, 2), keepdims=True)
    gain = scale[:, None, None, :] * jax.lax.rsqrt(variance + INSTANCE_NORM_EPS)
    return (centered * gain + shift[:, None, None, :]).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Instance norm with a learned scale and bias a channel (the generator's downsampling part)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalise, scale, shift."""
        scale = self.param("scale", starts.SCALE, (x.shape[-1],))
        bias = self.param("bias", starts.BIAS, (x.shape[-1],))
        return instance_norm(x, scale[None, :], bias[None, :])


def adaptive_instance_norm(
    x: Float[Array, "B H W C"], scale: Float[Array, "B C"], shift: Float[Array, "B C"]
) -> Float[Array, "B H W C"]:
    """AdaIN: instance norm whose scale and shift come from the identity embedding (paper, section 3.4)."""
    return instance_norm(x, scale.astype(jnp.float32), shift.astype(jnp.float32))


class SelfAttention(nn.Module):
    """Self-attention of SAGAN in BigGAN's form: keys and values at half the resolution, added with a weight gamma."""

    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Attend over all positions; at the start gamma is zero and the input passes unchanged. Softmax in float32."""
        batch, height, width, channels = x.shape

        def project(name: str, features: int, picture: Array) -> Array:
            return SpectralConv(
                features,
                size=1,
                use_bias=False,
                spectral_norm=self.spectral_norm,
                dtype=self.dtype,
                output_dtype=x.dtype,
                name=name,
            )(picture)

        query = project("query", channels // 8, x).reshape(batch, height * width, -1)
        key = _halve(project("key", channels // 8, x)).reshape(batch, height * width // 4, -1)
        value = _halve(project("value", channels // 2, x)).reshape(batch, height * width // 4, -1)
        affinity = jnp.einsum("bqc,bkc->bqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(affinity, axis=-1).astype(value.dtype)
        attended = jnp.einsum("bqk,bkc->bqc", weights, value).reshape(batch, height, width, -1)
        gamma = self.param("gamma", starts.GAMMA, ())
        return x + gamma.astype(x.dtype) * project("out", channels, attended)


def _halve(x: Float[Array, "B H W C"]) -> Float[Array, "B H/2 W/2 C"]:
    return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))


def global_pool(x: Float[Array, "B H W C"], *, pool: str, pool_order: str) -> Float[Array, "B C"]:
    """The last step of E and D: pooling over all positions and ReLU, in float32 (paper, section 4).

    Args:
        x: activations of the last block.
        pool: "sum" (the paper) or "mean".
        pool_order: "sum_relu" pools first (the paper), "relu_sum" last (what its authors published later).
    """
    wide = x.astype(jnp.float32)
    if pool_order == "relu_sum":
        wide = nn.relu(wide)
    pooled = wide.sum((1, 2)) if pool == "sum" else wide.mean((1, 2))
    return nn.relu(pooled)
