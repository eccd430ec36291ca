"""Embeds a mark in frames on the device: a pure function of frames and chips, for use inside the generation program.

Additive spread spectrum (Cox et al. 1997) in brightness. Each chip is a soft bump. Its height follows the local
activity of the frame (after the noise visibility of Voloshynovskiy et al., Information Hiding 1999), so that smooth
skin gets less than hair. The whole pattern is scaled so that every frame reaches the required PSNR.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, UInt8

from th_jax.provenance.watermark.layout import PUBLIC_KEY, SMALL, Kind, chips_of, layout_of
from th_jax.types import AnyArray

_LUMA = (0.299, 0.587, 0.114)

_EVEN, _EVEN_SMALL = 64.0, 256.0
"""Activity floor in gray levels, for chips of one pixel: much smoother places all get the same strength. Compression
drops narrow chips from smooth places sooner, so that these must not get too little; in small frames, they get nearly as
much."""

_SLACK = 0.99
"""Share of the required amplitude that is tried if rounding to integer gray levels made a mark too strong."""


class Mark(NamedTuple):
    """The embedded mark; arrays only, so that another message or strength needs no recompilation."""

    chips: Float[AnyArray, "N N"]
    """1 or -1, or 0 for no mark at all."""
    psnr: Float[AnyArray, ""]
    """Minimum peak signal-to-noise ratio of a marked frame, in dB."""


def make_mark(message: int, *, size: int, kind: Kind, key: bytes = PUBLIC_KEY, psnr: float | None = None) -> Mark:
    """Make the mark of a message, for frames of `size` x `size` pixels.

    Args:
        message: message as an integer from 0 to 2^bits - 1, with the bits of `layout_of(size, kind)`.
        size: side of the frames, in pixels.
        kind: whether the frames are stills or part of a video; below 192 px, both are marked alike.
        key: key that is needed to find and read the mark. The default is public.
        psnr: minimum PSNR of a marked frame, in dB; by default 42 from 192 px on, 40 from 96 px on, 37 below.

    Raises:
        ValueError: if frames are smaller than 64 px, the message does not fit, or the PSNR is outside 20 to 60 dB.
    """
    layout = layout_of(size, kind)
    if psnr is None:
        psnr = default_psnr(size)
    if not 20 <= psnr <= 60:
        raise ValueError(
            f"psnr must be 20 to 60 dB, got {psnr:g}: below, the watermark is visible; above, rounding removes it"
        )
    return Mark(chips_of(message, layout=layout, key=key), np.array(psnr, np.float32))


def default_psnr(size: int) -> float:
    """Return the default minimum PSNR of marked frames of `size` x `size` pixels, in dB: smaller ones need stronger marks."""
    return 42.0 if size >= 192 else 40.0 if size >= 96 else 37.0


def embed(frames: UInt8[Array, "B S S 3"], mark: Mark) -> UInt8[Array, "B S S 3"]:
    """Embed the mark in RGB frames in 0..255; each frame has at least the mark's PSNR, including rounding.

    All frames get the same message. Can be used inside a caller's jit, vmap or shard_map.
    """
    colors = frames.astype(jnp.float32)
    pattern = _whole_levels(_pattern(colors @ jnp.asarray(_LUMA, jnp.float32), mark), mark.psnr)
    return jnp.clip(colors + pattern[..., None], 0.0, 255.0).astype(jnp.uint8)


def _pattern(luma: Float[Array, "B S S"], mark: Mark) -> Float[Array, "B S S"]:
    """Compute the pattern to add, in gray levels, with the required power in each frame."""
    size, count = luma.shape[-1], mark.chips.shape[-1]
    bumps = jnp.asarray(_bumps(size, count))
    even = _EVEN_SMALL if count == SMALL.chips else _EVEN
    heights = jnp.asarray(mark.chips)[None] * jnp.sqrt(_activity(luma, count) + even * count / size)
    pattern = jnp.einsum("hn,bnm,wm->bhw", bumps, heights, bumps)
    rms = jnp.sqrt(_power(pattern))
    return pattern * (_amplitude(mark.psnr) / jnp.maximum(rms, 1e-6))


def _activity(luma: Float[Array, "B S S"], count: int) -> Float[Array, "B N N"]:
    """Compute the standard deviation in the 3 x 3 chips around each chip, in gray levels."""
    around = jnp.asarray(_surroundings(luma.shape[-1], count))
    # Centered at gray level 128, because the difference of two large squares would lose precision.
    centred = luma - 128.0
    mean, square = (jnp.einsum("nh,bhw,mw->bnm", around, values, around) for values in (centred, centred**2))
    return jnp.sqrt(jnp.maximum(square - mean**2, 0.0))


def _whole_levels(pattern: Float[Array, "B S S"], psnr: Float[AnyArray, ""]) -> Float[Array, "B S S"]:
    """Round the pattern to integer gray levels with at most the required power.

    Rounding can add power. In that case, a slightly weaker pattern is rounded. If that is not enough, which can happen
    for small amplitudes, rounding toward zero cannot add any.
    """
    wanted = _amplitude(psnr) ** 2
    nearest = jnp.rint(pattern)
    weaker = jnp.rint(pattern * (_SLACK * jnp.sqrt(wanted / jnp.maximum(_power(nearest), 1e-6))))
    return jnp.where(
        _power(nearest) <= wanted, nearest, jnp.where(_power(weaker) <= wanted, weaker, jnp.trunc(pattern))
    )


def _power(pattern: Float[Array, "B S S"]) -> Float[Array, "B 1 1"]:
    return jnp.mean(pattern**2, axis=(1, 2), keepdims=True)


def _amplitude(psnr: Float[AnyArray, ""]) -> Float[Array, ""]:
    """Return the root mean square of the difference, in gray levels."""
    # Slightly below, because float32 sums over a frame are not exact.
    return 0.9999 * 255.0 * 10.0 ** (-jnp.asarray(psnr) / 20.0)


@functools.lru_cache(maxsize=16)
def _bumps(size: int, count: int) -> Float32[np.ndarray, "S N"]:
    """Compute a chip's height at each pixel along one side: a tent that ends in the centers of its neighbors."""
    return np.maximum(0.0, 1.0 - _distance(size, count)).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _surroundings(size: int, count: int) -> Float32[np.ndarray, "N S"]:
    """Compute the weights of the pixels around each chip along one side."""
    weights = np.maximum(0.0, 1.5 - _distance(size, count)).T
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _distance(size: int, count: int) -> np.ndarray:
    """Compute the distance from each pixel to each chip along one side, in chips."""
    return np.abs(((np.arange(size) + 0.5) * count / size - 0.5)[:, None] - np.arange(count))
