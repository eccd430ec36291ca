"""Adds a mark to frames on the device: a pure function of frames and chips, for use inside the generation program.

Additive spread spectrum (Cox et al. 1997) in brightness. Each chip is a soft bump; its height follows the activity of the
frame around it (after the noise visibility of Voloshynovskiy et al., Information Hiding 1999), so that smooth skin gets less
than hair; and the whole is scaled so that no frame's PSNR is below the wanted one.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, UInt8

from th_jax.images import to_byte_scale
from th_jax.types import AnyArray
from th_jax.watermark.layout import PUBLIC_KEY, SMALL, Kind, chips_of, layout_of

_LUMA = (0.299, 0.587, 0.114)

_EVEN, _EVEN_SMALL = 64.0, 256.0
"""Grey levels, for chips of one pixel: places of far less activity all get the same. The narrower chips are, the sooner
compression drops them from quiet places, so that these must not get too little; in small frames, they get nearly as much."""

_SLACK = 0.99
"""Share of the wanted amplitude that is tried when rounding to whole grey levels has made a mark too strong."""


class Mark(NamedTuple):
    """What is embedded; arrays alone, so that another message or strength needs no other program."""

    chips: Float[AnyArray, "N N"]
    """1 or -1, or 0 for no mark at all."""
    psnr: Float[AnyArray, ""]
    """The least peak signal-to-noise ratio of a marked frame, in dB."""


def make_mark(message: int, *, size: int, kind: Kind, key: bytes = PUBLIC_KEY, psnr: float | None = None) -> Mark:
    """The mark of a message, for frames of `size` x `size` pixels.

    Args:
        message: 0 to 2^bits - 1, with the bits of `layout_of(size, kind)`.
        size: side of the frames, in pixels.
        kind: whether the frames are stills or a film's; smaller ones than 192 px are marked equally.
        key: only who has it can find and read the mark. The default is public.
        psnr: the least of a marked frame, in dB; by default 42 from 192 px on, 40 from 96 px on, 37 below.

    Raises:
        ValueError: for frames below 64 px, a message that does not fit, or a PSNR outside of 20 to 60 dB.
    """
    layout = layout_of(size, kind)
    if psnr is None:
        psnr = default_psnr(size)
    if not 20 <= psnr <= 60:
        raise ValueError(f"psnr must be 20 to 60 dB, but is {psnr:g}: below, a mark is seen; above, it is rounded away")
    return Mark(chips_of(message, layout=layout, key=key), np.array(psnr, np.float32))


def default_psnr(size: int) -> float:
    """The least PSNR of marked frames of `size` x `size` pixels unless told otherwise, in dB: smaller ones need more."""
    return 42.0 if size >= 192 else 40.0 if size >= 96 else 37.0


def embed(frames: UInt8[Array, "B S S 3"], mark: Mark) -> UInt8[Array, "B S S 3"]:
    """The frames with the mark; RGB in 0..255. Each frame's PSNR is at least the mark's, rounding included.

    The mark's message is equal in all frames. For use inside somebody's jit, vmap or shard_map.
    """
    colors = frames.astype(jnp.float32)
    pattern = _whole_levels(_pattern(colors @ jnp.asarray(_LUMA, jnp.float32), mark), mark.psnr)
    return jnp.clip(colors + pattern[..., None], 0.0, 255.0).astype(jnp.uint8)


def embed_network_range(images: Float[Array, "B S S 3"], mark: Mark) -> Float[Array, "B S S 3"]:
    """As `embed`, for network images in [-1, 1]: nothing is rounded, so that it is differentiable almost everywhere.

    Rounding to uint8 later adds noise of its own: at 42 dB it costs 0.2 dB of the PSNR.
    """
    pattern = _pattern(to_byte_scale(images) @ jnp.asarray(_LUMA, jnp.float32), mark)
    return jnp.clip(images + pattern[..., None].astype(images.dtype) / 127.5, -1.0, 1.0)


def _pattern(luma: Float[Array, "B S S"], mark: Mark) -> Float[Array, "B S S"]:
    """What is added, in grey levels, of the wanted power in each frame."""
    size, count = luma.shape[-1], mark.chips.shape[-1]
    bumps = jnp.asarray(_bumps(size, count))
    even = _EVEN_SMALL if count == SMALL.chips else _EVEN
    heights = jnp.asarray(mark.chips)[None] * jnp.sqrt(_activity(luma, count) + even * count / size)
    pattern = jnp.einsum("hn,bnm,wm->bhw", bumps, heights, bumps)
    rms = jnp.sqrt(_power(pattern))
    return pattern * (_amplitude(mark.psnr) / jnp.maximum(rms, 1e-6))


def _activity(luma: Float[Array, "B S S"], count: int) -> Float[Array, "B N N"]:
    """Standard deviation in the three by three chips around each, in grey levels."""
    around = jnp.asarray(_surroundings(luma.shape[-1], count))
    # Grey levels near 128 become small numbers: the difference of two large squares would lose digits.
    centred = luma - 128.0
    mean, square = (jnp.einsum("nh,bhw,mw->bnm", around, values, around) for values in (centred, centred**2))
    return jnp.sqrt(jnp.maximum(square - mean**2, 0.0))


def _whole_levels(pattern: Float[Array, "B S S"], psnr: Float[AnyArray, ""]) -> Float[Array, "B S S"]:
    """The pattern in whole grey levels, of at most the wanted power.

    Rounding can add power. Then a slightly weaker pattern is rounded; and if that is not enough, which small amplitudes can
    bring about, rounding towards zero cannot add any.
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
    """Root mean square of the difference, in grey levels."""
    # A hair below: the sum over a frame in float32 is not exact.
    return 0.9999 * 255.0 * 10.0 ** (-jnp.asarray(psnr) / 20.0)


@functools.lru_cache(maxsize=16)
def _bumps(size: int, count: int) -> Float32[np.ndarray, "S N"]:
    """A chip's height at each pixel along one side: a tent that ends in the middles of its neighbours."""
    return np.maximum(0.0, 1.0 - _distance(size, count)).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _surroundings(size: int, count: int) -> Float32[np.ndarray, "N S"]:
    """Weights of the pixels around each chip along one side."""
    weights = np.maximum(0.0, 1.5 - _distance(size, count)).T
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _distance(size: int, count: int) -> np.ndarray:
    """From each pixel to each chip along one side, in chips."""
    return np.abs(((np.arange(size) + 0.5) * count / size - 0.5)[:, None] - np.arange(count))
