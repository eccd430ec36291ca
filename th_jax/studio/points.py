"""Places the 68 landmarks by hand on a photo in which no face was found: a few points, and the 3D model proposes the rest."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.landmark_editor.proposal import average_face, propose
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.media import read_image
from th_jax.media.isolation import run_limited
from th_jax.studio.shots import with_landmarks

Points = Float[np.ndarray, "68 2"]
Placed = Mapping[int, tuple[float, float]]

KEYS = {
    "outer corner of the eye on the left of the image": 36,
    "outer corner of the eye on the right": 45,
    "tip of the nose": 30,
    "corner of the mouth on the left": 48,
    "corner of the mouth on the right": 54,
    "chin": 8,
    "inner corner of the eye on the left": 39,
    "inner corner of the eye on the right": 42,
    "middle of the upper lip": 51,
    "middle of the lower lip": 57,
    "edge of the face on the left, level with the eyes": 0,
    "edge of the face on the right, level with the eyes": 16,
}
"""Points to begin with."""

NEEDED = 4
"""Minimum number of placed points."""

_LINE = re.compile(r"(\d{1,2})\s*:\s*(-?\d{1,5}(?:\.\d{1,3})?)[\s,]+(-?\d{1,5}(?:\.\d{1,3})?)")


def parse_points(text: str) -> dict[int, tuple[float, float]]:
    """Read placed points, one a line: NUMBER: X, Y, in pixels of the photo.

    Raises:
        ValueError: if a line is not of this form; the message names it.
    """
    placed = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _LINE.fullmatch(line)
        if found is None or int(found[1]) >= IBUG_POINTS:
            raise ValueError(f"a point is NUMBER: X, Y with a number from 0 to {IBUG_POINTS - 1}, but is {line[:50]!r}")
        placed[int(found[1])] = float(found[2]), float(found[3])
    return placed


def points_text(placed: Placed) -> str:
    """Write placed points as `parse_points` reads them."""
    return "\n".join(f"{number}: {x:g}, {y:g}" for number, (x, y) in placed.items())


def next_key(placed: Placed) -> str:
    """Name of the next point to place; the first one again if all are."""
    return next((name for name, number in KEYS.items() if number not in placed), next(iter(KEYS)))


def photo_pixels(path: str) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo; runs in an isolated process.

    Raises:
        MediaError: if it cannot be read.
    """
    return read_image(Path(path))


def proposed(photo: Path, placed: Placed, *, run: Callable[..., Any] = run_limited) -> tuple[Points, np.ndarray]:
    """Compute all 68 points of a photo, and draw them on it.

    Args:
        photo: image file.
        placed: points that were placed, in pixels.
        run: function that runs another one in an isolated process.

    Returns:
        The points in pixels, and the photo with them, `[H, W, 3]`.

    Raises:
        MediaError: if the photo cannot be read.
        ValueError: if a point is outside the photo.
    """
    image = np.asarray(run(photo_pixels, str(photo)))
    height, width = image.shape[:2]
    for number, (x, y) in placed.items():
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"point {number} at {x:g}, {y:g} is outside the photo, which has {width} x {height} pixels"
            )
    points = propose(placed, average_face(height=height, width=width))
    return points, with_landmarks(image, points)
