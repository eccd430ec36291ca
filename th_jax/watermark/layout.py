"""Where a mark's chips lie and what each of them means: sizes of the message, keyed signs, and the code. numpy only.

A mark is a square of chips, small soft bumps of brightness, up or down: direct-sequence spread spectrum (Cox, Kilian,
Leighton and Shamoon, IEEE Transactions on Image Processing 1997). Some chips are the same for every message, so that the mark
can be found; the others carry blocks of 16 bits in a random linear code, which is decoded to its most likely word.
"""

import functools
import hashlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt16

Kind = Literal["still", "film"]

BLOCK_BITS = 16
"""A block is decoded against all of its 65,536 words at once."""

PUBLIC_KEY = b"th_jax"
"""Everybody can read marks made with it, and so could also make or attack them."""

_VERSION = b"th_jax watermark 1"


class Layout(NamedTuple):
    """A kind of mark."""

    chips: int
    """In a row and in a column."""
    sync: int
    """Chips that are equal for all messages."""
    blocks: int
    """Of 16 bits each."""

    @property
    def bits(self) -> int:
        """Size of the message."""
        return BLOCK_BITS * self.blocks


SMALL = Layout(chips=28, sync=312, blocks=1)
MEDIUM = Layout(chips=64, sync=1024, blocks=1)
STILL = Layout(chips=64, sync=1024, blocks=2)
FILM = Layout(chips=64, sync=1024, blocks=3)
LAYOUTS = (SMALL, MEDIUM, STILL, FILM)

SMALLEST = 64
"""Side of the smallest frame that can be marked, in pixels."""

_MEDIUM, _LARGE = 96, 192


class Carriers(NamedTuple):
    """What the chips of a layout mean under a key. Read-only, since it is shared."""

    signs: Float32[np.ndarray, "N N"]
    """1 or -1: the chips of message 0."""
    block: Int[np.ndarray, "N N"]
    """Which block a chip belongs to; -1 for those that are equal for all messages."""
    generator: UInt16[np.ndarray, "N N"]
    """A chip changes its sign if an odd number of these bits is set in its block's 16 bits of the message."""


def layout_of(size: int, kind: Kind) -> Layout:
    """How frames of `size` x `size` pixels are marked: 16 bits below 192 px; from there on 32 in a still, 48 in a film.

    Raises:
        ValueError: below 64 px, where a message has no room.
    """
    if size < SMALLEST:
        raise ValueError(
            f"a mark needs frames of at least {SMALLEST} x {SMALLEST} pixels, but these have {size} x {size}"
        )
    if size < _MEDIUM:
        return SMALL
    if size < _LARGE:
        return MEDIUM
    return STILL if kind == "still" else FILM


def hexadecimal(message: int, *, bits: int) -> str:
    """A message of so many bits as records and reports have it, leading zeros included."""
    return f"{message:0{-(-bits // 4)}x}"


@functools.lru_cache(maxsize=16)
def carriers_of(layout: Layout, *, key: bytes = PUBLIC_KEY) -> Carriers:
    """The chips' meaning; the same on every machine, being made of SHAKE-256 of the key alone.

    Layouts of one size have their signs and the chips that are equal for all messages in common.
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
    """The signs of a message's chips, 1 or -1; the message's last 16 bits are in block 0.

    Raises:
        ValueError: for a message that does not fit into the layout's bits.
    """
    if not 0 <= message < 1 << layout.bits:
        raise ValueError(f"a message of {layout.bits} bits must be 0 to 2^{layout.bits} - 1, but is {message}")
    signs, block, generator = carriers_of(layout, key=key)
    words = np.array([message >> BLOCK_BITS * index & 0xFFFF for index in range(layout.blocks)], np.uint16)
    odd = np.bitwise_count(words[np.maximum(block, 0)] & generator) & 1
    return np.where(odd == 1, -signs, signs)


class Word(NamedTuple):
    """The most likely message of a square of chips."""

    message: int
    total: float
    """Sum of the chips' values, each with the sign that this message would give it."""
    doubt: float
    """The chance that another message was embedded, if one was, estimated."""


def decode(values: Float32[np.ndarray, "N N"], *, layout: Layout, key: bytes = PUBLIC_KEY) -> Word:
    """The message of the greatest sum: each block is compared with all of its words.

    The doubt takes the values for one amplitude, which the chips that are equal for all messages tell, in Gaussian noise.
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
        # The share of the best word in the sum over all of them, by which Bayes' rule weighs words that are equally likely.
        sure /= float(np.exp(weight * (likelihoods - likelihoods[best])).sum())
    return Word(message, total, 1.0 - sure)


def _correlations(sums: Float32[np.ndarray, " L"]) -> Float32[np.ndarray, " L"]:
    """Entry m is the sum of all, those negated whose index has an odd number of bits in common with m.

    A fast Walsh-Hadamard transform: one bit of the index at a time, which then goes to its end.
    """
    for _ in range(BLOCK_BITS):
        clear, set_ = sums.reshape(2, -1)
        sums = np.stack([clear + set_, clear - set_], axis=-1).reshape(-1)
    return sums


def _stream(key: bytes, label: bytes, length: int) -> np.ndarray:
    """Bytes that only the key tells."""
    stream = hashlib.shake_256(b"%s/%d/%s/%s" % (_VERSION, len(key), key, label))
    return np.frombuffer(stream.digest(length), np.uint8)
