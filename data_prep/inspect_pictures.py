"""Draws the pictures of an inspection: frames with their landmarks in rows, and frames that were dropped."""

import base64
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.inspect_measures import spread
from data_prep.manifest import Drop
from th_jax.data.episodes import decode_frame
from th_jax.data.schema import VideoRecord
from th_jax.landmarks.scheme import known_points, segments
from th_jax.media import IMAGE_SUFFIXES, MediaError, open_video, read_image
from th_jax.media.isolation import ProcessLimits, run_limited

CELL = 144
"""Side of a frame on the sheet, in pixels."""

MARGIN = 6
PAPER = (250, 250, 250)
_SUBPIXEL_BITS = 4

_LIMITS = ProcessLimits(memory=2**32, cpu_seconds=20.0, seconds=20.0)
"""For one example on a page."""


def frame_row(record: VideoRecord, *, columns: int, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Frames of one video, spread over it, with their landmarks drawn in; as wide for any number of frames."""
    row = np.full((CELL, columns * (CELL + MARGIN) - MARGIN, 3), PAPER, np.uint8)
    for column, index in enumerate(spread(len(record.frames), columns)):
        full = decode_frame(record.frames[index], size=side)
        frame = cv2.resize(full, (CELL, CELL), interpolation=cv2.INTER_CUBIC if side < CELL else cv2.INTER_AREA)
        left = column * (CELL + MARGIN)
        row[:, left : left + CELL] = draw_lines(frame, record.landmarks[index])
    return row


def draw_lines(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "P 2"]) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the frame with the landmarks' segments as thin lines in their colours; unknown ones are left out."""
    drawn, strokes = frame.copy(), segments(len(landmarks))
    known = known_points(landmarks)
    scale = np.array(frame.shape[1::-1]) * 2**_SUBPIXEL_BITS
    places = np.where(known[:, None], landmarks * scale - 2 ** (_SUBPIXEL_BITS - 1), 0).round().astype(int)
    for start, end, color in zip(strokes.start, strokes.end, strokes.color, strict=True):
        if known[start] and known[end]:
            rgb = [int(255 * value) for value in color]
            a, b = places[start].tolist(), places[end].tolist()
            cv2.line(drawn, a, b, rgb, 1, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return drawn


def dropped_frame(source: Path, drop: Drop) -> UInt8[np.ndarray, "H W 3"] | None:
    """The frame of a drop from the folder that was prepared, reduced; None if it is no frame or cannot be read.

    It is read in a sandbox: some of these files were dropped for what they do to their reader.
    """
    path = (source / drop.path).resolve()
    is_photo = path.suffix.lower() in IMAGE_SUFFIXES
    if not path.is_relative_to(source.resolve()) or (drop.time is None and not is_photo):
        return None
    try:
        return run_limited(read_reduced, path, None if is_photo else drop.time, within=_LIMITS)
    except (MediaError, OSError, RuntimeError):
        return None


def read_reduced(path: Path, time: float | None) -> UInt8[np.ndarray, "H W 3"]:
    """A photo, or the frame of a video at a time in seconds, at most `CELL` pixels high.

    Raises:
        MediaError: if it cannot be read.
    """
    if time is None:
        frame = read_image(path)
    else:
        with open_video(path) as video:
            _, frame = next(video.frames_at([time]))
    height, width = frame.shape[:2]
    if height <= CELL:
        return frame
    size = (min(4 * CELL, max(1, round(width * CELL / height))), CELL)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def data_uri(picture: UInt8[np.ndarray, "H W 3"], *, quality: int = 88) -> str:
    """The picture as a JPEG inside a URI, for a page that loads nothing."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
