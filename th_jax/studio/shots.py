"""Pictures of each uploaded image with its crop and landmarks, or the reason why it is left out."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.shots import inspect_shots, is_video
from th_jax.media import MediaError, read_image
from th_jax.media.isolation import run_limited
from th_jax.text import escape_control_chars

SIZE = 256
"""Side of the pictures, in pixels."""


class Tile(NamedTuple):
    """An image as the page shows it."""

    picture: UInt8[np.ndarray, "N N 3"]
    caption: str
    usable: bool


def examine(path: str) -> tuple[Any, Any, str]:
    """Return the crops and landmarks of a photo or video, and a summary; runs in an isolated process.

    Raises:
        ValueError, MediaError: as `inspect_shots`.
    """
    shots, sources = inspect_shots(path, size=SIZE)
    real = np.asarray(shots.mask) > 0
    if len(sources) == 1:
        summary = sources[0].detail
    else:
        counts = Counter(source.verdict.value for source in sources)
        summary = ", ".join(f"{verdict}: {count}" for verdict, count in counts.most_common())
    return shots.frames[real], shots.landmarks[real], summary


def thumbnail(path: str) -> UInt8[np.ndarray, "N N 3"]:
    """Return a photo, fitted into a gray square; runs in an isolated process.

    Raises:
        MediaError: if it cannot be read.
    """
    image = read_image(Path(path))
    height, width = image.shape[:2]
    scale = SIZE / max(height, width)
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )  # fmt: skip
    square = np.full((SIZE, SIZE, 3), 128, np.uint8)
    top, left = (SIZE - small.shape[0]) // 2, (SIZE - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


CAMERA_SIDE = 480
"""Largest side of a camera's frames, in pixels; larger ones are reduced, because faces are found sooner in them."""


def camera_frame(path: str) -> UInt8[np.ndarray, "H W 3"]:
    """Read a camera's frame; runs in an isolated process.

    Raises:
        MediaError: if it cannot be read.
    """
    image = read_image(Path(path))
    scale = CAMERA_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def with_landmarks(
    image: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "P 2"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw landmarks in pixels onto an image."""
    drawn = image.copy()
    radius = max(2, max(image.shape) // 200)
    for x, y in landmarks[np.isfinite(landmarks).all(-1)]:
        cv2.circle(drawn, (round(float(x)), round(float(y))), radius, (0, 255, 0), -1, cv2.LINE_AA)
    return drawn


def tiles(shots: Path, *, run: Callable[..., Any] = run_limited) -> Iterator[Tile]:
    """Yield a tile for each photo of a folder, or for each selected frame of a video.

    Args:
        shots: folder of photos, or a video.
        run: function that runs another one in an isolated process.

    Raises:
        MediaError, ValueError: if a video cannot be used.
    """
    if is_video(shots):
        frames, points, summary = run(examine, str(shots))
        for number, (frame, landmarks) in enumerate(zip(frames, points, strict=True), 1):
            yield Tile(with_landmarks(frame, landmarks * SIZE), f"frame {number} of {len(frames)}; {summary}", True)
        return
    for photo in sorted(shots.iterdir()):
        name = escape_control_chars(photo.name[4:], most=60)
        try:
            frames, points, summary = run(examine, str(photo))
            yield Tile(with_landmarks(frames[0], points[0] * SIZE), f"{name}: {summary}", True)
        except (ValueError, MediaError) as error:
            plain = (
                str(error).replace(str(photo), "it").partition(", or mark the 68 points")[0]
            )  # on this page by clicks
            reason = escape_control_chars(plain, most=300)
            yield Tile(_thumbnail(photo, run), f"{name}: left out: {reason}", False)


def _thumbnail(photo: Path, run: Callable[..., Any]) -> np.ndarray:
    try:
        return np.asarray(run(thumbnail, str(photo)))
    except (ValueError, MediaError):
        return np.full((SIZE, SIZE, 3), 128, np.uint8)
