"""The only door in: decodes local pictures and opens local videos, or says in one sentence why it does not."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from th_jax.media.backends import load_backend, pillow
from th_jax.media.limits import DEFAULT_LIMITS, Limits, MediaError, MediaFault, check_file, check_pixels
from th_jax.media.video import Video

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Pillow's names of the decoders that may run; JPEG includes MPO, the double pictures of some phones."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ogv", ".3gp", ".flv")

_WARNINGS = threading.Lock()


def read_image(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a picture as RGB in 0..255, upright.

    EXIF rotation is applied; transparency is laid over white; 16-bit values keep their high byte; grey, palette and
    CMYK pictures become RGB without their colour profile. Of a file with several pictures, the first is read.

    Raises:
        MediaError: if the file is missing, empty, cut off, over a limit, or no PNG, JPEG, WebP, BMP or TIFF.
        ImportError: without the extra `video`.
    """
    path = check_file(path, limits)
    image_module = pillow()
    turn_upright = load_backend("PIL.ImageOps", "reading pictures").exif_transpose
    try:
        with path.open("rb") as file, _opened(file) as image:
            check_pixels(path, image.width, image.height, limits)
            image.load()
            return np.ascontiguousarray(_rgb(path, turn_upright(image)))
    except MediaError:
        raise
    except PermissionError as error:
        raise MediaError(MediaFault.UNREADABLE, f"{path} cannot be read: permission denied") from error
    except image_module.DecompressionBombError as error:
        raise MediaError(
            MediaFault.OVER_LIMITS, f"{path} declares more pixels than Pillow decodes, over any limit"
        ) from error
    except image_module.UnidentifiedImageError as error:
        raise MediaError(
            MediaFault.UNDECODABLE, f"{path} is no picture that can be read (PNG, JPEG, WebP, BMP or TIFF)"
        ) from error
    except MemoryError as error:
        raise MediaError(MediaFault.OVER_LIMITS, f"{path} needs more memory than there is") from error
    except Exception as error:  # a damaged file reaches Pillow's plugins as almost any exception
        raise MediaError(MediaFault.UNDECODABLE, f"{path} is damaged or cut off ({error})") from error


def open_video(path: str | Path, *, limits: Limits = DEFAULT_LIMITS, threads: int = 1) -> Video:
    """A context manager over the frames of a local video: see `Video`.

    `threads` is the number of decoding threads; 0 lets the decoder choose. The frames are the same for any number.

    Raises:
        MediaError: if the file is missing, empty, cut off, without pictures, over a limit, or of a kind not allowed.
        ImportError: without the extra `video`.
    """
    return Video(check_file(path, limits), limits=limits, threads=threads)


@contextmanager
def _opened(file: Any) -> Iterator[Any]:
    """Pillow's picture of a file, without its warning of many pixels, which `Limits` are for.

    Filters of warnings belong to the whole process: so they are changed while Pillow reads the header, not the pixels, and by
    one thread at a time, each of which puts back what it found.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", pillow().DecompressionBombWarning)
        image = pillow().open(file, formats=IMAGE_FORMATS)
    with image:
        yield image


def _rgb(path: Path, image: Any) -> np.ndarray:
    if image.mode.startswith("I"):
        return _high_byte(path, np.asarray(image))
    if image.mode == "F":
        raise _of_unknown_white(path, "floating-point values")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = pillow().new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow().alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _high_byte(path: Path, grey: np.ndarray) -> np.ndarray:
    """Grey of 16 bits, which Pillow would clip at 255, as RGB of 8 bits."""
    if int(grey.min()) < 0 or int(grey.max()) > 0xFFFF:
        raise _of_unknown_white(path, "integers outside of 16 bits")
    return np.repeat((grey.astype(np.uint16) >> 8).astype(np.uint8)[..., None], 3, axis=-1)


def _of_unknown_white(path: Path, values: str) -> MediaError:
    return MediaError(
        MediaFault.UNSUPPORTED, f"{path} holds {values}, whose white is unknown: save it with 8 or 16 bits"
    )
