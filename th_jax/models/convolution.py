"""3x3 convolutions in their cheapest forms, alone or fused with an adjacent 2x resampling.

A convolution followed by 2x2 average pooling is a 4x4 convolution with stride 2. A convolution that follows nearest-neighbor
upsampling is, for each of the four output phases, a 2x2 convolution at the low resolution, or a 4x4 convolution of the input
with zeros between its positions. All these kernels are the 3x3 kernel summed with itself shifted by one (its convolution with
a 2x2 box), zero padding included; the results are equal up to rounding. On two CPU cores the fused forms take about half the
time, forward and backward, if the batch has at least four times as many positions as the kernel has channels.

If JAX may round products of float32 numbers to bfloat16 (`jax_default_matmul_precision="bfloat16"`), a CPU that multiplies
bfloat16 (AVX512-BF16 or AMX) computes wide convolutions from such products, accumulated in float32; with the library of
`th_jax.models.onednn`, all of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.models import onednn
from th_jax.processor import processor_has

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], *, out: Any) -> Float[Array, "B H W F"]:
    """Convolve with stride 1 and zero padding that keeps the size; `out` is the dtype of the result.

    On CPUs, and only there, 3x3 convolutions are rewritten where this is faster (`_rewritten`).
    """
    rewritten = _rewritten(x, kernel, out)
    if rewritten is None:
        return _convolve(x, kernel, (1, 1), "SAME", out)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: rewritten(x, kernel, out),
        default=lambda x, kernel: _convolve(x, kernel, (1, 1), "SAME", out),
    )


def convolve_then_pool(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], *, out: Any
) -> Float[Array, "B H/2 W/2 F"]:
    """Compute `average_pool(convolve(x, kernel))` for k = 1 or 3."""
    if kernel.shape[0] == 1:  # pointwise: it commutes with pooling, which leaves a quarter of the positions
        return convolve(average_pool(x), kernel, out=out)
    if not _worth_fusing(x.shape[0] * x.shape[1] * x.shape[2], kernel):
        return average_pool(convolve(x, kernel, out=out))

    def fused(x: Array, kernel: Array) -> Array:
        return _convolve(x, sum_with_shifts(kernel) * 0.25, (2, 2), ((1, 1), (1, 1)), out)

    if _by_onednn(x, kernel, out):
        forms = {"cpu": lambda x, kernel: onednn.convolve(x, sum_with_shifts(kernel) * 0.25, 2, 1)}
    elif _pays_in_bfloat16(x.shape, kernel, narrowest=256):
        forms = {"cpu": lambda x, kernel: average_pool(_as_winograd(x, kernel, out))}
    else:
        return fused(x, kernel)
    return jax.lax.platform_dependent(x, kernel, **forms, default=fused)


def upsample_then_convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], *, out: Any
) -> Float[Array, "B 2*H 2*W F"]:
    """Compute `convolve(upsample(x), kernel)` for k = 1 or 3."""
    if kernel.shape[0] == 1:
        return upsample(convolve(x, kernel, out=out))
    batch, height, width, _ = x.shape
    if not _worth_fusing(4 * batch * height * width, kernel):
        return convolve(upsample(x), kernel, out=out)
    forms = {"tpu": lambda x, kernel: _convolve_dilated(x, kernel, out)}
    if _by_onednn(x, kernel, out):
        forms["cpu"] = lambda x, kernel: _from_phases(x, onednn.convolve(x, phases(kernel), 1, 1))
    elif _pays_in_bfloat16((batch, 2 * height, 2 * width, kernel.shape[2]), kernel, narrowest=128):
        forms["cpu"] = lambda x, kernel: _as_winograd(upsample(x), kernel, out)
    return jax.lax.platform_dependent(x, kernel, **forms, default=lambda x, kernel: _convolve_phases(x, kernel, out))


def _convolve_dilated(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"], out: Any) -> Array:
    """Compute the upsampled result by a 4x4 convolution of the input with zeros between its positions.

    A TPU's convolution skips the zeros. To interleave four phases, it copies slices hundreds of times: the same layer then
    compiles for three times as long and moves twice the bytes (docs/accelerators.md).
    """
    return jax.lax.conv_general_dilated(
        x,
        sum_with_shifts(kernel),
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=_DIMENSIONS,
        preferred_element_type=out,
    )


def _convolve_phases(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"], out: Any) -> Array:
    """Compute all four phases of the upsampled result by one convolution at the low resolution."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _from_phases(x, _convolve(padded, phases(kernel), (1, 1), "VALID", out))


def phases(kernel: Float[Array, "3 3 C F"]) -> Float[Array, "2 2 C 4*F"]:
    """Return the kernels of the four phases of an upsampled result, row by row, side by side in the last axis."""
    # The fused kernel's rows alternate between the two output phases: [tap, phase] in each direction.
    inputs, features = kernel.shape[2:]
    taps_and_phases = sum_with_shifts(kernel).reshape(2, 2, 2, 2, inputs, features)
    return taps_and_phases.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, inputs, 4 * features)


def _from_phases(x: Float[Array, "B H W C"], windows: Float[Array, "B H+1 W+1 G"]) -> Float[Array, "B 2*H 2*W _"]:
    batch, height, width, _ = x.shape
    features = windows.shape[3] // 4
    windows = windows.reshape(batch, height + 1, width + 1, 2, 2, features)
    rows = [jnp.stack([windows[:, r : r + height, c : c + width, r, c] for c in range(2)], axis=3) for r in range(2)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H/2 W/2 C"]:
    """Average each 2x2 square of positions."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def upsample(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Upsample by two with nearest neighbors."""
    batch, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return wide.reshape(batch, height * 2, width * 2, channels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, kernel: Array, strides: tuple[int, int], padding: Any, out: Any) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_DIMENSIONS, preferred_element_type=out
    )


def _convolve_forward(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Any, out: Any
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, strides, padding, out), (x, kernel)


def _convolve_backward(
    strides: tuple[int, int], padding: Any, out: Any, operands: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    """Compute the same convolutions as XLA's own gradients, but on a CPU with axes in the order of the forward convolution.

    With any other order, XLA's CPU compiler uses its fast convolution only outside of loops and branches: a step of
    fine-tuning within a scan took 15 times as long. The GPU and TPU compilers recognize gradients by the order of their axes,
    so it is kept there.
    """

    def plain(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        def forward(x: Array, kernel: Array) -> Array:
            return jax.lax.conv_general_dilated(
                x, kernel, strides, padding, dimension_numbers=_DIMENSIONS, preferred_element_type=out
            )

        gradients: tuple[Array, Array] = jax.vjp(forward, x, kernel)[1](cotangent)
        return gradients

    def ordered(x: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        taps, before = kernel.shape[:2], [low for low, _ in _padding_of(padding, kernel)]
        spread = [(size - 1) * stride + 1 for size, stride in zip(cotangent.shape[1:3], strides, strict=True)]
        sides = list(zip(taps, before, x.shape[1:3], spread, strict=True))
        of_input = jax.lax.conv_general_dilated(
            cotangent,
            jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
            (1, 1),
            [(tap - 1 - low, size + low - width) for tap, low, size, width in sides],
            lhs_dilation=strides,
            dimension_numbers=_DIMENSIONS,
        )
        of_kernel = jax.lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            cotangent.transpose(1, 2, 0, 3),
            (1, 1),
            [(low, width + tap - 1 - size - low) for tap, low, size, width in sides],
            rhs_dilation=strides,
            dimension_numbers=_DIMENSIONS,
        )
        return of_input, of_kernel.transpose(1, 2, 0, 3)

    operands_and_cotangent = (*operands, cotangent)
    if {array.dtype for array in operands_and_cotangent} != {jnp.dtype("float32")}:
        return plain(*operands_and_cotangent)
    gradients: tuple[Array, Array] = jax.lax.platform_dependent(*operands_and_cotangent, cpu=ordered, default=plain)
    return gradients


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _padding_of(padding: Any, kernel: Array) -> list[tuple[int, int]]:
    if padding == "SAME":  # with stride 1 and an odd kernel
        return [(taps // 2, taps // 2) for taps in kernel.shape[:2]]
    return [(0, 0), (0, 0)] if padding == "VALID" else list(padding)


def _as_onednn(x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], out: Any) -> Float[Array, "B H W F"]:
    return onednn.convolve(x, kernel, 1, kernel.shape[0] // 2)


def _as_pointwise_product(
    x: Float[Array, "B H W C"], kernel: Float[Array, "1 1 C F"], out: Any
) -> Float[Array, "B H W F"]:
    return _product(x.reshape(-1, x.shape[3]), kernel[0, 0], out).reshape(*x.shape[:3], -1)


def _as_product(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"], out: Any) -> Float[Array, "B H W F"]:
    """Compute the convolution as one matrix product whose rows are the 3x3 neighborhoods of all positions."""
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    neighbourhoods = jnp.concatenate(shifts, axis=-1).reshape(batch * height * width, 9 * channels)
    y = _product(neighbourhoods, kernel.reshape(9 * channels, -1), out)
    return y.reshape(batch, height, width, -1)


def _as_spread_product(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"], out: Any
) -> Float[Array, "B H W F"]:
    """Compute the convolution as a matrix product that yields nine contributions per position, which are then added up."""
    batch, height, width, channels = x.shape
    taps = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    contributions = jnp.matmul(x.reshape(-1, channels), taps, preferred_element_type=out)
    contributions = contributions.reshape(batch, height, width, 3, 3, -1)
    padded = jnp.pad(contributions, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0)))
    shifted = [padded[:, r : r + height, c : c + width, r, c] for r in range(3) for c in range(3)]
    return functools.reduce(jnp.add, shifted)


def _as_winograd(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"], out: Any) -> Float[Array, "B H W F"]:
    """Compute the convolution by Winograd's F(2x2, 3x3): 16 matrix products use 4 multiplications per value instead of 9.

    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015. The sixteen products are separate, because XLA's
    batched product is slower than the convolution.
    """
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = _winograd_input([padded[:, i : i + height : 2] for i in range(4)])
    tiles = [_winograd_input([row[:, :, j : j + width : 2] for j in range(4)]) for row in rows]
    taps = [_winograd_kernel(list(row)) for row in _winograd_kernel(list(kernel))]
    products = [[_product(tiles[i][j].reshape(-1, channels), taps[i][j], out) for j in range(4)] for i in range(4)]
    halves = [_winograd_output(list(column)) for column in zip(*products, strict=True)]
    quarters = [_winograd_output([column[i] for column in halves]) for i in range(2)]
    shape = (batch, height // 2, width // 2, kernel.shape[3])
    lines = [jnp.stack([quarter.reshape(shape) for quarter in row], axis=3) for row in quarters]
    return jnp.stack(lines, axis=2).reshape(batch, height, width, -1)


def _product(a: Float[Array, "n C"], b: Float[Array, "C F"], out: Any) -> Float[Array, "n F"]:
    """Multiply matrices, rounding them to bfloat16 first where this is allowed and fast."""
    if _bfloat16_products() and a.dtype == b.dtype == out == jnp.float32:
        return _bfloat16_product(a, b)
    return jnp.matmul(a, b, preferred_element_type=out)


@jax.custom_vjp
def _bfloat16_product(a: Float[Array, "n C"], b: Float[Array, "C F"]) -> Float[Array, "n F"]:
    return _bfloat16_product_forward(a, b)[0]


def _bfloat16_product_forward(
    a: Float[Array, "n C"], b: Float[Array, "C F"]
) -> tuple[Float[Array, "n F"], tuple[Array, Array]]:
    # The barriers keep XLA from fusing the rounding into the product, which would prevent its fast product.
    a, b = jax.lax.optimization_barrier((a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)))
    return jnp.matmul(a, b, preferred_element_type=jnp.float32), (a, b)


def _bfloat16_product_backward(
    operands: tuple[Array, Array], cotangent: Float[Array, "n F"]
) -> tuple[Float[Array, "n C"], Float[Array, "C F"]]:
    a, b = operands
    rounded = jax.lax.optimization_barrier(cotangent.astype(jnp.bfloat16))
    of_a = jnp.matmul(rounded, b.T, preferred_element_type=jnp.float32)
    return of_a, jnp.matmul(a.T, rounded, preferred_element_type=jnp.float32)


_bfloat16_product.defvjp(_bfloat16_product_forward, _bfloat16_product_backward)


def _bfloat16_products() -> bool:
    """Return whether float32 products on a CPU may be rounded to bfloat16 and would be faster that way."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return precision == "bfloat16" and _multiplies_bfloat16()


def _multiplies_bfloat16() -> bool:
    """Return whether this machine's processor multiplies bfloat16 (AVX512-BF16; every processor with AMX has it too)."""
    return processor_has("avx512_bf16")


def _by_onednn(x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], out: Any) -> bool:
    """Return whether oneDNN's library should compute a convolution."""
    return _bfloat16_products() and onednn.in_use() and x.dtype == kernel.dtype == out == jnp.float32


def _pays_in_bfloat16(shape: tuple[int, ...], kernel: Float[Array, "3 3 C F"], *, narrowest: int) -> bool:
    """Return whether Winograd's form with bfloat16 products is the fastest for this input shape; measured on two cores."""
    even = shape[1] % 2 == shape[2] % 2 == 0
    return _bfloat16_products() and even and kernel.dtype == jnp.float32 and min(kernel.shape[2:]) >= narrowest


def _winograd_input(d: list[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _winograd_kernel(g: list[Array]) -> list[Array]:
    return [g[0], (g[0] + g[1] + g[2]) * 0.5, (g[0] - g[1] + g[2]) * 0.5, g[2]]


def _winograd_output(m: list[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _rewritten(x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], out: Any) -> Callable[..., Array] | None:
    """Return the function by which a CPU should compute a convolution; None for XLA's. Bounds were measured on two cores.

    - In bfloat16 with oneDNN's library: its convolution, and a product for 1x1 kernels.
    - Few features: XLA's gradient of a kernel from 64 channels to 3 at 256x256 takes 190 ms on one core, as a product 9 ms.
    - Few positions: XLA's input gradient transposes the kernel, which for 512 channels at 8x8 takes four times as long as the
      arithmetic.
    - 128 channels or more, in bfloat16: Winograd's form takes 0.4 to 0.6 of the time of the best float32 form at 8x8 and
      above.
    - 64 channels or more, with 1024 positions or more, while the transformed tiles stay in the cache: Winograd's form takes
      0.5 to 0.7 of XLA's time. Below that it gains little, and every such layer adds compile time.
    """
    batch, height, width, inputs = x.shape
    features, positions = kernel.shape[3], batch * height * width
    narrow, wide = min(inputs, features), max(inputs, features)
    if _by_onednn(x, kernel, out):
        return _as_pointwise_product if kernel.shape[0] == 1 else _as_onednn
    if kernel.shape[0] != 3:
        return None
    if 9 * features <= inputs:
        return _as_spread_product
    if wide >= 128 and _pays_in_bfloat16(x.shape, kernel, narrowest=64):
        return _as_winograd
    if 4 * positions <= narrow:
        return _as_product
    pays = narrow >= 64 and positions >= 1024 and positions * wide <= 2**20
    if pays and x.dtype == jnp.float32 and height % 2 == width % 2 == 0:
        return _as_winograd
    return None


def _worth_fusing(positions: int, kernel: Float[Array, "3 3 C F"]) -> bool:
    # Summing the kernel costs memory traffic proportional to C x F; the savings are proportional to positions x C x F.
    return positions >= 4 * max(kernel.shape[2:])


def sum_with_shifts(kernel: Float[Array, "3 3 C F"]) -> Float[Array, "4 4 C F"]:
    """Return the kernel summed with itself shifted by one: its convolution with a 2x2 box."""
    wide = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = wide[:-1] + wide[1:]
    return rows[:, :-1] + rows[:, 1:]
