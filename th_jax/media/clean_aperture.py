"""Reads which part of its frames a MOV or MP4 file wants seen, which PyAV does not tell (ISO/IEC 14496-12, 12.1.4)."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MOST_BOXES = 4096
"""Of one box. A film has a few dozen; the rest of a longer list is not looked at."""

_ENTRY = 78
"""Bytes of a video's description before the boxes in it."""


class Aperture(NamedTuple):
    """A part of a stored frame, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def enlarged(self, size: tuple[int, int], other: tuple[int, int]) -> "Aperture":
        """The same part of the frame after it was resized from one size (width, height) to the other."""
        x, y = Fraction(other[0], size[0]), Fraction(other[1], size[1])
        left, top = round(self.left * x), round(self.top * y)
        return Aperture(
            left, top, round((self.left + self.width) * x) - left, round((self.top + self.height) * y) - top
        )


def clean_aperture(path: Path, track: int, size: tuple[int, int]) -> Aperture | None:
    """What is to be seen of the frames of a track.

    Args:
        path: a file of any kind.
        track: the number that the file gives it.
        size: width and height of its stored frames.

    Returns:
        None if nothing is declared, or all of the frame, or what no frame of this size can show.
    """
    with path.open("rb") as file:
        end = path.stat().st_size
        for trak in _boxes(file, [(0, end)], b"moov", b"trak"):
            if _track_number(file, trak) != track:
                continue
            for start, stop in _boxes(file, [trak], b"mdia", b"minf", b"stbl", b"stsd"):
                for _, (entry, entry_end) in _inside(file, start + 8, stop):
                    for place, _ in _boxes(file, [(entry + _ENTRY, entry_end)], b"clap"):
                        file.seek(place)
                        return _aperture(file.read(32), size)
    return None


def _aperture(box: bytes, size: tuple[int, int]) -> Aperture | None:
    if len(box) < 32:
        return None
    parts = struct.unpack(">2I2I4i", box)
    if 0 in parts[1::2]:
        return None
    width, height, right, down = (Fraction(parts[i], parts[i + 1]) for i in (0, 2, 4, 6))
    left, top = (size[0] - width) / 2 + right, (size[1] - height) / 2 + down
    seen = Aperture(round(left), round(top), round(width), round(height))
    fits = seen.left >= 0 and seen.top >= 0 and seen.left + seen.width <= size[0] and seen.top + seen.height <= size[1]
    if not fits or seen.width < 1 or seen.height < 1 or seen[2:] == size:
        return None
    return seen


def _track_number(file: BinaryIO, trak: tuple[int, int]) -> int | None:
    for start, _ in _boxes(file, [trak], b"tkhd"):
        file.seek(start)
        head = file.read(24)
        place = 20 if head[:1] == b"\1" else 12
        return int.from_bytes(head[place : place + 4])
    return None


def _boxes(file: BinaryIO, spans: list[tuple[int, int]], *kinds: bytes) -> list[tuple[int, int]]:
    """Where the contents of all boxes stand that are reached through boxes of these kinds."""
    for kind in kinds:
        spans = [inner for span in spans for found, inner in _inside(file, *span) if found == kind]
    return spans


def _inside(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The boxes between two places: their kinds, and where their contents stand."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        head = file.read(16)
        length, header = int.from_bytes(head[:4]), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16]), 16
        elif length == 0:  # up to the end
            length = end - start
        if length < header:
            return
        yield head[4:8], (start + header, min(start + length, end))
        start += length
