"""Writes all generated images and videos: atomically, marked as machine-generated, with provenance beside them.

Two marks are added: a signed C2PA manifest, in PNG, JPEG, GIF and MP4 files with generated pixels
(`Provenance.shows_generated`), and a watermark, unless the program that generated the pixels embedded one. HTML carries
neither.
"""

import dataclasses
import hashlib
import itertools
import json
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike

from th_jax.media.encode import encode_h264
from th_jax.optional import pillow
from th_jax.provenance.c2pa_write import check_signing, embed_manifest
from th_jax.provenance.record import Kind, Provenance, sidecar_path, sidecar_text
from th_jax.provenance.signing import Signer, load_signer
from th_jax.storage.files import check_place, file_sha256, flush_to_disk, whole_file, whole_path

Frames = Iterator[UInt8[np.ndarray, "H W 3"]]


def with_watermark(
    frames: Frames, provenance: Provenance, *, kind: Literal["still", "video"], unmarked_for_research: bool = False
) -> tuple[Frames, Provenance]:
    """Mark frames in their central square, and return them with a record that contains the message.

    Only purely generated frames are marked here: if others are beside them, only the code that combines them knows
    their places. The message is the avatar's digest, or else that of all other sources. Frames smaller than 64 px have
    no room for a mark.

    Args:
        frames: frames of one size; the first one is requested immediately.
        provenance: record of what made the frames; if it already names a message, nothing changes.
        kind: what is written, a still or a video.
        unmarked_for_research: if True, return everything unchanged.
    """
    if unmarked_for_research or provenance.kind is not Kind.GENERATED or provenance.watermark is not None:
        return frames, provenance
    first = next(frames, None)
    if first is None:
        return frames, provenance
    from th_jax.provenance.watermark.messages import (  # here: it imports JAX, which readers do not need
        mark_frames,
        marking_of,
    )

    frames = itertools.chain([first], frames)
    marking = marking_of(_digest(provenance), size=min(first.shape[:2]), kind=kind)
    if marking is None:
        return frames, provenance
    return mark_frames(frames, marking.mark), dataclasses.replace(provenance, watermark=marking.message)


def _digest(provenance: Provenance) -> str:
    if provenance.avatar is not None:
        return provenance.avatar
    made_of = [sorted(provenance.weights.items()), provenance.inputs]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


FrameRate = int | float | Fraction
"""Frame rate, in frames per second."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

UNMARKED = ".unmarked"
"""End of the stem of a file without marks: "ada.unmarked.mp4"."""


def unmarked_path(path: str | Path) -> Path:
    """Return the name under which a file without marks is written."""
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
    """Write one UInt8 `[H, W, 3]` RGB frame as PNG or JPEG, depending on the suffix, and its provenance beside it.

    Args:
        path: output file, ending in .png, .jpg or .jpeg.
        frame: pixels.
        provenance: record of what made them.
        quality: JPEG quality, 1 to 100; colors are not subsampled.
        signer: signer of the manifest; chosen by `load_signer` by default.
        unmarked_for_research: if True, leave out both marks. The file name must say so (`unmarked_path`), and the
            record does.

    Raises:
        ValueError: if the suffix, folder, name, shape, type or range is invalid.
        SigningError: if no key can sign.
        ImportError: if pixels were generated and the extra `video` is not installed.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    path = check_target(path, IMAGE_SUFFIXES, unmarked=unmarked_for_research)
    signer = _signer_for(provenance, signer, unmarked_for_research)
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be 1 to 100, got {quality}")
    frames, provenance = with_watermark(
        iter([check_frame(frame)]), provenance, kind="still", unmarked_for_research=unmarked_for_research
    )
    import cv2  # here: records and their checks do not need OpenCV

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
    """Write a stream of UInt8 `[H, W, 3]` RGB frames as MP4 (H.264, yuv420p), and the provenance beside it.

    H.264 requires even sizes: an odd last row or column is repeated once. Signing is tried before the first frame is
    requested. While it is signed, the video is on disk twice.

    Args:
        path: output file, ending in .mp4.
        frames: frames of one size.
        fps: frame rate, in frames per second.
        provenance: record of what made the frames.
        crf: constant rate factor of H.264, from 0 (best) to 51.
        audio_from: video whose sound is kept, cut to the length of the frames.
        signer: signer of the manifest; chosen by `load_signer` by default.
        unmarked_for_research: if True, leave out both marks, as for `write_image`.

    Raises:
        ValueError: if the suffix, name or folder is invalid, there are no frames, or a frame has another shape, type or
            size.
        SigningError, ImportError: as `write_image`.
        MediaError: if `audio_from` cannot be read or has no sound.
        OSError: if the file cannot be written. After any error, including one in `frames`, no partial file is left
            behind.
    """
    path = check_target(path, (".mp4",), unmarked=unmarked_for_research)
    rate = _check_fps(fps)
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must be 0 to 51, got {crf}")
    audio = None if audio_from is None else Path(audio_from)
    signer = _signer_for(provenance, signer, unmarked_for_research, trial=True)
    with closing(_checked(frames, path)) as checked:
        marked, provenance = with_watermark(
            checked, provenance, kind="video", unmarked_for_research=unmarked_for_research
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
    """Write UInt8 `[H, W, 3]` RGB frames as an endless GIF with 256 colors per frame, and the provenance beside it.

    GIF counts in hundredths of a second, and viewers slow down above 50 frames/s, which is an error. All frames are
    held in memory with one byte per pixel.

    Raises:
        ValueError: if the suffix, name or folder is invalid, there are no frames, a frame is invalid, or the rate is
            above 50 frames/s.
        SigningError, ImportError: as `write_image`.
        OSError: if the file cannot be written. After any error, including one in `frames`, no partial file is left
            behind.
    """
    path = check_target(path, (".gif",), unmarked=unmarked_for_research)
    rate = _check_fps(fps)
    if rate > 50:
        raise ValueError(f"a GIF supports at most 50 frames/s, got {float(rate):g}: drop frames, or write MP4")
    image = pillow()
    signer = _signer_for(provenance, signer, unmarked_for_research, trial=True)
    # Each frame's end is rounded instead of each duration, which preserves the total length.
    ends = (round(100 * index / rate) for index in itertools.count())
    with closing(_checked(frames, path)) as checked:
        marked, provenance = with_watermark(
            checked, provenance, kind="video", unmarked_for_research=unmarked_for_research
        )
        images = [image.fromarray(frame).quantize(256, dither=image.Dither.FLOYDSTEINBERG) for frame in marked]
    marks = list(itertools.islice(ends, len(images) + 1))
    durations = [10 * (end - start) for start, end in itertools.pairwise(marks)]

    def save(target: Path) -> None:
        images[0].save(target, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)

    return _write_whole(path, provenance, signer, unmarked_for_research, save)


def html_document(title: str, style: str, parts: Iterable[str]) -> str:
    """Put a page together. Even if a name contained code, nothing would be loaded or run."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">",
            f"<style>{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def write_page(path: str | Path, page: str, *, provenance: Provenance) -> Path:
    """Write an HTML page with images, and the provenance beside it.

    Raises:
        ValueError: if the suffix is wrong or the folder is missing.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    path = check_target(path, (".html",))
    _check_provenance(provenance)
    return _write_whole(path, provenance, None, False, lambda target: target.write_text(page, encoding="utf-8"))


def check_target(path: str | Path, suffixes: tuple[str, ...], *, unmarked: bool = False) -> Path:
    """Check the name and folder of a file to be written, and return its path.

    `unmarked` means that the file is written without marks, which its name must say.

    Raises:
        ValueError: if the name is invalid.
        OSError: if the file cannot be created there (`check_place`).
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} must end in {', '.join(suffixes)}")
    try:
        path.name.encode()
    except UnicodeEncodeError as error:  # a name from another system; the record beside the file needs it as text
        raise ValueError(f"the output name {path.name!a} is not valid UTF-8: choose another name") from error
    check_place(path)
    if unmarked and path != unmarked_path(path):
        raise ValueError(
            f"the name of a file without marks must say so: use {unmarked_path(path).name} instead of {path.name}"
        )
    return path


def check_frame(frame: Any) -> np.ndarray:
    """Convert a frame to a contiguous numpy array, UInt8 `[H, W, 3]`.

    Raises:
        ValueError: if it has another type or shape; the message gives them.
    """
    pixels = np.asarray(frame)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"a frame must be uint8 in 0..255, got {pixels.dtype}: convert the networks' range [-1, 1] with "
            "th_jax.images.to_uint8"
        )
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ValueError(f"a frame must be RGB of shape [H, W, 3], got {list(pixels.shape)}")
    return np.ascontiguousarray(pixels)


def _checked(frames: Iterable[ArrayLike], path: Path) -> Generator[np.ndarray, None, None]:
    shape = None
    for index, frame in enumerate(frames):
        pixels = check_frame(frame)
        shape = shape or pixels.shape
        if pixels.shape != shape:
            raise ValueError(
                f"all frames must have the same shape, but frame {index} is {list(pixels.shape)} and the first one "
                f"{list(shape)}"
            )
        yield pixels
    if shape is None:
        raise ValueError(f"there are no frames to write to {path}")


def _signer_for(provenance: Provenance, signer: Signer | None, unmarked: bool, *, trial: bool = False) -> Signer | None:
    """Return the signer, or None for unmarked files; `trial` tests it first, if a later failure would cost hours."""
    _check_provenance(provenance)
    if unmarked or not provenance.shows_generated:
        return None
    signer = signer or load_signer()
    if trial:
        check_signing(provenance, signer)
    return signer


def _check_provenance(provenance: Any) -> None:
    if not isinstance(provenance, Provenance):
        raise ValueError(f"provenance must be a Provenance, got {type(provenance).__name__}")


def _check_fps(fps: FrameRate) -> Fraction:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be above 0 and at most 1000 frames/s, got {fps}")
    return Fraction(fps).limit_denominator(100_000)


def _write_whole(
    path: Path, provenance: Provenance, signer: Signer | None, unmarked: bool, encode: Callable[[Path], Any]
) -> Path:
    """Encode and sign under temporary names in the same folder, and then move record and file in place, the record first."""
    with whole_path(path.absolute()) as partial:
        if signer is None:
            encode(partial)
        else:
            plain = path.with_name(f".{secrets.token_hex(8)}.plain{path.suffix.lower()}").absolute()
            try:
                encode(plain)
                embed_manifest(plain, partial, provenance=provenance, signer=signer)
            finally:
                plain.unlink(missing_ok=True)
        flush_to_disk(partial)  # a disk that is full must be noticed before the record replaces an earlier one
        marks = [*(["c2pa"] if signer is not None else []), *(["watermark"] if provenance.watermark else [])]
        digest = file_sha256(partial)
        # The record comes first: a crash in between must not leave pixels of unknown origin.
        with whole_file(sidecar_path(path)) as beside:
            record = sidecar_text(path, digest, provenance, marks=marks, unmarked_for_research=unmarked)
            beside.write(record.encode())
    with suppress(OSError):  # some file systems do not support it for folders; the files themselves are on disk
        flush_to_disk(path.parent)
    return path
