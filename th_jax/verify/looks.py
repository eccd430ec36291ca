"""Looks at one file for its manifest, its pixels' watermark and the record beside it: each runs in a sandbox.

What they answer is plain, so that it can leave the sandbox.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from th_jax.media import VIDEO_SUFFIXES, Limits, MediaError, MediaFault, open_video, read_image
from th_jax.media.limits import check_file
from th_jax.media.manifest_reader import read_manifest
from th_jax.media.provenance import open_sidecar
from th_jax.watermark.layout import hexadecimal

LIMITS = Limits(file_bytes=64 * 2**30, pixels=150_000_000, frames=10_000_000, seconds=48 * 3600.0)
"""Wider than for work on pictures: what is too large for a face may still be marked."""

_OTHER_FORMAT = (MediaFault.UNDECODABLE, MediaFault.UNSUPPORTED)


def look_for_manifest(path: str, *, trust_anchors: str | None) -> dict[str, Any] | None:
    """The fields of the file's `ManifestReport`, or None if it has no manifest.

    Raises:
        MediaError, ValueError, OSError, ImportError: as `read_manifest`.
    """
    return read_manifest(path, trust_anchors=trust_anchors, limits=LIMITS)


def look_beside(path: str) -> dict[str, Any] | None:
    """What the record beside the file says: None if there is none, its fault if it cannot be read.

    Raises:
        MediaError: if the file itself is none that may be read.
        OSError: if it cannot be read.
    """
    checked = check_file(path, LIMITS)
    try:
        record = open_sidecar(checked)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"fault": str(error)}
    with checked.open("rb") as file:
        matches = hashlib.file_digest(file, "sha256").hexdigest() == record.digest
    return {
        "fault": None,
        "matches": matches,
        "kind": record.provenance.kind.value,
        "generated": record.provenance.shows_generated,
        "unmarked_for_research": record.unmarked_for_research,
    }


def look_at_pixels(path: str, *, seconds: float) -> dict[str, Any]:
    """The watermarks in a picture, or in the first seconds of a film; `looked_for` is False without their detector.

    Raises:
        MediaError: if it is no picture and no film that can be decoded, or over a limit.
        ImportError: without the extra `video`.
    """
    checked = check_file(path, LIMITS)
    looks = [_look_at_picture, _look_at_film]
    if checked.suffix.lower() in VIDEO_SUFFIXES:
        looks.reverse()
    try:
        return looks[0](checked, seconds)
    except MediaError as error:
        if error.fault not in _OTHER_FORMAT:
            raise
        try:
            return looks[1](checked, seconds)
        except MediaError as other:
            if other.fault not in _OTHER_FORMAT:
                raise
        raise MediaError(MediaFault.UNDECODABLE, f"{path} is no picture and no film that can be decoded") from error


def detectors() -> tuple[Callable[[np.ndarray], Any], Callable[[Iterable[np.ndarray]], Any]] | None:
    """The detector of watermarks in a picture and that in a film; None where OpenCV is missing."""
    try:
        package = importlib.import_module("th_jax.watermark.detect")
    except ImportError:
        return None
    return package.detect, package.detect_film


def _look_at_picture(path: Path, _: float) -> dict[str, Any]:
    picture = read_image(path, limits=LIMITS)
    found = detectors()
    return _marks(None if found is None else found[0](picture))


def _look_at_film(path: Path, seconds: float) -> dict[str, Any]:
    found = detectors()
    with open_video(path, limits=LIMITS) as video:  # which decodes the first frame
        return _marks(None if found is None else found[1](_first_frames(video.frames(), seconds)))


def _first_frames(frames: Iterator[tuple[float, np.ndarray]], seconds: float) -> Iterator[np.ndarray]:
    for time, frame in frames:
        if time > seconds:
            return
        yield frame


def _marks(findings: Any) -> dict[str, Any]:
    """Each mark with its place in pixels, and each message with the number of its marks: a contact sheet has many of one."""
    marks: list[dict[str, Any]] = []
    messages: dict[str, dict[str, Any]] = {}
    for mark in () if findings is None else findings.marks:
        message, chance = hexadecimal(int(mark.message), bits=int(mark.bits)), float(mark.log10_chance)
        place = {name: round(float(getattr(mark, name)), 1) for name in ("left", "top", "side")}
        doubt = round(float(mark.doubt), 6)
        marks.append({"message": message, "log10_chance": chance, "doubt": doubt, **place})
        group = messages.setdefault(message, {"message": message, "count": 0, "log10_chance": chance, "doubt": doubt})
        group["count"] += 1
        group["log10_chance"], group["doubt"] = min(group["log10_chance"], chance), min(group["doubt"], doubt)
    return {"looked_for": findings is not None, "marks": marks, "messages": list(messages.values())}
