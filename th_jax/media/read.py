"""Decodes local images and opens local videos; all media input goes through this module."""

import io
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from th_jax.media.limits import DEFAULT_LIMITS, Limits, MediaError, MediaFault, check_file, check_pixels, no_memory
from th_jax.media.video import Video
from th_jax.optional import EXTRA_HINT, load_backend, pillow

IMAGE_FORMATS: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF")
"""Pillow's names of the allowed decoders, besides HEIF's; JPEG includes MPO, the image pairs of some phones."""

IMAGE_BYTES = 2**30
"""Maximum size of an image's file that is read into memory as a whole: `Limits.pixels` need less in every format."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ogv", ".3gp", ".flv"),
    *(".ts", ".mts", ".m2ts"),
)

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_PNG = b"\x89PNG\r\n\x1a\n"

_ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
_TURNS = {
    **{2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"},
    **{6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"},
}
"""Pillow's operation that brings each EXIF orientation upright; orientation 1 is upright already."""

_WARNINGS = threading.Lock()


def read_image(
    path: str | Path, *, limits: Limits = DEFAULT_LIMITS, file: io.BufferedIOBase | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an image to upright RGB pixels in 0..255.

    All eight EXIF orientations are applied. Colors are converted to sRGB if the image has a readable ICC profile.
    Transparent images are composited over white, and 16-bit values keep their high byte. The first image of a file with
    several is used.

    Args:
        path: local image.
        limits: limits on the file and its pixels.
        file: the image's open file, if it is open already; `path` is then only its name in errors.

    Raises:
        MediaError: if the file is missing, empty, truncated, over a limit, or not PNG, JPEG, WebP, BMP, TIFF, AVIF or
            HEIC, or if it is HEIC and the package that reads it is missing.
        ImportError: if the extra `video` is not installed.
    """
    path = Path(path) if file is not None else check_file(path, limits)
    image_module = pillow()
    try:
        with ExitStack() as resources:
            file = file or resources.enter_context(path.open("rb"))
            image = resources.enter_context(_opened(path, file))
            check_pixels(path, image.width, image.height, limits)
            image.load()
            check_pixels(path, image.width, image.height, limits)
            return np.ascontiguousarray(_rgb(path, _upright(image)))
    except MediaError:
        raise
    except PermissionError as error:
        raise MediaError(MediaFault.UNREADABLE, f"{path} cannot be read: permission denied") from error
    except image_module.DecompressionBombError as error:
        raise MediaError(MediaFault.OVER_LIMITS, f"{path} declares more pixels than Pillow decodes") from error
    except image_module.UnidentifiedImageError as error:
        raise MediaError(
            MediaFault.UNDECODABLE,
            f"{path} is not a readable image (supported: PNG, JPEG, WebP, BMP, TIFF, AVIF and HEIC)",
        ) from error
    except MemoryError as error:
        raise no_memory(path) from error
    except Exception as error:  # Pillow's plugins raise almost any exception for damaged files
        raise MediaError(MediaFault.UNDECODABLE, f"{path} is damaged or truncated ({error})") from error


def read_image_file(path: str | Path) -> UInt8[np.ndarray, " bytes"]:
    """Read an image's file into memory without decoding it, for `read_image` in another process.

    Raises:
        MediaError: if the file is missing, empty, unreadable, or larger than `IMAGE_BYTES`.
    """
    limits = DEFAULT_LIMITS._replace(file_bytes=IMAGE_BYTES)
    path = check_file(path, limits)
    try:
        with path.open("rb") as file:
            content = file.read(limits.file_bytes)
    except OSError as error:
        raise MediaError(MediaFault.UNREADABLE, f"{path} cannot be read: {error.strerror}") from error
    return np.frombuffer(content, np.uint8)


def open_video(path: str | Path, *, limits: Limits = DEFAULT_LIMITS, threads: int = 1) -> Video:
    """Open a local video, as a context manager over its frames (`Video`).

    Args:
        path: local video.
        limits: limits on the file and its frames.
        threads: number of decoding threads; 0 lets the decoder choose. Frames do not depend on it.

    Raises:
        MediaError: if the file is missing, empty, truncated, without frames, over a limit, or of a type that is not
            allowed.
        ImportError: if the extra `video` is not installed.
    """
    return Video(check_file(path, limits), limits=limits, threads=threads)


@contextmanager
def _silenced() -> Iterator[None]:
    """Suppress Pillow's warnings about many pixels, which `Limits` handles, and about broken EXIF blocks.

    Warning filters are global to the process. They are therefore changed only while Pillow reads headers, not pixels,
    by one thread at a time, which restores them.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _opened(path: Path, file: Any) -> Iterator[Any]:
    """Open an image with Pillow without decoding its pixels."""
    start = file.read(64)
    file.seek(0)
    formats = IMAGE_FORMATS
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start:
        formats = (*_learn_heif(path), *IMAGE_FORMATS)
    with _silenced():
        try:
            image = pillow().open(file, formats=formats)
        except pillow().UnidentifiedImageError:
            if not start.startswith(_PNG):
                raise
            image = pillow().open(_without_broken_extras(file), formats=("PNG",))
    with image:
        yield image


def _learn_heif(path: Path) -> tuple[str, ...]:
    """Register the HEIF decoder, and return Pillow's name of the format."""
    try:
        load_backend("pi_heif", "reading HEIC").register_heif_opener(thumbnails=False)
    except ImportError as error:
        raise MediaError(
            MediaFault.UNSUPPORTED, f"{path} is a HEIC image, which requires the package pi-heif: {EXTRA_HINT}"
        ) from error
    return ("HEIF",)


def _without_broken_extras(file: Any) -> io.BytesIO:
    """Return a PNG without optional chunks (EXIF, text, times) that have a wrong checksum."""
    file.seek(0)
    data, place, kept = file.read(), len(_PNG), [_PNG]
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        chunk = data[place:end]
        optional = chunk[4:5].islower()
        if not optional or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]):
            kept.append(chunk)
        place = end
    return io.BytesIO(b"".join(kept))


def _upright(image: Any) -> Any:
    """Rotate the image by its EXIF orientation; a broken EXIF block is ignored."""
    try:
        with _silenced():
            turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # Pillow's reader raises almost any exception
        return image
    return image if turn is None else image.transpose(pillow().Transpose[turn])


def _rgb(path: Path, image: Any) -> np.ndarray:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = pillow().fromarray(_high_byte(path, np.asarray(image)))
    if image.mode == "F":
        raise _of_unknown_white(path, "floating-point values")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        colors = _srgb(image.convert("RGB"), profile)
        white = pillow().new("RGB", image.size, (255, 255, 255))
        return np.asarray(pillow().composite(colors, white, image.getchannel("A")))
    return np.asarray(_srgb(image, profile))


def _srgb(image: Any, profile: bytes | None) -> Any:
    """Convert the colors to sRGB; unchanged if the profile is missing, broken, or for another color model."""
    if not profile:
        return image.convert("RGB")
    cms = load_backend("PIL.ImageCms", "reading images")
    try:
        declared = cms.ImageCmsProfile(io.BytesIO(profile))
        gray = declared.profile.xcolor_space.strip() == "GRAY"
        kind = "L" if gray and image.mode in ("L", "1") else "CMYK" if image.mode == "CMYK" else "RGB"
        return cms.profileToProfile(
            *(image if image.mode == kind else image.convert(kind), declared, cms.createProfile("sRGB")),
            renderingIntent=cms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=cms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (cms.PyCMSError, OSError, TypeError, ValueError):
        return image.convert("RGB")


def _high_byte(path: Path, grey: np.ndarray) -> np.ndarray:
    """Reduce 16-bit gray, which Pillow would clip at 255, to 8 bits."""
    if int(grey.min()) < 0 or int(grey.max()) > 0xFFFF:
        raise _of_unknown_white(path, "integers outside the 16-bit range")
    return (grey.astype(np.uint16) >> 8).astype(np.uint8)


def _of_unknown_white(path: Path, values: str) -> MediaError:
    return MediaError(
        MediaFault.UNSUPPORTED,
        f"{path} has {values}, whose white level is unknown: save it with 8 or 16 bits per channel",
    )
