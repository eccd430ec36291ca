"""Size limits of input images and videos, and the error raised for unusable files."""

import enum
import re
import stat
from pathlib import Path
from typing import NamedTuple

from th_jax.text import escape_control_chars


class MediaFault(enum.StrEnum):
    """Categories of problems with a file, for programs that sort rejected files."""

    MISSING = "missing"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    """The system cannot read it: permissions, or a symlink loop."""
    UNDECODABLE = "undecodable"
    """Damaged, truncated, or not in a supported format."""
    UNSUPPORTED = "unsupported"
    """Probably intact, but of a type that is not supported."""
    OVER_LIMITS = "over_limits"


class MediaError(ValueError):
    """A file is not a usable image or video; the message is one sentence for the person who named the file."""

    fault: MediaFault

    def __init__(self, fault: MediaFault, message: str) -> None:
        """Create the error; both values are exception arguments, so that it can be sent between processes."""
        super().__init__(fault, escape_control_chars(message))
        self.fault = fault

    def __str__(self) -> str:
        """Return only the message."""
        return str(self.args[1])


def no_memory(path: str | Path) -> MediaError:
    """Create the error for a file that cannot be decoded in the available memory."""
    return MediaError(MediaFault.OVER_LIMITS, f"{path} needs more memory than is available")


class Limits(NamedTuple):
    """Limits checked on declared sizes, before memory is allocated for them, and again while decoding."""

    file_bytes: int = 8 * 2**30
    pixels: int = 80_000_000
    """Maximum number of pixels of an image or frame. Pillow's own limit of 179 million pixels still applies."""
    frames: int = 2_000_000
    seconds: float = 8 * 3600.0


DEFAULT_LIMITS = Limits()
"""Generous: no phone photo and no day-long video is rejected."""

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_file(path: str | Path, limits: Limits) -> Path:
    """Check that a path is a local regular file within the size limit, and return it.

    Raises:
        MediaError: if it is a URL, not a regular file, or a missing, empty, unreadable or too large file.
    """
    if _PROTOCOL.match(str(path)):
        raise MediaError(
            MediaFault.UNSUPPORTED, f"{path} looks like a URL, but only local files are supported: download it first"
        )
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MediaError(MediaFault.MISSING, f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # a symlink loop, a forbidden folder, or a name with a null byte
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
    """Check that a frame's declared size is valid and within the limit.

    Raises:
        MediaError: if it is not; the message gives both numbers.
    """
    if width <= 0 or height <= 0:
        raise MediaError(MediaFault.UNDECODABLE, f"{path} declares an invalid size of {width} x {height} pixels")
    if width * height > limits.pixels:
        sizes = f"{width} x {height} pixels, over the limit of {limits.pixels} pixels"
        raise MediaError(MediaFault.OVER_LIMITS, f"{path} declares {sizes}")
