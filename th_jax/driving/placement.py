"""Placement of driving landmarks: a square for each frame, and the check of the training range."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from th_jax.faces import TRAINING_PLACEMENT, Placement, face_size, following_squares, in_squares, segment_square
from th_jax.faces.follow import FACE_SHARE, YAW
from th_jax.faces.pose import yaw
from th_jax.landmarks.scheme import IBUG_POINTS

Follow = Literal["face", "segment"]

MIN_SEGMENT = 3
"""Faces followed for fewer frames count as false detections, unless all segments are that short."""

SQUARE_SAMPLES = 10_000
"""Maximum number of frames of a segment from which its fixed square is computed; longer segments are sampled evenly."""

_BLOCK = 10_000
_ROUNDING = 5e-4
"""Rounding tolerance relative to the limits of `th_jax.faces.follow`, which a following square may reach exactly."""


class OutOfRange(NamedTuple):
    """Number of frames whose landmarks lie outside the range of the bundled training records; categories may overlap."""

    frames: int
    size: int
    """Frames in which the face is smaller or larger in the square than any in training."""
    outside: int
    """Frames with landmarks outside the square."""
    turned: int
    """Frames in which the head is turned further than any in training."""

    def __str__(self) -> str:
        """Format as, for example, "3 frames beyond the training range (2 by face size, 1 by profile)"."""
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        reasons = ((self.size, "face size"), (self.outside, "landmarks outside the frame"), (self.turned, "profile"))
        counted = ", ".join(f"{count} by {reason}" for count, reason in reasons if count)
        return f"{frames} beyond the training range" + (f" ({counted})" if counted else "")


def out_of_range(poses: Iterable[Float32[np.ndarray, "P 2"]]) -> OutOfRange:
    """Count the frames outside the range of the training data, given driving landmarks in [0, 1]."""
    counts = np.zeros(4, np.int64)
    for pose in poses:
        face = pose[:IBUG_POINTS].astype(np.float64)
        size = not FACE_SHARE.least - _ROUNDING <= face_size(face) <= FACE_SHARE.most + _ROUNDING
        outside = bool((face < 0).any() or (face > 1).any())
        turned = not YAW.least <= yaw(face[None])[0] <= YAW.most
        counts += (size or outside or turned, size, outside, turned)
    return OutOfRange(*counts.tolist())


def check_range(poses: Iterable[Float32[np.ndarray, "P 2"]], *, strict: bool) -> OutOfRange:
    """Count frames as `out_of_range` does; with `strict`, raise an error if there are any.

    Raises:
        ValueError: if `strict` is True and at least one frame is out of range.
    """
    counts = out_of_range(poses)
    if strict and counts.frames:
        raise ValueError(f"the driver has {counts}: choose another part or driver, or omit --strict")
    return counts


def check_follow(follow: str) -> None:
    """Check the name of a square placement mode.

    Raises:
        ValueError: if it is neither "face" nor "segment".
    """
    if follow not in get_args(Follow):
        raise ValueError(f'follow must be "face" or "segment", got {follow!r}')


def place_segments(
    landmarks: Float[np.ndarray, "S P 2"],
    segment: Int[np.ndarray, " S"],
    times: Float64[np.ndarray, " S"],
    sizes: Mapping[int, tuple[int, int]],
    *,
    follow: Follow = "face",
    rest: Placement = TRAINING_PLACEMENT,
    context: float = 1.0,
) -> tuple[Int[np.ndarray, " S"], Float64[np.ndarray, "S 3"]]:
    """Compute a square for each frame, segment by segment, and convert the landmarks in place to coordinates relative to it.

    Segments of fewer than MIN_SEGMENT frames become frames without a face, unless all are that short. So do segments
    inside another one, for which `follow_face` found a face during a flash.

    Args:
        landmarks: landmarks in pixels; NaN without a face.
        segment: segment number of each frame, -1 without a face.
        times: times of the frames, in seconds, ascending.
        sizes: height and width of each segment's frames, in pixels.
        follow: "face" for squares that follow the face (`following_squares`), "segment" for one fixed square per
            segment (`segment_square`).
        rest: placement of a resting head in a following square: `placement_of` the avatar's shots.
        context: scale of the square; values above 1 show more around the head.

    Returns:
        New segment numbers from 0 on, -1 without a face; and left, top and side of each frame's square, in pixels, NaN
        outside all segments.

    Raises:
        ValueError: if `follow` is unknown or the context is not positive.
    """
    check_follow(follow)
    if not context > 0:
        raise ValueError(f"context must be positive, got {context}")
    segment = _without_flashes(landmarks, segment)
    counts = Counter(segment[segment >= 0].tolist())
    least = min(MIN_SEGMENT, max(counts.values(), default=0))
    numbers, squares = np.full(len(segment), -1), np.full((len(segment), 3), np.nan)
    for old in sorted(counts):
        frames = np.flatnonzero(segment == old)
        if counts[old] < least:
            landmarks[frames] = np.nan
            continue
        # Includes gaps, whose landmarks are NaN, to avoid a copy of hours of landmarks.
        stretch = slice(int(frames[0]), int(frames[-1]) + 1)
        if follow == "face":
            own = following_squares(landmarks[stretch], times[stretch], rest=rest)
            own[:, :2] -= (context - 1) / 2 * own[:, 2:]
            own[:, 2] *= context
        else:
            height, width = sizes[old]
            sample = frames[:: math.ceil(len(frames) / SQUARE_SAMPLES)]
            own = np.array([segment_square(landmarks[sample], height=height, width=width, context=context)], np.float64)
        squares[stretch] = own
        for start in range(stretch.start, stretch.stop, _BLOCK):
            block = slice(start, min(start + _BLOCK, stretch.stop))
            landmarks[block] = in_squares(landmarks[block], squares[block])
        numbers[frames] = numbers.max() + 1
    return numbers, squares


def _without_flashes(landmarks: Float[np.ndarray, "S P 2"], segment: Int[np.ndarray, " S"]) -> Int[np.ndarray, " S"]:
    outer = segment.copy()
    for number in np.unique(segment[segment >= 0]):
        frames = np.flatnonzero(outer == number)
        if len(frames):
            stretch = np.arange(frames[0], frames[-1] + 1)
            inner = stretch[(outer[stretch] >= 0) & (outer[stretch] != number)]
            outer[inner], landmarks[inner] = -1, np.nan
    return outer
