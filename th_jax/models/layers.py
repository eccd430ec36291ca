"""Building blocks of the four networks: spectrally normalized layers, instance norms, self-attention and residual blocks.

See the paper's section 3.4. A forward pass never runs a power iteration. A layer reads u and v from the collection
"spectral_stats", treats them as constants in the gradient, and divides its kernel by sigma = vᵀ M u, through which the
gradient flows; `th_jax.models.spectral.power_iterate` updates u and v once per parameter update. Flax's own `init` fits both
to the kernel, so that a newly created module can be applied. Therefore the real and the generated half of a discriminator
update share one sigma, the discriminator does not change while the generator's objective is evaluated, and applying a network
is a pure function without mutable collections.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from th_jax.models import init as starts
from th_jax.models.convolution import convolve, convolve_then_pool, upsample_then_convolve
from th_jax.models.spectral import SPECTRAL_STATS, fitting_vectors, normalized_kernel

INSTANCE_NORM_EPS = 1e-4
"""The value the paper's authors used later (docs/paper-map.md); the paper does not state one."""


_CONVOLUTIONS = {"same": convolve, "then_pool": convolve_then_pool, "after_upsample": upsample_then_convolve}


class SpectralConv(nn.Module):
    """Convolution with zero padding whose kernel is divided by its largest singular value.

    `resample` is "same", "then_pool" (average-pool the result by 2) or "after_upsample" (upsample the input by 2 first).
    Products are computed in `dtype`; the result is in `output_dtype`, by default the same.
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
    """Dense layer with a bias whose kernel is divided by its largest singular value."""

    features: int
    bias_start: starts.Start = starts.BIAS
    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B _"]) -> Float[Array, "B {self.features}"]:
        """Multiply by the kernel [channels, features] and add the bias."""
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
        """Fit u and v if they do not exist: random vectors would give far too small a sigma, and huge outputs."""
        return fitting_vectors(kernel, starts.direction(module.make_rng("params"), kernel.shape[-1:]))

    u = module.variable(SPECTRAL_STATS, "u", lambda: fitting()[0])
    v = module.variable(SPECTRAL_STATS, "v", lambda: fitting()[1])
    return normalized_kernel(kernel, u.value, v.value)


def instance_norm(
    x: Float[Array, "B H W C"], scale: Float[Array, "_ C"], shift: Float[Array, "_ C"]
) -> Float[Array, "B H W C"]:
    """Normalize each image's positions to zero mean and unit variance, then apply one scale and one shift per channel.

    Everything is computed in float32 regardless of the input's dtype, and rounded to that dtype once.
    """
    wide = x.astype(jnp.float32)
    mean = wide.mean((1, 2), keepdims=True)
    centered = wide - mean
    variance = jnp.square(centered).mean((1, 2), keepdims=True)
    gain = scale[:, None, None, :] * jax.lax.rsqrt(variance + INSTANCE_NORM_EPS)
    return (centered * gain + shift[:, None, None, :]).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Instance norm with a learned scale and bias per channel (the generator's downsampling part)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalize, scale and shift."""
        scale = self.param("scale", starts.SCALE, (x.shape[-1],))
        bias = self.param("bias", starts.BIAS, (x.shape[-1],))
        return instance_norm(x, scale[None, :], bias[None, :])


def adaptive_instance_norm(
    x: Float[Array, "B H W C"], scale: Float[Array, "B C"], shift: Float[Array, "B C"]
) -> Float[Array, "B H W C"]:
    """Apply AdaIN: instance norm whose scale and shift come from the identity embedding (paper, section 3.4)."""
    return instance_norm(x, scale.astype(jnp.float32), shift.astype(jnp.float32))


class SelfAttention(nn.Module):
    """Self-attention of SAGAN in BigGAN's form: keys and values at half the resolution, added with a weight gamma."""

    spectral_norm: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Attend over all positions, with softmax in float32; gamma is initially zero, so that the input passes unchanged."""
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
    """Apply the last step of E and D: pooling over all positions and ReLU, in float32 (paper, section 4).

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


Normalize = Callable[[Float[Array, "B H W C"]], Float[Array, "B H W C"]]
"""Adaptive instance norm with its scale and shift already taken from the person's parameters."""


class DownBlock(nn.Module):
    """Halves the resolution: [norm] → ReLU → conv → [norm] → ReLU → conv → pool, beside conv1x1 → pool.

    The first block of a network has no leading norm and no leading ReLU, because its input is an image.
    """

    features: int
    first: bool = False
    normalize: bool = False
    spectral_norm: bool = True
    dtype: Any = jnp.float32
    output_dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W _"]) -> Float[Array, "B H/2 W/2 {self.features}"]:
        """Apply the block. With norms, the 3x3 convolutions have no bias; the skip connection keeps its own."""
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
        """Apply the block; `normalize_0` has the input's number of channels, `normalize_1` the output's."""
        settings = {"spectral_norm": self.spectral_norm, "dtype": self.dtype, "output_dtype": jnp.float32}
        h = SpectralConv(self.features, use_bias=False, resample="after_upsample", name="conv_0", **settings)(
            nn.relu(normalize_0(x))
        )
        h = SpectralConv(self.features, use_bias=False, name="conv_1", **settings)(nn.relu(normalize_1(h)))
        return h + SpectralConv(self.features, size=1, resample="after_upsample", name="skip", **settings)(x)
