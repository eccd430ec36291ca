"""The only door out: writes pictures and videos whole or not at all, marked as made by a machine, with provenance beside them.

Two marks are put in here: a signed C2PA manifest, in PNG, JPEG, GIF and MP4 whose pixels were generated
(`Provenance.shows_generated`), and a watermark, if the program that generated the pixels put none in. HTML carries none.
"""

import hashlib
import itertools
import os
import secrets
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from th_jax.media.backends import pillow
from th_jax.media.encode import encode_h264
from th_jax.media.manifest import check_signing, embed_manifest
from th_jax.media.pixel_marks import with_watermark
from th_jax.media.provenance import Provenance, sidecar_path, sidecar_text
from th_jax.media.signing import Signer, load_signer

FrameRate = int | float | Fraction
"""Frames a second."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

UNMARKED = ".unmarked"
"""What the name of a file ends in, before its suffix, whose marks were left out: "ada.unmarked.mp4"."""


def unmarked_path(path: str | Path) -> Path:
    """The name under which a file is written whose marks are left out."""
    path = Path(path)
    return path if path.stem.endswith(UNMARKED) else path.with_name(path.stem + UNMARKED + path.suffix)


def write_image(
    path: str | Path,
    frame: ArrayLike,
    *,
    provenance: Provenance,
    quality: int = 95,
    signer: Signer | None = None,
    unmarked_for_research: bool = False,
) -> Path:
    """Write one UInt8 `[H, W, 3]` RGB frame as PNG or JPEG, by the name's ending, and its provenance beside it.

    Args:
        path: ends in .png, .jpg or .jpeg.
        frame: the pixels.
        provenance: what made them.
        quality: JPEG's, 1 to 100; its colours are not subsampled.
        signer: signs the manifest; `load_signer` chooses by default.
        unmarked_for_research: leaves both marks out. The name must then say so (`unmarked_path`), as the record does.

    Raises:
        ValueError: for another ending, folder, name, shape, type or range.
        SigningError: if there is no key that can sign.
        ImportError: without the extra `video`, for pixels that were generated.
        OSError: if the disk refuses; nothing is left behind.
    """
    path = check_target(path, IMAGE_SUFFIXES, unmarked=unmarked_for_research)
    signer = _signer_for(provenance, signer, unmarked_for_research)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be 1 to 100, but is {quality}")
    frames, provenance = with_watermark(
        iter([check_frame(frame)]), provenance, kind="still", unmarked_for_research=unmarked_for_research
    )
    pixels = next(frames)
    settings: list[int] = []
    if path.suffix.lower() != ".png":
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    encoded = cv2.imencode(path.suffix.lower(), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)[1]
    return _write_whole(
        path, provenance, signer, unmarked_for_research, lambda target: target.write_bytes(encoded.tobytes())
    )


def write_video(
    path: str | Path,
    frames: Iterable[ArrayLike],
    *,
    fps: FrameRate,
    provenance: Provenance,
    crf: int = 18,
    audio_from: str | Path | None = None,
    signer: Signer | None = None,
    unmarked_for_research: bool = False,
) -> Path:
    """Write UInt8 `[H, W, 3]` RGB frames as MP4 (H.264, yuv420p), as a stream, and the provenance beside it.

    H.264 needs even sizes: an odd last row or column is repeated once. `crf` is H.264's constant rate factor, from 0
    (best) to 51. `audio_from` names a video whose sound is kept, cut to the length of the pictures. Whether it can be signed
    is tried before the first frame is asked for; while it is signed, the film is on the disk twice.

    Raises:
        ValueError: for another ending or name, a missing folder, no frames, or a frame of another shape, type or size.
        SigningError, ImportError: as `write_image`.
        MediaError: if `audio_from` cannot be read or has no sound.
        OSError: if the disk refuses. After any error, also one in `frames`, nothing is left behind.
    """
    path = check_target(path, (".mp4",), unmarked=unmarked_for_research)
    rate = _check_fps(fps)
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must be 0 to 51, but is {crf}")
    audio = None if audio_from is None else Path(audio_from)
    signer = _signer_for(provenance, signer, unmarked_for_research, trial=True)
    with closing(_checked(frames, path)) as checked:
        marked, provenance = with_watermark(
            checked, provenance, kind="film", unmarked_for_research=unmarked_for_research
        )

        def encode(target: Path) -> None:
            encode_h264(target, marked, rate=rate, crf=crf, audio_from=audio)

        return _write_whole(path, provenance, signer, unmarked_for_research, encode)


def write_gif(
    path: str | Path,
    frames: Iterable[ArrayLike],
    *,
    fps: FrameRate,
    provenance: Provenance,
    signer: Signer | None = None,
    unmarked_for_research: bool = False,
) -> Path:
    """Write UInt8 `[H, W, 3]` RGB frames as an endless GIF of 256 colours a frame, and the provenance beside it.

    GIF counts in hundredths of a second and viewers slow down above 50 frames/s, which is refused. All frames are held
    in memory with one byte a pixel.

    Raises:
        ValueError: for another ending or name, a missing folder, no frames, over 50 frames/s, or a wrong frame.
        SigningError, ImportError: as `write_image`.
        OSError: if the disk refuses. After any error, also one in `frames`, nothing is left behind.
    """
    path = check_target(path, (".gif",), unmarked=unmarked_for_research)
    rate = _check_fps(fps)
    if rate > 50:
        raise ValueError(f"a GIF shows at most 50 frames/s, but {float(rate):g} came: leave frames out, or write MP4")
    image = pillow()
    signer = _signer_for(provenance, signer, unmarked_for_research, trial=True)
    # Each frame's end is rounded, not each duration: so the film keeps its length.
    ends = (round(100 * index / rate) for index in itertools.count())
    with closing(_checked(frames, path)) as checked:
        marked, provenance = with_watermark(
            checked, provenance, kind="film", unmarked_for_research=unmarked_for_research
        )
        pictures = [image.fromarray(frame).quantize(256, dither=image.Dither.FLOYDSTEINBERG) for frame in marked]
    marks = list(itertools.islice(ends, len(pictures) + 1))
    durations = [10 * (end - start) for start, end in itertools.pairwise(marks)]

    def save(target: Path) -> None:
        pictures[0].save(target, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)

    return _write_whole(path, provenance, signer, unmarked_for_research, save)


def write_page(path: str | Path, page: str, *, provenance: Provenance) -> Path:
    """Write an HTML page that holds pictures, and the provenance beside it.

    Raises:
        ValueError: for another ending or a missing folder.
        OSError: if the disk refuses; nothing is left behind.
    """
    path = check_target(path, (".html",))
    _check_provenance(provenance)
    return _write_whole(path, provenance, None, False, lambda target: target.write_text(page, encoding="utf-8"))


def check_target(path: str | Path, suffixes: tuple[str, ...], *, unmarked: bool = False) -> Path:
    """The path of a file that can be written here, as far as its name and its folder tell.

    Args:
        path: of the file.
        suffixes: that it may end in.
        unmarked: whether it is written without marks, which the name must say then.

    Raises:
        ValueError: naming what is wrong.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(suffixes)}")
    try:
        path.name.encode()
    except UnicodeEncodeError as error:  # a file of another system's; the record beside it names it as text
        raise ValueError(f"the name {path.name!a} is no text in UTF-8: name the file to write in letters") from error
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist: make it first")
    if path.is_dir():
        raise ValueError(f"{path} is a folder")
    if unmarked and path != unmarked_path(path):
        raise ValueError(
            f"what is written without marks says so in its name: {unmarked_path(path).name}, not {path.name}"
        )
    return path


def check_frame(frame: Any) -> np.ndarray:
    """The frame as a contiguous numpy array, UInt8 `[H, W, 3]`.

    Raises:
        ValueError: saying what came instead.
    """
    pixels = np.asarray(frame)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"a frame must be uint8 in 0..255, but {pixels.dtype} came: convert the networks' range [-1, 1] "
            "with th_jax.images.to_uint8"
        )
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ValueError(f"a frame must be RGB of shape [H, W, 3], but shape {list(pixels.shape)} came")
    return np.ascontiguousarray(pixels)


def _checked(frames: Iterable[ArrayLike], path: Path) -> Generator[np.ndarray, None, None]:
    shape = None
    for index, frame in enumerate(frames):
        pixels = check_frame(frame)
        shape = shape or pixels.shape
        if pixels.shape != shape:
            raise ValueError(f"frame {index} has shape {list(pixels.shape)}, but the first one {list(shape)}")
        yield pixels
    if shape is None:
        raise ValueError(f"there are no frames to write to {path}")


def _signer_for(provenance: Provenance, signer: Signer | None, unmarked: bool, *, trial: bool = False) -> Signer | None:
    """Who signs, or None for what is not marked; with a trial where finding out too late would cost hours."""
    _check_provenance(provenance)
    if unmarked or not provenance.shows_generated:
        return None
    signer = signer or load_signer()
    if trial:
        check_signing(provenance, signer)
    return signer


def _check_provenance(provenance: Any) -> None:
    if not isinstance(provenance, Provenance):
        raise ValueError(f"provenance must be a th_jax.media.Provenance, but {type(provenance).__name__} came")


def _check_fps(fps: FrameRate) -> Fraction:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be above 0 and at most 1000 frames/s, but is {fps}")
    return Fraction(fps).limit_denominator(100_000)


def _write_whole(
    path: Path, provenance: Provenance, signer: Signer | None, unmarked: bool, encode: Callable[[Path], Any]
) -> Path:
    """Encode and sign under temporary names in the same folder; then put record and file in place, the record first."""
    # Never a file without its record: were the record second, a crash between the two would leave pixels of unknown origin.
    beside = sidecar_path(path)
    token = secrets.token_hex(8)
    plain, partial = (
        path.with_name(f".{token}.{step}{path.suffix.lower()}").absolute() for step in ("plain", "partial")
    )
    partial_beside = path.with_name(f".{token}.partial.json")
    try:
        if signer is None:
            encode(partial)
        else:
            encode(plain)
            embed_manifest(plain, partial, provenance=provenance, signer=signer)
            plain.unlink()
        with partial.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        marks = [*(["c2pa"] if signer is not None else []), *(["watermark"] if provenance.watermark else [])]
        with partial_beside.open("x", encoding="utf-8") as text:
            text.write(sidecar_text(path, digest, provenance, marks=marks, unmarked_for_research=unmarked))
            text.flush()
            os.fsync(text.fileno())
        os.replace(partial_beside, beside)
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        for left in (plain, partial, partial_beside):
            left.unlink(missing_ok=True)
    return path


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot; the files themselves are on the disk
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
