"""Computes the fixed square of a clip segment that contains the whole head, and its crops and landmarks. No JAX, no dlib.

Shards, shots and drivers all use `crop_segment`. The square is fixed within a segment, because per-frame boxes would
move the background and shake the head. Frame coordinates are pixels from the left and top edge; crop coordinates are in
[0, 1] of the square.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.landmarks.scheme import IBUG_POINTS, known_points

HEAD_LEFT_RIGHT = 0.80
HEAD_ABOVE = 1.05
HEAD_BELOW = 0.75
"""Extent of the head from the centroid of the 68 landmarks, in face sizes (`face_size`): ears and hair on both sides,
the top of the hair above, the chin and some neck below."""

_TRIM = 5.0
"""Percentage of a segment's frames that may exceed each side, so that a few outliers do not enlarge the square."""

_ODD_SIZE = 1.6
"""Frames whose face is larger or smaller than the segment's median by this factor are ignored."""


class Square(NamedTuple):
    """A square in whole pixels, so that crops at scale 1 keep their pixels; it may extend beyond the frame."""

    left: int
    top: int
    side: int


class Crops(NamedTuple):
    """Crops of a segment. Landmarks are in [0, 1] of the square, outside that range if outside the square, NaN if unknown."""

    frames: UInt8[np.ndarray, "S H W 3"]
    landmarks: Float[np.ndarray, "S P 2"]
    square: Square


def face_size(landmarks: Float[np.ndarray, "*batch P 2"]) -> Float[np.ndarray, "*batch"]:
    """Compute three times the mean distance of the 68 points from their centroid, in pixels; NaN if one is unknown.

    This is the side of dlib's detection box (median 3.05 over 162 frames of four people), but more stable than a
    bounding box when the head turns or the mouth opens.
    """
    points = landmarks[..., :IBUG_POINTS, :]
    return np.asarray(3.05 * np.linalg.norm(points - points.mean(-2, keepdims=True), axis=-1).mean(-1))


def segment_square(landmarks: Float[np.ndarray, "S P 2"], *, height: int, width: int, context: float = 1.0) -> Square:
    """Compute the square that contains the head in all frames of a segment.

    In each frame, the head extends from the centroid of its landmarks by HEAD_LEFT_RIGHT, HEAD_ABOVE and HEAD_BELOW
    face sizes. The square is centered on the union of these boxes, without the outermost 5 % at each side and without
    faces of unusual size, and is as large as the union's longer side. It is then moved inside the frames of `height` x
    `width` pixels; a square larger than the frame becomes the whole frame (`whole_frame_square`). Padding thus only
    occurs if a frame is too narrow, and no visible part of the head is lost.

    Args:
        landmarks: landmarks in pixels; NaN where unknown.
        height: height of the frames, in pixels.
        width: width of the frames, in pixels.
        context: scale of the square; values above 1 show more around the head.

    Raises:
        ValueError: if no frame has all of its landmarks, or the context is not positive.
    """
    if not context > 0:
        raise ValueError(f"context must be positive, got {context}")
    known = landmarks[known_points(landmarks)[:, :IBUG_POINTS].all(-1), :IBUG_POINTS].astype(np.float64)
    if not len(known):
        raise ValueError("cannot crop a segment without landmarks: no face was found in it")
    size, center = face_size(known), known.mean(-2)
    usual = np.abs(np.log(size / np.median(size))) <= np.log(_ODD_SIZE)
    size, center = size[usual], center[usual]
    left = np.percentile(center[:, 0] - HEAD_LEFT_RIGHT * size, _TRIM)
    right = np.percentile(center[:, 0] + HEAD_LEFT_RIGHT * size, 100 - _TRIM)
    top = np.percentile(center[:, 1] - HEAD_ABOVE * size, _TRIM)
    bottom = np.percentile(center[:, 1] + HEAD_BELOW * size, 100 - _TRIM)
    side = max(1, round(context * max(right - left, bottom - top)))
    if side >= max(height, width):
        return whole_frame_square(height, width)
    return Square(
        _inside(round((left + right - side) / 2), side, width),
        _inside(round((top + bottom - side) / 2), side, height),
        side,
    )


def _inside(start: int, side: int, extent: int) -> int:
    """Move an interval into the frame, or center it if the frame is too narrow for it."""
    return min(max(start, 0), extent - side) if side <= extent else (extent - side) // 2


def whole_frame_square(height: int, width: int) -> Square:
    """Return the square of frames that are crops already, such as VoxCeleb's: the whole frame, padded to a square."""
    side = max(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def crop_frame(frame: UInt8[np.ndarray, "H W 3"], square: Square, *, size: int) -> UInt8[np.ndarray, "N N 3"]:
    """Crop a square and resize it to `size` pixels; beyond the frame, its edge pixels are repeated.

    Downscaling averages areas, and upscaling uses cubic interpolation.

    Raises:
        ValueError: if the square lies entirely outside the frame, or the size is not positive.
    """
    if size < 1:
        raise ValueError(f"the size of a crop must be at least 1 px, got {size}")
    height, width = frame.shape[:2]
    right, bottom = square.left + square.side, square.top + square.side
    inside = frame[max(0, square.top) : max(0, bottom), max(0, square.left) : max(0, right)]
    if inside.size == 0:
        raise ValueError(f"{square} lies outside the frame of {width} x {height} px")
    borders = (max(0, -square.top), max(0, bottom - height), max(0, -square.left), max(0, right - width))
    if any(borders):
        inside = cv2.copyMakeBorder(inside, *borders, borderType=cv2.BORDER_REPLICATE)
    if square.side == size:
        return inside.copy()
    shrinks = size < square.side
    return cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def to_crop(points: Float[np.ndarray, "*batch 2"], square: Square) -> Float[np.ndarray, "*batch 2"]:
    """Convert points from frame pixels to coordinates in the square, [0, 1] inside it."""
    return ((points - np.array([square.left, square.top])) / square.side).astype(np.float32)


def crop_segment(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    landmarks: Float[np.ndarray, "S P 2"],
    *,
    size: int,
    square: Square | None = None,
    context: float = 1.0,
) -> Crops:
    """Crop a segment's frames and landmarks to one square: the given one, or `segment_square` of the landmarks.

    Raises:
        ValueError: if the numbers of frames and landmarks differ, or as `segment_square` and `crop_frame`.
    """
    crops = []
    for frame in frames:
        if square is None:
            square = segment_square(landmarks, height=frame.shape[0], width=frame.shape[1], context=context)
        crops.append(crop_frame(frame, square, size=size))
    if square is None or len(crops) != len(landmarks):
        raise ValueError(f"landmarks and frames must have the same length, got {len(landmarks)} and {len(crops)}")
    return Crops(np.stack(crops), to_crop(landmarks, square), square)
