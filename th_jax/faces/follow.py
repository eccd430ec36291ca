"""Squares that follow a face slowly, so that a moving head stays where it appears in the training records. NumPy only.

A square of `th_jax.faces.crop` contains a whole segment. If the head moves through the frame, that square is wide, and
the face in it is smaller than any in training. The squares here move and scale with the head instead. Relative to the
square, the landmarks keep only fast and small motion:

1. Dead zone: while the head moves less than DEAD_ZONE, the square does not move at all.
2. Low-pass filter with the time constant FOLLOW_SECONDS. For files it is zero-phase (forward and backward in time), so
that the square does not lag; for cameras it is causal.
3. Soft limit: position and size of the head in the square stay close to those at rest (`Placement`), as close as the
1st and 99th percentile of the training records are to their median, and within the range of the training records.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from th_jax.faces.crop import face_size
from th_jax.landmarks.scheme import IBUG_POINTS, known_points


class Spread(NamedTuple):
    """Statistics of a measure over all faces of the bundled training records: minimum, percentiles 1, 50, 99, maximum.

    They are computed by `python -m benchmarks.following --placement`.
    """

    least: float
    low: float
    median: float
    high: float
    most: float


FACE_SHARE = Spread(0.318, 0.365, 0.452, 0.533, 0.581)
"""`face_size` as a share of the square's side."""

HEAD_X = Spread(0.401, 0.455, 0.500, 0.549, 0.611)
HEAD_Y = Spread(0.528, 0.598, 0.676, 0.745, 0.773)
"""`head_center` as a share of the square's side, from its left and top edge."""

YAW = Spread(-42.8, -33.3, 0.7, 33.1, 38.2)
"""`th_jax.faces.pose.yaw`, in degrees."""

DEAD_ZONE = 0.02
"""Motion below this leaves the square unchanged: a share of the square's side for position, log units for size."""

FOLLOW_SECONDS = 0.7
"""Time constant of the square's motion, in seconds."""

_LIMIT_SECONDS = 0.1
"""Time constant in seconds that filters tracker noise from a square whose head is at the limit."""

_BLOCK = 10_000
_JAW, _EARS, _BRIDGE = slice(0, 17), (0, 1, 2, 14, 15, 16), slice(27, 31)


class Placement(NamedTuple):
    """Position and size of a resting head in its square."""

    share: float
    """`face_size` as a share of the square's side."""
    x: float
    y: float
    """`head_center` as a share of the square's side, from its left and top edge."""


TRAINING_PLACEMENT = Placement(FACE_SHARE.median, HEAD_X.median, HEAD_Y.median)
"""The median of the bundled training records."""

Squares = Float64[np.ndarray, "S 3"]
"""Left, top and side of each frame's square, in pixels, not rounded."""


def head_center(landmarks: Float[np.ndarray, "*batch P 2"]) -> Float[np.ndarray, "*batch 2"]:
    """Compute a point of the head that stays in place when the head turns, unlike the centroid of its landmarks.

    A turn moves the jaw's centroid as far as it moves the bridge of the nose relative to the ends of the jaw beside the
    ears, so that their difference is constant. In the training records, whose heads turn about a fixed neck, its
    sideways standard deviation is 0.04 face sizes, compared with 0.24 for the landmarks' centroid.
    """
    ears, bridge = landmarks[..., _EARS, :].mean(-2), landmarks[..., _BRIDGE, :].mean(-2)
    return np.asarray(landmarks[..., _JAW, :].mean(-2) + ears - bridge)


def placement_of(landmarks: Float[np.ndarray, "T P 2"] | None) -> Placement:
    """Compute the median placement of a person's shots, limited to the range of the training records with room to move.

    Landmarks are in [0, 1] of the shots' squares, NaN where unknown; None if there are none.

    Returns:
        The placement; TRAINING_PLACEMENT if no shot has all 68 points.
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
    """A placement, and how far size and position of the head may deviate from it."""

    share: float
    center: Float64[np.ndarray, "2"]
    size_low: Float64[np.ndarray, "1"]
    size_high: Float64[np.ndarray, "1"]
    """Deviations of the size, in log units."""
    low: Float64[np.ndarray, "2"]
    high: Float64[np.ndarray, "2"]
    """Deviations of the position, as shares of the square's side."""


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
    """Return a mask of the frames whose 68 points are all known and not all identical."""
    known = np.asarray(known_points(landmarks)[:, :IBUG_POINTS].all(-1))
    known[known] = face_size(landmarks[known]) > 0
    return known


def following_squares(
    landmarks: Float[np.ndarray, "S P 2"], times: Float[np.ndarray, " S"], *, rest: Placement = TRAINING_PLACEMENT
) -> Squares:
    """Compute a square for each frame of a segment that moves and scales slowly with the head, zero-phase.

    Frames with an unknown point get a square interpolated between their neighbors. `rest` is the placement of a resting
    head.

    Raises:
        ValueError: if no frame has a usable face (`usable_faces`).
    """
    known, size, center = _signals(landmarks)
    if not len(size):
        raise ValueError("cannot crop a segment without landmarks: no face was found in it")
    moments, limits = np.asarray(times, np.float64)[known], _limits(rest)
    side = np.exp(_path(size, np.ones_like(size), moments, limits.size_low, limits.size_high)) / limits.share
    middle = _path(center, side, moments, limits.low, limits.high)
    squares = np.concatenate([middle - limits.center * side, side], axis=1)
    return np.stack([np.interp(times, moments, column) for column in squares.T], axis=1)


def in_squares(landmarks: Float[np.ndarray, "S P 2"], squares: Squares) -> Float32[np.ndarray, "S P 2"]:
    """Convert landmarks from pixels to coordinates in each frame's own square, [0, 1] inside it."""
    return ((landmarks - squares[:, None, :2]) / squares[:, None, 2:]).astype(np.float32)


def _signals(
    landmarks: Float[np.ndarray, "S P 2"],
) -> tuple[Bool[np.ndarray, " S"], Float64[np.ndarray, "K 1"], Float64[np.ndarray, "K 2"]]:
    """Return the mask of usable faces, their log sizes and their head centers, without copying all points."""
    known, sizes, centers = [np.zeros(0, bool)], [np.zeros(0)], [np.zeros((0, 2))]
    for start in range(0, len(landmarks), _BLOCK):
        block = landmarks[start : start + _BLOCK, :IBUG_POINTS].astype(np.float64)
        known.append(usable_faces(block))
        sizes.append(np.log(face_size(block[known[-1]])))
        centers.append(head_center(block[known[-1]]))
    return np.concatenate(known), np.concatenate(sizes)[:, None], np.concatenate(centers)


class SquareFollower:
    """Computes the square of one frame after another without future frames, for a camera."""

    def __init__(self, *, rest: Placement = TRAINING_PLACEMENT) -> None:
        """Start without a face; `rest` is the placement of a resting head in the square."""
        self._time, self._limits = 0.0, _limits(rest)
        self._size = _CausalPath(self._limits.size_low, self._limits.size_high)
        self._center = _CausalPath(self._limits.low, self._limits.high)

    def __call__(self, landmarks: Float[np.ndarray, "P 2"], *, time: float) -> Float64[np.ndarray, "3"]:
        """Compute left, top and side of a frame's square, in pixels, given its 68 known points and its time in seconds."""
        points = landmarks[:IBUG_POINTS].astype(np.float64)
        step, self._time = max(0.0, time - self._time), time
        size = np.log(np.maximum(face_size(points), 1e-6))[None]
        side = np.exp(self._size(size, unit=1.0, step=step)) / self._limits.share
        middle = self._center(head_center(points), unit=float(side[0]), step=step)
        return np.concatenate([middle - self._limits.center * side, side])


class _CausalPath:
    """State of one signal's dead zone and filters."""

    def __init__(self, low: Float64[np.ndarray, " D"], high: Float64[np.ndarray, " D"]) -> None:
        self._low, self._high = low, high
        self._held: Float64[np.ndarray, " D"] | None = None
        self._slow = self._followed = np.zeros(0)

    def __call__(self, value: Float64[np.ndarray, " D"], *, unit: float, step: float) -> Float64[np.ndarray, " D"]:
        """Return the followed value; `unit` is the scale of the dead zone and the limits."""
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
    """Soft limit: keep small values, and compress large ones smoothly so that they never exceed the limits."""
    limit = np.where(values < 0, low, high)
    return np.asarray(values / np.sqrt(1 + (values / limit) ** 2))


def _path(
    values: Float64[np.ndarray, "S D"],
    unit: Float64[np.ndarray, "S 1"],
    times: Float64[np.ndarray, " S"],
    low: Float64[np.ndarray, " D"],
    high: Float64[np.ndarray, " D"],
) -> Float64[np.ndarray, "S D"]:
    """Compute the path that the square follows, from which values deviate by `low` to `high` units; symmetric in time."""
    slack = DEAD_ZONE * unit
    there, back = _held(values, slack), _held(values[::-1], slack[::-1])[::-1]
    slow = _zero_phase((there + back) / 2, times, FOLLOW_SECONDS)
    kept = unit * _limited((values - slow) / unit, low, high)
    return np.clip(_zero_phase(values - kept, times, _LIMIT_SECONDS), values - high * unit, values - low * unit)


def _held(values: Float64[np.ndarray, "S D"], slack: Float64[np.ndarray, "S 1"]) -> Float64[np.ndarray, "S D"]:
    """Compute a signal that moves only as far as necessary to stay within `slack` of the values."""
    path, state = np.empty_like(values), values[0]
    for index, (low, high) in enumerate(zip(values - slack, values + slack, strict=True)):
        path[index] = state = np.minimum(np.maximum(state, low), high)
    return path


def _zero_phase(
    values: Float64[np.ndarray, "S D"], times: Float64[np.ndarray, " S"], seconds: float
) -> Float64[np.ndarray, "S D"]:
    """Filter forward and backward in time, averaged over both orders, which differ only at the ends."""
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
    """Compute the weight of a new value in a first-order low-pass filter, given the time since the previous value."""
    return np.asarray(-np.expm1(-steps / seconds))
