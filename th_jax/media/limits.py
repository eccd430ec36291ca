"""What a picture or a video may cost before it is refused, and the error that says why a file was refused."""

import re
import stat
from pathlib import Path
from typing import NamedTuple


class MediaError(ValueError):
    """A file is no picture or video that can be used; the message is one sentence for the person who named the file."""


class Limits(NamedTuple):
    """Bounds that are checked on declared sizes, before memory for them is allocated, and again while decoding."""

    file_bytes: int = 8 * 2**30
    pixels: int = 80_000_000
    """Of one picture or frame. Pillow's own bound of 179 million pixels stays in force above it."""
    frames: int = 2_000_000
    seconds: float = 8 * 3600.0


DEFAULT_LIMITS = Limits()
"""Generous: no photo of a phone and no video of a working day is refused."""

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_file(path: str | Path, limits: Limits) -> Path:
    """The path of a local regular file whose size is within limits.

    Raises:
        MediaError: for a URL, a missing, empty, unreadable or too large file, and for anything that is no regular file.
    """
    if _PROTOCOL.match(str(path)):
        raise MediaError(f"{path} looks like a URL: only local files are read, download it first")
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MediaError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # a loop of links, a forbidden folder, a name with a null byte
        raise MediaError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path} is a {'folder' if stat.S_ISDIR(status.st_mode) else 'device or pipe'}, not a file")
    if status.st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    if status.st_size > limits.file_bytes:
        raise MediaError(f"{path} has {status.st_size} bytes, over the limit of {limits.file_bytes}")
    return path


def check_pixels(path: Path, width: int, height: int, limits: Limits) -> None:
    """Refuse a frame whose declared size is over the limit, or no size at all.

    Raises:
        MediaError: naming both numbers.
    """
    if width <= 0 or height <= 0:
        raise MediaError(f"{path} declares a size of {width} x {height} pixels")
    if width * height > limits.pixels:
        raise MediaError(f"{path} declares {width} x {height} pixels, over the limit of {limits.pixels} pixels")
