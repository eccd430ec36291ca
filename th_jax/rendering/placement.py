"""Brings a driver's landmarks to where the weights expect a face, and counts frames outside of what they learned."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from th_jax.faces import TRAINING_PLACEMENT, Placement, face_size, following_squares, in_squares, segment_square
from th_jax.faces.follow import FACE_SHARE, YAW
from th_jax.faces.pose import yaw
from th_jax.topology import IBUG_POINTS

Follow = Literal["face", "segment"]

MIN_SEGMENT = 3
"""Faces followed for fewer frames are taken for false alarms, unless the whole video is as short."""

SQUARE_SAMPLES = 10_000
"""Frames of a segment from which its fixed square is decided; a longer segment is sampled evenly."""

_BLOCK = 10_000
_ROUNDING = 5e-4
"""Of the constants of `th_jax.faces.follow`, up to which a square that follows may take a face."""


class OutOfRange(NamedTuple):
    """Frames whose landmarks lie outside of what the bundled training records show; a frame may do so in several ways."""

    frames: int
    size: int
    """Frames whose face is smaller or larger in the square than any in training."""
    outside: int
    """Frames with landmarks outside of the square."""
    turned: int
    """Frames whose head is turned further than any in training."""

    def __str__(self) -> str:
        """Such as "3 frames beyond the training range (2 by face size, 1 by landmarks outside of the frame)"."""
        reasons = ((self.size, "face size"), (self.outside, "landmarks outside of the frame"), (self.turned, "profile"))
        counted = ", ".join(f"{count} by {reason}" for count, reason in reasons if count)
        return f"{self.frames} frames beyond the training range" + (f" ({counted})" if counted else "")


def out_of_range(poses: Iterable[Float32[np.ndarray, "P 2"]]) -> OutOfRange:
    """Count the frames that the weights cannot be expected to show, of landmarks as they drive, in [0, 1]."""
    counts = np.zeros(4, np.int64)
    for pose in poses:
        face = pose[:IBUG_POINTS].astype(np.float64)
        size = not FACE_SHARE.least - _ROUNDING <= face_size(face) <= FACE_SHARE.most + _ROUNDING
        outside = bool((face < 0).any() or (face > 1).any())
        turned = not YAW.least <= yaw(face[None])[0] <= YAW.most
        counts += (size or outside or turned, size, outside, turned)
    return OutOfRange(*counts.tolist())


def check_range(poses: Iterable[Float32[np.ndarray, "P 2"]], *, strict: bool) -> OutOfRange:
    """Count as `out_of_range` does; with `strict`, such frames are an error.

    Raises:
        ValueError: if `strict` and there are any.
    """
    counts = out_of_range(poses)
    if strict and counts.frames:
        raise ValueError(f"the driver has {counts}: choose another part or driver, or leave --strict away")
    return counts


def check_follow(follow: str) -> None:
    """Check the name of a way to place squares.

    Raises:
        ValueError: for any other than "face" and "segment".
    """
    if follow not in get_args(Follow):
        raise ValueError(f'follow must be "face" or "segment", but is {follow!r}')


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
    """Decide a square for each frame, segment by segment; the landmarks become shares of it, in place.

    Segments of fewer than MIN_SEGMENT frames become frames without a face, unless all are as short; so do those that lie
    within another one: `follow_face` found a face in a flash.

    Args:
        landmarks: in pixels; NaN without a face.
        segment: number of each frame's segment, -1 without a face.
        times: of the frames, in seconds, ascending.
        sizes: height and width of each segment's frames, in pixels.
        follow: "face" for squares that move with the face (`following_squares`), "segment" for a fixed one for each
            segment (`segment_square`).
        rest: where squares that move hold a head that rests: `placement_of` the avatar's shots.
        context: above 1 shows more around the head.

    Returns:
        New numbers of the segments, 0 and up, -1 without a face; and left, top and side of each frame's square, in
        pixels, NaN outside of all segments.

    Raises:
        ValueError: for an unknown `follow`, or a context that is not positive.
    """
    check_follow(follow)
    if not context > 0:
        raise ValueError(f"context must be positive, but is {context}")
    segment = _without_flashes(landmarks, segment)
    counts = Counter(segment[segment >= 0].tolist())
    least = min(MIN_SEGMENT, max(counts.values(), default=0))
    numbers, squares = np.full(len(segment), -1), np.full((len(segment), 3), np.nan)
    for old in sorted(counts):
        frames = np.flatnonzero(segment == old)
        if counts[old] < least:
            landmarks[frames] = np.nan
            continue
        stretch = slice(int(frames[0]), int(frames[-1]) + 1)  # with its gaps, whose landmarks are NaN: no copy of hours
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
