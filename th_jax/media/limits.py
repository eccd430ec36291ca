"""What a picture or a video may cost before it is refused, and the error that says why a file was refused."""

import enum
import re
import stat
from pathlib import Path
from typing import NamedTuple

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class MediaFault(enum.StrEnum):
    """What kind of thing is wrong with a file, for programs that sort refusals."""

    MISSING = "missing"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    """The system does not let it be read: permissions, or a loop of links."""
    UNDECODABLE = "undecodable"
    """Damaged, cut off, or of none of the formats that are read."""
    UNSUPPORTED = "unsupported"
    """Whole, for all that is known, but of a kind that is not read here."""
    OVER_LIMITS = "over_limits"


def spelt_out(message: str) -> str:
    """A message with its control characters as escapes: whoever made a folder chose the names in it, and a terminal obeys."""
    return _CONTROL.sub(lambda character: ascii(character[0])[1:-1], message)


class MediaError(ValueError):
    """A file is no picture or video that can be used; the message is one sentence for the person who named the file."""

    fault: MediaFault

    def __init__(self, fault: MediaFault, message: str) -> None:
        """Both are arguments of the exception, so that it can be sent from one process to another."""
        super().__init__(fault, spelt_out(message))
        self.fault = fault

    def __str__(self) -> str:
        """The sentence alone."""
        return str(self.args[1])


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
        raise MediaError(
            MediaFault.UNSUPPORTED, f"{path} looks like a URL: only local files are read, download it first"
        )
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MediaError(MediaFault.MISSING, f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # a loop of links, a forbidden folder, a name with a null byte
        raise MediaError(MediaFault.UNREADABLE, f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or pipe"
        raise MediaError(MediaFault.UNSUPPORTED, f"{path} is a {kind}, not a file")
    if status.st_size == 0:
        raise MediaError(MediaFault.EMPTY, f"{path} is empty (0 bytes)")
    if status.st_size > limits.file_bytes:
        sizes = f"{status.st_size} bytes, over the limit of {limits.file_bytes}"
        raise MediaError(MediaFault.OVER_LIMITS, f"{path} has {sizes}")
    return path


def check_pixels(path: Path, width: int, height: int, limits: Limits) -> None:
    """Refuse a frame whose declared size is over the limit, or no size at all.

    Raises:
        MediaError: naming both numbers.
    """
    if width <= 0 or height <= 0:
        raise MediaError(MediaFault.UNDECODABLE, f"{path} declares a size of {width} x {height} pixels")
    if width * height > limits.pixels:
        sizes = f"{width} x {height} pixels, over the limit of {limits.pixels} pixels"
        raise MediaError(MediaFault.OVER_LIMITS, f"{path} declares {sizes}")
