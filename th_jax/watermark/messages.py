"""What a mark says: the first bits of a digest, by which the avatar that made a picture is recognised again."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from th_jax.watermark.embed import Mark, embed, make_mark
from th_jax.watermark.layout import PUBLIC_KEY, SMALLEST, Kind, hexadecimal, layout_of

_TOGETHER = 8
"""Frames that are marked at once where they come one by one."""


class Marking(NamedTuple):
    """A mark, and its message as records have it."""

    mark: Mark
    message: str
    """In hexadecimal."""


def message_of(digest: str, *, bits: int) -> int:
    """The first bits of a digest, as a number.

    Args:
        digest: in hexadecimal, of at least as many bits.
        bits: a multiple of 4.

    Raises:
        ValueError: for a digest that is too short, or not hexadecimal.
    """
    if 4 * len(digest) < bits:
        raise ValueError(
            f"a message of {bits} bits needs a digest of {bits // 4} hexadecimal digits, but {digest!r} came"
        )
    return int(digest[: bits // 4], 16)


def marking_of(digest: str, *, size: int, kind: Kind, key: bytes = PUBLIC_KEY) -> Marking | None:
    """The mark of a digest for frames of `size` x `size` pixels; None below 64 px, where no mark has room.

    Raises:
        ValueError: as `message_of`.
    """
    if size < SMALLEST:
        return None
    bits = layout_of(size, kind).bits
    message = message_of(digest, bits=bits)
    return Marking(make_mark(message, size=size, kind=kind, key=key), hexadecimal(message, bits=bits))


def mark_frames(frames: Iterable[UInt8[np.ndarray, "H W 3"]], mark: Mark) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames with the mark in the square in their middle, as a stream: for frames that were not marked as they were made.

    Args:
        frames: of one size, whose shorter side is the one that the mark was made for.
        mark: is put in at once into as many frames as fit a chunk.
    """
    waiting = iter(frames)
    some = list(itertools.islice(waiting, _TOGETHER))
    # A still needs no film's program, nor the last frame of a film a still's.
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
