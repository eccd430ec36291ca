"""Layout and code of a mark: message sizes, the positions of chips, keyed signs, and the error-correcting code. NumPy only.

A mark is a square of chips, small soft bumps of brightness, up or down: direct-sequence spread spectrum (Cox, Kilian,
Leighton and Shamoon, IEEE Transactions on Image Processing 1997). Some chips are the same for every message, so that
the mark can be found. The others carry blocks of 16 bits in a random linear code, which is decoded to its most likely
word.
"""

import functools
import hashlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt16

Kind = Literal["still", "video"]

BLOCK_BITS = 16
"""Bits per block; a block is decoded against all of its 65,536 words at once."""

PUBLIC_KEY = b"th_jax"
"""Public key: anyone can read marks made with it, and could therefore also forge or attack them."""

_VERSION = b"th_jax watermark 1"


class Layout(NamedTuple):
    """A type of mark."""

    chips: int
    """Number of chips per row and column."""
    sync: int
    """Number of chips that are the same for all messages."""
    blocks: int
    """Number of blocks of 16 bits."""

    @property
    def bits(self) -> int:
        """Size of the message in bits."""
        return BLOCK_BITS * self.blocks


SMALL = Layout(chips=28, sync=312, blocks=1)
MEDIUM = Layout(chips=64, sync=1024, blocks=1)
STILL = Layout(chips=64, sync=1024, blocks=2)
VIDEO = Layout(chips=64, sync=1024, blocks=3)
LAYOUTS = (SMALL, MEDIUM, STILL, VIDEO)

SMALLEST = 64
"""Side of the smallest frame that can be marked, in pixels."""

_MEDIUM, _LARGE = 96, 192


class Carriers(NamedTuple):
    """The meaning of a layout's chips under a key. Read-only, because it is shared."""

    signs: Float32[np.ndarray, "N N"]
    """1 or -1: the chips of message 0."""
    block: Int[np.ndarray, "N N"]
    """Block that a chip belongs to; -1 for chips that are the same for all messages."""
    generator: UInt16[np.ndarray, "N N"]
    """A chip's sign flips if an odd number of these bits is set in its block's 16 bits of the message."""


def layout_of(size: int, kind: Kind) -> Layout:
    """Return the layout for frames of `size` x `size` pixels: 16 bits below 192 px; else 32 for a still, 48 for a video.

    Raises:
        ValueError: if the size is below 64 px, where a message does not fit.
    """
    if size < SMALLEST:
        raise ValueError(f"a watermark needs frames of at least {SMALLEST} x {SMALLEST} pixels, got {size} x {size}")
    if size < _MEDIUM:
        return SMALL
    if size < _LARGE:
        return MEDIUM
    return STILL if kind == "still" else VIDEO


def hexadecimal(message: int, *, bits: int) -> str:
    """Format a message of this many bits as in records and reports, with leading zeros."""
    return f"{message:0{-(-bits // 4)}x}"


@functools.lru_cache(maxsize=16)
def carriers_of(layout: Layout, *, key: bytes = PUBLIC_KEY) -> Carriers:
    """Compute the meaning of a layout's chips, which is the same on every machine: it only uses SHAKE-256 of the key.

    Layouts of one size share their signs and the chips that are the same for all messages.
    """
    count = layout.chips**2
    common = b"%d/%d" % (layout.chips, layout.sync)
    signs = 1.0 - 2.0 * (_stream(key, common + b"/signs", count) & 1)
    order = np.argsort(_stream(key, common + b"/order", 8 * count).view("<u8"), kind="stable")
    block = np.full(count, -1)
    block[order[layout.sync :]] = np.arange(count - layout.sync) % layout.blocks
    generator = _stream(key, common + b"/generators/%d" % layout.blocks, 2 * count).view("<u2").astype(np.uint16)
    generator[block < 0] = 0
    square = (layout.chips, layout.chips)
    made = Carriers(signs.astype(np.float32).reshape(square), block.reshape(square), generator.reshape(square))
    for array in made:
        array.flags.writeable = False
    return made


def chips_of(message: int, *, layout: Layout, key: bytes = PUBLIC_KEY) -> Float32[np.ndarray, "N N"]:
    """Return the signs of a message's chips, 1 or -1; the message's last 16 bits are in block 0.

    Raises:
        ValueError: if the message does not fit the layout's bits.
    """
    if not 0 <= message < 1 << layout.bits:
        raise ValueError(f"a message of {layout.bits} bits must be 0 to 2^{layout.bits} - 1, got {message}")
    signs, block, generator = carriers_of(layout, key=key)
    words = np.array([message >> BLOCK_BITS * index & 0xFFFF for index in range(layout.blocks)], np.uint16)
    odd = np.bitwise_count(words[np.maximum(block, 0)] & generator) & 1
    return np.where(odd == 1, -signs, signs)


class Word(NamedTuple):
    """The most likely message of a square of chips."""

    message: int
    total: float
    """Sum of the chip values, each multiplied by the sign that this message gives it."""
    doubt: float
    """Estimated chance that another message was embedded, if one was."""


def decode(values: Float32[np.ndarray, "N N"], *, layout: Layout, key: bytes = PUBLIC_KEY) -> Word:
    """Return the message with the largest sum: each block is compared with all of its words.

    The doubt assumes values of one amplitude, estimated from the chips that are the same for all messages, in Gaussian
    noise.
    """
    signs, block, generator = carriers_of(layout, key=key)
    signed = values * signs
    common = signed[block < 0]
    amplitude = max(float(common.mean()), 0.0)
    weight = amplitude / max(float(np.square(values).mean()) - amplitude**2, 1e-12)
    message, total, sure = 0, float(common.sum()), 1.0
    for index in range(layout.blocks):
        inside = block == index
        sums = np.bincount(generator[inside], weights=signed[inside], minlength=1 << BLOCK_BITS)
        likelihoods = _correlations(sums.astype(np.float32))
        best = int(np.argmax(likelihoods))
        message |= best << BLOCK_BITS * index
        total += float(likelihoods[best])
        # The best word's share in the sum over all of them: Bayes' rule for equally likely words.
        sure /= float(np.exp(weight * (likelihoods - likelihoods[best])).sum())
    return Word(message, total, 1.0 - sure)


def _correlations(sums: Float32[np.ndarray, " L"]) -> Float32[np.ndarray, " L"]:
    """For each index m, sum all entries, negated if their index has an odd number of bits in common with m.

    A fast Walsh-Hadamard transform: one bit of the index at a time, which then moves to the end.
    """
    for _ in range(BLOCK_BITS):
        clear, set_ = sums.reshape(2, -1)
        sums = np.stack([clear + set_, clear - set_], axis=-1).reshape(-1)
    return sums


def _stream(key: bytes, label: bytes, length: int) -> np.ndarray:
    """Generate bytes that depend only on the key and the label."""
    stream = hashlib.shake_256(b"%s/%d/%s/%s" % (_VERSION, len(key), key, label))
    return np.frombuffer(stream.digest(length), np.uint8)
