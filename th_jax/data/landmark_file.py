"""Reads hand-marked landmarks of one photo from a small text file, and checks that they form a face.

Formats, by suffix: `.txt` and `.csv` with one "x y" or "x,y" per line, `.json` with a list of [x, y] (or that list
under "landmarks"), and iBUG's `.pts`. File contents are never executed, and large files are not read.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from th_jax.faces import face_size
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS
from th_jax.media.limits import DEFAULT_LIMITS, check_file
from th_jax.storage.strict_json import parse_json
from th_jax.text import utf8

MIN_FACE = 24.0
"""Minimum side of a face's box in pixels; images with smaller faces are left out."""

MAX_BYTES = 65_536
"""Maximum size of a file in bytes: ten times what 70 points with all their digits need."""

REACH = 0.5
"""Maximum distance of a point outside the image, in image sides: a jaw may be cut off, but not a face."""


def read_landmark_file(path: str | Path, *, height: int, width: int) -> Float32[np.ndarray, "P 2"]:
    """Read the 68 landmarks, or 70 with the pupils, of the face in an image of `height` x `width` pixels.

    Coordinates are pixels, x then y, from the left and top edge of the image as displayed (after EXIF rotation). Those
    of .pts files count the first pixel as 1, like iBUG's, and are shifted by half a pixel. The order is iBUG's
    (`th_jax.landmarks.scheme.CONTOURS`).

    Raises:
        MediaError: a ValueError, if the path is not a regular file, or the file is empty or larger than MAX_BYTES.
        ValueError: if the format is unknown, if there are not 68 or 70 finite points in or near the image, or if they
            cannot form a face: too small, left and right swapped, or in another order.
    """
    path = Path(path)
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ValueError(
            f"{path} has the wrong suffix for a landmark file; expected one of {', '.join(_PARSERS)} (docs/shots.md)"
        )
    check_file(path, DEFAULT_LIMITS._replace(file_bytes=MAX_BYTES))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        points = np.array(parse(utf8(content, name="its content")), np.float64).reshape(-1, 2)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable landmark file: {error} (docs/shots.md)") from error
    check_landmarks(path, points, height=height, width=width)
    return points.astype(np.float32)


def _lines(text: str) -> list[tuple[float, float]]:
    """Parse one point per line; skip empty lines, comments that start with #, and a header line "x y"."""
    points: list[tuple[float, float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.replace(",", " ").replace(";", " ").split()
        if (
            not parts
            or parts[0].startswith("#")
            or (not points and [p.strip('"').lower() for p in parts] == ["x", "y"])
        ):
            continue
        try:
            x, y = (float(part) for part in parts)
        except ValueError:
            raise ValueError(f'line {number}: expected two numbers "x y", got {line.strip()[:40]!r}') from None
        points.append((x, y))
    return points


def _json(text: str) -> list[tuple[float, float]]:
    content = parse_json(text, name="it")
    if isinstance(content, dict):
        content = content.get("landmarks")
    if not isinstance(content, list):
        raise ValueError('expected a list of [x, y] at its top level or under "landmarks"')
    return [parse_point(str(number), point) for number, point in enumerate(content)]


def parse_point(name: str, point: object) -> tuple[float, float]:
    """Parse the [x, y] of a point in JSON.

    Raises:
        ValueError: if it is not a list of two numbers; the message names the point.
        OverflowError: if a number is too large.
    """
    if not (isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) for value in point)):
        raise ValueError(f"point {name}: expected [x, y], got {str(point)[:40]}")
    return float(point[0]), float(point[1])


def _pts(text: str) -> list[tuple[float, float]]:
    head, brace, rest = text.partition("{")
    inside, end, _ = rest.partition("}")
    if not (brace and end and "n_points" in head):
        raise ValueError('"n_points: 68" or the braces of a .pts file are missing')
    return [(x - 0.5, y - 0.5) for x, y in _lines(inside)]


_PARSERS: dict[str, Callable[[str], list[tuple[float, float]]]] = {
    ".txt": _lines,
    ".csv": _lines,
    ".json": _json,
    ".pts": _pts,
}


def check_landmarks(path: str | Path, points: Float[np.ndarray, "P 2"], *, height: int, width: int) -> None:
    """Check that points in pixels can be the landmarks of a face in an image of this size.

    Args:
        path: the file, which error messages name.
        points: points in pixels.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: as `read_landmark_file`.
    """
    if len(points) not in (IBUG_POINTS, PUPIL_POINTS):
        raise ValueError(
            f"{path} has {len(points)} points, but expected {IBUG_POINTS}, or {PUPIL_POINTS} with the pupils "
            "(docs/shots.md shows their order)"
        )
    unknown = np.flatnonzero(~np.isfinite(points).all(-1))
    if unknown.size:
        raise ValueError(f"{path}: point {unknown[0]} is not finite; every point must be marked")
    if np.abs(points).max() <= 2:
        raise ValueError(
            f"{path}: all points lie within 2 px of the image's corner; give pixel coordinates, not fractions of "
            "its side"
        )
    sides = np.array([width, height])
    outside = np.flatnonzero(((points < -REACH * sides) | (points > (1 + REACH) * sides)).any(-1))
    if outside.size:
        number, (x, y) = outside[0], points[outside[0]]
        raise ValueError(
            f"{path}: point {number} at ({x:g}, {y:g}) lies far outside the image of {width} x {height} px"
        )
    size = float(face_size(points))
    if size < MIN_FACE:
        raise ValueError(
            f"{path}: the points span a face of {size:.0f} px, but at least {MIN_FACE:.0f} are required; enlarge "
            "the image first"
        )
    _check_order(path, points)


def _check_order(path: str | Path, points: Float[np.ndarray, "P 2"]) -> None:
    """Check that the points are not mirrored or in another order; lying and inverted faces are valid."""
    left, right, mouth = (points[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68)))
    eyes, brows, chin = (left + right) / 2, points[17:27].mean(0), points[8]
    across, down = right - left, mouth - eyes
    if not ((chin - mouth) @ down > 0 > (brows - eyes) @ down):
        raise ValueError(
            f"{path}: brows, eyes, mouth and chin are not in order; the points must be in iBUG order (docs/shots.md)"
        )
    if across[0] * down[1] - across[1] * down[0] <= 0:
        raise ValueError(
            f"{path}: left and right are swapped; points 36-41 are the eye on the left of an upright image "
            "(docs/shots.md)"
        )
