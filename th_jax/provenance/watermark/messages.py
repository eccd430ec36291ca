"""Watermark messages: the first bits of a digest, which identify the avatar that generated an image."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from th_jax.provenance.watermark.embed import Mark, embed, make_mark
from th_jax.provenance.watermark.layout import SMALLEST, Kind, hexadecimal, layout_of

_TOGETHER = 8
"""Number of frames marked at once in a stream."""


class Marking(NamedTuple):
    """A mark, and its message as in records."""

    mark: Mark
    message: str
    """Message in hexadecimal."""


def message_of(digest: str, *, bits: int) -> int:
    """Return the first bits of a digest as an integer.

    The number of bits is a multiple of 4.

    Raises:
        ValueError: if the digest is too short or not hexadecimal.
    """
    if 4 * len(digest) < bits:
        raise ValueError(f"a message of {bits} bits needs a digest of {bits // 4} hexadecimal digits, got {digest!r}")
    return int(digest[: bits // 4], 16)


def marking_of(digest: str, *, size: int, kind: Kind) -> Marking | None:
    """Make the mark of a digest for frames of `size` x `size` pixels; None below 64 px, where no mark fits.

    Raises:
        ValueError: as `message_of`.
    """
    if size < SMALLEST:
        return None
    bits = layout_of(size, kind).bits
    message = message_of(digest, bits=bits)
    return Marking(make_mark(message, size=size, kind=kind), hexadecimal(message, bits=bits))


def mark_frames(frames: Iterable[UInt8[np.ndarray, "H W 3"]], mark: Mark) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Mark a stream of frames in their central square, for frames that were not marked when they were generated.

    They have one size, whose shorter side is the size that the mark was made for, and are marked in chunks.
    """
    waiting = iter(frames)
    some = list(itertools.islice(waiting, _TOGETHER))
    # Stills do not need the program for videos, nor does a video's last frame need the one for stills.
    together = 1 if len(some) == 1 else _TOGETHER
    while some:
        stacked = np.stack(some + some[-1:] * (together - len(some)))
        height, width = stacked.shape[1:3]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = (slice(None), slice(top, top + side), slice(left, left + side))
        stacked[square] = np.asarray(_embedded(stacked[square], mark))
        yield from stacked[: len(some)]
        some = list(itertools.islice(waiting, together))


@jax.jit
def _embedded(frames: UInt8[jax.Array, "B S S 3"], mark: Mark) -> UInt8[jax.Array, "B S S 3"]:
    return embed(frames, mark)
