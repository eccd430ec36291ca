"""The 68 iBUG landmarks and two pupils: order, colored line segments and mirror order. NumPy only.

Landmarks are points `[P, 2]`, x then y, in [0, 1] from the left and the top edge of the square frame; P is 68, or 70 with the
pupils. "Left" and "right" refer to the image, not to the person.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

IBUG_POINTS = 68
"""Points of the iBUG 300-W scheme, which dlib's and FAN's predictors share (paper, section 4)."""

PUPIL_POINTS = 70
"""The 68 points and the two pupils: 68 inside the eye 36-41, 69 inside the eye 42-47."""

Color = tuple[float, float, float]


class Contour(NamedTuple):
    """A polyline through landmarks, drawn in one color."""

    name: str
    points: tuple[int, ...]
    closed: bool
    color: Color


CONTOURS: tuple[Contour, ...] = (
    Contour("jaw", tuple(range(0, 17)), False, (1.0, 1.0, 1.0)),
    Contour("left brow", tuple(range(17, 22)), False, (1.0, 0.0, 0.0)),
    Contour("right brow", tuple(range(22, 27)), False, (0.0, 1.0, 0.0)),
    Contour("nose bridge", tuple(range(27, 31)), False, (0.0, 0.0, 1.0)),
    Contour("nose base", tuple(range(31, 36)), False, (0.0, 0.0, 1.0)),
    Contour("left eye", tuple(range(36, 42)), True, (1.0, 0.0, 1.0)),
    Contour("right eye", tuple(range(42, 48)), True, (0.0, 1.0, 1.0)),
    Contour("outer lips", tuple(range(48, 60)), True, (1.0, 1.0, 0.0)),
    Contour("inner lips", tuple(range(60, 68)), True, (1.0, 0.5, 0.0)),
)
"""Colors of the landmark image (docs/paper-map.md); the inner lips and the pupils are additions to the paper."""

PUPIL_COLOR: Color = (1.0, 1.0, 1.0)
PUPIL_RADIUS = 1.0
"""Radius of a pupil's disc, in line widths."""

LINE_WIDTH = 2.0
"""Default width of the drawn lines, in 256ths of the image's side; lines are always at least one pixel wide."""


class Segments(NamedTuple):
    """The contours as straight strokes, in drawing order; a pupil is a stroke from a point to itself."""

    start: Int[np.ndarray, " L"]
    end: Int[np.ndarray, " L"]
    radius: Float[np.ndarray, " L"]
    """Half the stroke's thickness, in line widths."""
    color: Float[np.ndarray, "L 3"]


def segments(points: int) -> Segments:
    """Return the strokes of the landmark image for `points` (68 or 70) landmarks.

    Raises:
        ValueError: if the number of points is not 68 or 70.
    """
    check_point_count(points)
    strokes: list[tuple[int, int, float, Color]] = []
    for contour in CONTOURS:
        ends = contour.points[1:] + contour.points[:1] if contour.closed else contour.points[1:]
        strokes += [(a, b, 0.5, contour.color) for a, b in zip(contour.points, ends, strict=False)]
    strokes += [(i, i, PUPIL_RADIUS, PUPIL_COLOR) for i in range(IBUG_POINTS, points)]
    start, end, radius, color = zip(*strokes, strict=True)
    return Segments(
        np.array(start, np.int32), np.array(end, np.int32), np.array(radius, np.float32), np.array(color, np.float32)
    )


def _mirror_order() -> Int[np.ndarray, "70"]:
    order = np.arange(PUPIL_POINTS)
    pairs = [(i, 16 - i) for i in range(8)]  # jaw
    pairs += [(17 + i, 26 - i) for i in range(5)]  # brows
    pairs += [(31, 35), (32, 34)]  # nose base
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]  # eyes
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58)]  # outer lips
    pairs += [(60, 64), (61, 63), (65, 67)]  # inner lips
    pairs += [(68, 69)]  # pupils
    for a, b in pairs:
        order[a], order[b] = b, a
    return order


MIRROR_ORDER: Int[np.ndarray, "70"] = _mirror_order()
"""Point i of a mirrored image is point MIRROR_ORDER[i] of the original image."""


def mirror_landmarks(landmarks: Float[np.ndarray, "*batch P 2"]) -> Float[np.ndarray, "*batch P 2"]:
    """Return the landmarks of the horizontally mirrored frame, in [0, 1], in the iBUG order of that frame.

    Raises:
        ValueError: if the number of points is not 68 or 70.
    """
    points = landmarks.shape[-2]
    check_point_count(points)
    mirrored = landmarks[..., MIRROR_ORDER[:points], :].copy()
    mirrored[..., 0] = 1.0 - mirrored[..., 0]
    return mirrored


def known_points(landmarks: Float[np.ndarray, "*batch P 2"]) -> Bool[np.ndarray, "*batch P"]:
    """Return which points are known; NaN or infinite coordinates mark points that were not found."""
    return np.isfinite(landmarks).all(-1)


def check_point_count(points: int) -> None:
    """Check that the number of landmarks is 68 or 70.

    Raises:
        ValueError: if the number of points is not 68 or 70.
    """
    if points not in (IBUG_POINTS, PUPIL_POINTS):
        raise ValueError(f"landmarks must be 68 iBUG points, or 70 with the two pupils, but got {points}")
