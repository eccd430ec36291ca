"""Squares that follow a face slowly, so that a moving head stays where the training records show heads. NumPy only.

A square of `th_jax.faces.crop` holds a whole segment: where a head moves through the frame, the square is wide and the face in
it smaller than any in training. Here the square moves and scales with the head. Of the head's motion, the landmarks in the
square keep what is quick and small:

1. A dead zone: as long as the head moves less than DEAD_ZONE, the square does not move at all.
2. A low-pass filter with the time constant FOLLOW_SECONDS. For a file it is zero-phase (forward and backward in time), so that
   the square is not late; a camera's is causal.
3. A soft limit: place and size of the head in the square always stay near where they rest (`Placement`), as near as the 1st
   and the 99th percentile of the training records lie to their median, and within what the training records show.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from th_jax.faces.crop import face_size
from th_jax.topology import IBUG_POINTS, known_points


class Spread(NamedTuple):
    """The values of a measure over all faces of the bundled training records: minimum, percentiles 1, 50, 99, maximum.

    They are measured by `python -m benchmarks.following --placement`.
    """

    least: float
    low: float
    median: float
    high: float
    most: float


FACE_SHARE = Spread(0.318, 0.365, 0.452, 0.533, 0.581)
"""`face_size` in shares of the square's side."""

HEAD_X = Spread(0.401, 0.455, 0.500, 0.549, 0.611)
HEAD_Y = Spread(0.528, 0.598, 0.676, 0.745, 0.773)
"""`head_center` in shares of the square's side, from its left and top edge."""

YAW = Spread(-42.8, -33.3, 0.7, 33.1, 38.2)
"""`th_jax.faces.pose.yaw`, in degrees."""

DEAD_ZONE = 0.02
"""In shares of the square's side for the place, in log units for the size: smaller motion leaves the square where it is."""

FOLLOW_SECONDS = 0.7
"""Time constant with which the square follows."""

_LIMIT_SECONDS = 0.1
"""Time constant that takes the tracker's noise out of a square whose head is at the limit."""

_BLOCK = 10_000
_JAW, _EARS, _BRIDGE = slice(0, 17), (0, 1, 2, 14, 15, 16), slice(27, 31)


class Placement(NamedTuple):
    """Where a head at rest lies in its square, and how large its face is there."""

    share: float
    """`face_size` in shares of the square's side."""
    x: float
    y: float
    """`head_center` in shares of the square's side, from its left and top edge."""


TRAINING_PLACEMENT = Placement(FACE_SHARE.median, HEAD_X.median, HEAD_Y.median)
"""The median of the bundled training records."""

Squares = Float64[np.ndarray, "S 3"]
"""Left, top and side of each frame's square, in pixels, not rounded."""


def head_center(landmarks: Float[np.ndarray, "*batch P 2"]) -> Float[np.ndarray, "*batch 2"]:
    """A point of the head that stays where it is when the head turns, unlike the centroid of its landmarks.

    A turn moves the jaw's centroid as far as it moves the bridge of the nose against the ends of the jaw beside the ears:
    their difference stays. In the training records, whose heads turn about a fixed neck, its standard deviation sideways is
    0.04 face sizes; that of the landmarks' centroid is 0.24.
    """
    ears, bridge = landmarks[..., _EARS, :].mean(-2), landmarks[..., _BRIDGE, :].mean(-2)
    return np.asarray(landmarks[..., _JAW, :].mean(-2) + ears - bridge)


def placement_of(landmarks: Float[np.ndarray, "T P 2"] | None) -> Placement:
    """The median placement of a person's shots, but no further out than the training records show, with room to move.

    Args:
        landmarks: of the shots, in [0, 1] of their squares, NaN where unknown; None if nothing is known of them.

    Returns:
        TRAINING_PLACEMENT if no shot has all 68 points.
    """
    faces = np.zeros((0, IBUG_POINTS, 2)) if landmarks is None else landmarks[:, :IBUG_POINTS].astype(np.float64)
    faces = faces[usable_faces(faces)]
    if not len(faces):
        return TRAINING_PLACEMENT
    x, y = np.median(head_center(faces), axis=0).tolist()
    room = np.exp(DEAD_ZONE)
    return Placement(
        share=float(np.clip(np.median(face_size(faces)), FACE_SHARE.least * room, FACE_SHARE.most / room)),
        x=float(np.clip(x, HEAD_X.least + DEAD_ZONE, HEAD_X.most - DEAD_ZONE)),
        y=float(np.clip(y, HEAD_Y.least + DEAD_ZONE, HEAD_Y.most - DEAD_ZONE)),
    )


class _Limits(NamedTuple):
    """A placement, and how far size and place of the head may move away from it."""

    share: float
    center: Float64[np.ndarray, "2"]
    size_low: Float64[np.ndarray, "1"]
    size_high: Float64[np.ndarray, "1"]
    """In log units."""
    low: Float64[np.ndarray, "2"]
    high: Float64[np.ndarray, "2"]
    """In shares of the square's side."""


def _limits(rest: Placement) -> _Limits:
    around = [
        (max(spread.least, at - (spread.median - spread.low)), min(spread.most, at + (spread.high - spread.median)))
        for at, spread in zip(rest, (FACE_SHARE, HEAD_X, HEAD_Y), strict=True)
    ]
    size = np.log(np.array(around[:1]) / rest.share)
    center = np.array([rest.x, rest.y])
    place = np.array(around[1:]) - center[:, None]
    return _Limits(rest.share, center, size[:, 0], size[:, 1], place[:, 0], place[:, 1])


def usable_faces(landmarks: Float[np.ndarray, "S P 2"]) -> Bool[np.ndarray, " S"]:
    """Which frames have all 68 points, not all of them at one place."""
    known = np.asarray(known_points(landmarks)[:, :IBUG_POINTS].all(-1))
    known[known] = face_size(landmarks[known]) > 0
    return known


def following_squares(
    landmarks: Float[np.ndarray, "S P 2"], times: Float[np.ndarray, " S"], *, rest: Placement = TRAINING_PLACEMENT
) -> Squares:
    """The square of each frame of a segment, which moves and scales slowly with the head; zero-phase.

    Args:
        landmarks: in pixels of the frame. Frames with an unknown point get a square between those of their neighbors.
        times: of the frames, in seconds, ascending.
        rest: where the square holds a head that rests.

    Raises:
        ValueError: if no frame has a usable face (`usable_faces`).
    """
    known, size, center = _signals(landmarks)
    if not len(size):
        raise ValueError("a segment without landmarks has no square: no face was found in it")
    moments, limits = np.asarray(times, np.float64)[known], _limits(rest)
    side = np.exp(_path(size, np.ones_like(size), moments, limits.size_low, limits.size_high)) / limits.share
    middle = _path(center, side, moments, limits.low, limits.high)
    squares = np.concatenate([middle - limits.center * side, side], axis=1)
    return np.stack([np.interp(times, moments, column) for column in squares.T], axis=1)


def in_squares(landmarks: Float[np.ndarray, "S P 2"], squares: Squares) -> Float32[np.ndarray, "S P 2"]:
    """Landmarks in pixels as shares of each frame's own square: [0, 1] inside of it."""
    return ((landmarks - squares[:, None, :2]) / squares[:, None, 2:]).astype(np.float32)


def _signals(
    landmarks: Float[np.ndarray, "S P 2"],
) -> tuple[Bool[np.ndarray, " S"], Float64[np.ndarray, "K 1"], Float64[np.ndarray, "K 2"]]:
    """Which faces are usable, the logarithms of their sizes, and the centers of their heads; without a copy of all points."""
    known, sizes, centers = [np.zeros(0, bool)], [np.zeros(0)], [np.zeros((0, 2))]
    for start in range(0, len(landmarks), _BLOCK):
        block = landmarks[start : start + _BLOCK, :IBUG_POINTS].astype(np.float64)
        known.append(usable_faces(block))
        sizes.append(np.log(face_size(block[known[-1]])))
        centers.append(head_center(block[known[-1]]))
    return np.concatenate(known), np.concatenate(sizes)[:, None], np.concatenate(centers)


class SquareFollower:
    """The square of one frame after the other, without knowledge of the future: for a camera."""

    def __init__(self, *, rest: Placement = TRAINING_PLACEMENT) -> None:
        """No face is known yet; `rest` is where the square holds a head that rests."""
        self._time, self._limits = 0.0, _limits(rest)
        self._size = _CausalPath(self._limits.size_low, self._limits.size_high)
        self._center = _CausalPath(self._limits.low, self._limits.high)

    def __call__(self, landmarks: Float[np.ndarray, "P 2"], *, time: float) -> Float64[np.ndarray, "3"]:
        """Left, top and side, in pixels, of the square of a frame at `time` seconds, all of whose 68 points are known."""
        points = landmarks[:IBUG_POINTS].astype(np.float64)
        step, self._time = max(0.0, time - self._time), time
        size = np.log(np.maximum(face_size(points), 1e-6))[None]
        side = np.exp(self._size(size, unit=1.0, step=step)) / self._limits.share
        middle = self._center(head_center(points), unit=float(side[0]), step=step)
        return np.concatenate([middle - self._limits.center * side, side])


class _CausalPath:
    """The state of one signal's dead zone and filters."""

    def __init__(self, low: Float64[np.ndarray, " D"], high: Float64[np.ndarray, " D"]) -> None:
        self._low, self._high = low, high
        self._held: Float64[np.ndarray, " D"] | None = None
        self._slow = self._followed = np.zeros(0)

    def __call__(self, value: Float64[np.ndarray, " D"], *, unit: float, step: float) -> Float64[np.ndarray, " D"]:
        """The followed value; `unit` is what dead zone and limits are shares of."""
        if self._held is None:
            self._held = self._slow = self._followed = value
        self._held = np.clip(self._held, value - DEAD_ZONE * unit, value + DEAD_ZONE * unit)
        self._slow = self._slow + _shares(np.array(step), FOLLOW_SECONDS) * (self._held - self._slow)
        kept = unit * _limited((value - self._slow) / unit, self._low, self._high)
        self._followed = self._followed + _shares(np.array(step), _LIMIT_SECONDS) * (value - kept - self._followed)
        self._followed = np.clip(self._followed, value - self._high * unit, value - self._low * unit)
        return np.asarray(self._followed)


def _limited(
    values: Float64[np.ndarray, "*S D"], low: Float64[np.ndarray, " D"], high: Float64[np.ndarray, " D"]
) -> Float64[np.ndarray, "*S D"]:
    """Small values as they are, large ones toward, never beyond, their limits; smooth in between."""
    limit = np.where(values < 0, low, high)
    return np.asarray(values / np.sqrt(1 + (values / limit) ** 2))


def _path(
    values: Float64[np.ndarray, "S D"],
    unit: Float64[np.ndarray, "S 1"],
    times: Float64[np.ndarray, " S"],
    low: Float64[np.ndarray, " D"],
    high: Float64[np.ndarray, " D"],
) -> Float64[np.ndarray, "S D"]:
    """What the square follows: the values differ from it by `low` to `high` units; the same path backward in time."""
    slack = DEAD_ZONE * unit
    there, back = _held(values, slack), _held(values[::-1], slack[::-1])[::-1]
    slow = _zero_phase((there + back) / 2, times, FOLLOW_SECONDS)
    kept = unit * _limited((values - slow) / unit, low, high)
    return np.clip(_zero_phase(values - kept, times, _LIMIT_SECONDS), values - high * unit, values - low * unit)


def _held(values: Float64[np.ndarray, "S D"], slack: Float64[np.ndarray, "S 1"]) -> Float64[np.ndarray, "S D"]:
    """What moves only as far as it must to stay within `slack` of the values."""
    path, state = np.empty_like(values), values[0]
    for index, (low, high) in enumerate(zip(values - slack, values + slack, strict=True)):
        path[index] = state = np.minimum(np.maximum(state, low), high)
    return path


def _zero_phase(
    values: Float64[np.ndarray, "S D"], times: Float64[np.ndarray, " S"], seconds: float
) -> Float64[np.ndarray, "S D"]:
    """The low-pass filter forward and backward in time; the mean of both orders, which differ at the ends alone."""
    steps = np.diff(times)
    ahead, back = (_shares(np.concatenate([[0.0], each]), seconds) for each in (steps, steps[::-1]))
    first = _low_pass(_low_pass(values, ahead)[::-1], back)[::-1]
    return (first + _low_pass(_low_pass(values[::-1], back)[::-1], ahead)) / 2


def _low_pass(values: Float64[np.ndarray, "S D"], shares: Float64[np.ndarray, " S"]) -> Float64[np.ndarray, "S D"]:
    path, state = np.empty_like(values), values[0]
    for index, (value, share) in enumerate(zip(values, shares, strict=True)):
        path[index] = state = state + share * (value - state)
    return path


def _shares(steps: Float64[np.ndarray, "*S"], seconds: float) -> Float64[np.ndarray, "*S"]:
    """The weights of new values, so long after the values before, in a first-order low-pass filter of this time constant."""
    return np.asarray(-np.expm1(-steps / seconds))
