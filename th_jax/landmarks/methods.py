"""The methods of retargeting by name: one function that adapts any driver's landmarks to a target's face.

| method | what is kept of the target |
|---|---|
| none | nothing: the driver's points |
| similarity | size and position: one scale and one shift for the whole clip |
| relative | a resting frame, moved by the driver's displacements times the square root of the ratio of hull areas |
| parts | size and position of each part of the face: the driver's parts, scaled in width and height |
| shape | the mean shape in the image plane (`th_jax.landmarks.retarget`) |
| model | the 3D shape, with expression, pose and gaze of the driver (`th_jax.landmarks.transfer`) |
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from th_jax.landmarks.live import LiveRetargeter
from th_jax.landmarks.model3d import Frames, fit_frames, load_model, with_pupil_rows
from th_jax.landmarks.retarget import face_shape, retarget
from th_jax.landmarks.scheme import IBUG_POINTS, check_point_count, known_points
from th_jax.landmarks.smooth import LandmarkFilter, OneEuro
from th_jax.landmarks.smooth_motion import MotionFilter
from th_jax.landmarks.transfer import UNCHANGED, Face, Gains, check_gains, fit_face, transfer, transfer_one

Method = Literal["none", "similarity", "relative", "parts", "shape", "model"]
METHODS: tuple[Method, ...] = get_args(Method)

Retargeter = Callable[[Float[np.ndarray, "S P 2"]], Float[np.ndarray, "S P 2"]]
"""Adapts frames of the driver; the result has the same shape and type, and NaN where points are unknown."""

_PARTS = (
    (range(0, 17), ()),
    (range(17, 22), ()),
    (range(22, 27), ()),
    (range(27, 36), ()),
    (range(36, 42), (68,)),
    (range(42, 48), (69,)),
    (range(48, 68), ()),
)
"""Points of each part, and the pupils that move with it."""


class Target(NamedTuple):
    """The face to which landmarks are retargeted."""

    method: Method
    landmarks: Float[np.ndarray, "S P 2"]
    """Points of the target's shots in [0, 1], NaN where unknown."""
    gains: Gains = UNCHANGED


def check_method(method: str, *, gains: Gains = UNCHANGED) -> None:
    """Check the name of a method, and the gains.

    Raises:
        ValueError: if there is no such method, a gain is not from 0 to 2, or gains are given for another method than "model".
    """
    if method not in METHODS:
        raise ValueError(f"retargeting must be one of {', '.join(METHODS)}, but is {method!r}")
    check_gains(gains)
    if method != "model" and gains != UNCHANGED:
        raise ValueError(f'gains need the retargeting "model", but it is "{method}"')


def check_target_face(target: Target) -> None:
    """Check that the target's landmarks include a whole face.

    Raises:
        ValueError: if the number of points is not 68 or 70, or no frame has all 68 points.
    """
    _usable(target.landmarks, "the target")


def make_retargeter(
    target: Target, driver: Float[np.ndarray, "S P 2"], *, neutral: Float[np.ndarray, "N P 2"] | None = None
) -> Retargeter:
    """Prepare the adaptation of one driver to one target.

    Args:
        target: method, and landmarks of the target's shots.
        driver: landmarks of the driver from which their usual face is computed, such as the whole clip.
        neutral: landmarks of the driver with a neutral expression, for the method "model"; found automatically by default.

    Raises:
        ValueError: if the method is unknown, gains are given for another method than "model", the number of points is not 68
            or 70, or no frame of the driver or of the target has all 68 points.
    """
    check_method(target.method, gains=target.gains)
    if target.method == "none":
        return lambda frames: frames
    if target.method == "shape":
        shapes = face_shape(driver), face_shape(target.landmarks)
        return lambda frames: retarget(frames, driver=shapes[0], target=shapes[1])
    if target.method == "model":
        faces = [
            fit_face(_usable(driver, "the driver"), neutral=neutral),
            fit_face(_usable(target.landmarks, "the target")),
        ]
        return ModelRetargeter(faces[0], faces[1], gains=target.gains)
    own, other = _usable(driver, "the driver"), _usable(target.landmarks, "the target")
    if target.method == "similarity":
        scale = _median_size(other) / _median_size(own)
        shift = _median_center(other) - scale * _median_center(own)
        return lambda frames: (scale * frames + shift).astype(frames.dtype)
    rest, still = _resting(own), _resting(other)
    if target.method == "relative":
        growth = float(np.sqrt(_hull_area(still) / _hull_area(rest)))
        return lambda frames: _relative(frames, rest, still, growth)
    return lambda frames: _by_parts(frames, rest, still)


def live_retargeter(target: Target, first: Float[np.ndarray, "S P 2"]) -> Retargeter:
    """Prepare the adaptation of a live driver, known only from the first frames; call the result with consecutive frames.

    The method "model" keeps improving its estimate of the driver's neutral expression (`th_jax.landmarks.live`).

    Raises:
        ValueError: as `make_retargeter`.
    """
    check_method(target.method, gains=target.gains)
    if target.method != "model":
        return make_retargeter(target, first)
    return LiveRetargeter(_usable(target.landmarks, "the target"), _usable(first, "the driver"), gains=target.gains)


class ModelRetargeter:
    """The method "model" for faces that are fitted already (`th_jax.landmarks.transfer.fit_face`)."""

    def __init__(self, driver: Face, target: Face, *, gains: Gains = UNCHANGED) -> None:
        """Prepare the adaptation."""
        self.driver, self._target, self._gains = driver, target, Gains(*map(float, gains))

    def __call__(self, frames: Float[np.ndarray, "S P 2"]) -> Float[np.ndarray, "S P 2"]:
        """Adapt frames of the driver."""
        fitted = fit_frames(frames, self.driver.person)
        return transfer(frames, fitted, driver=self.driver, target=self._target, gains=self._gains)

    def fit(self, points: Float[np.ndarray, "70 2"]) -> Frames:
        """Fit one frame, all 68 points of which are known."""
        return Frames(*(leaf[0] for leaf in fit_frames(points[None], self.driver.person)))

    def move(self, points: Float[np.ndarray, "70 2"], frame: Frames) -> Float[np.ndarray, "70 2"]:
        """Move a fitted frame to the target; pupils are NaN where the driver's are."""
        return np.asarray(
            transfer_one(load_model(), jnp.asarray(points), frame, self.driver, self._target, self._gains)
        )


class Follower:
    """Adapts a driver's consecutive frames, and smooths them over time.

    With the method "model", pose, expression and gaze are smoothed (`th_jax.landmarks.smooth_motion`); with the others, the
    adapted points are.
    """

    def __init__(self, adapt: Retargeter | None, smoothing: OneEuro | None) -> None:
        """Prepare the filter.

        Args:
            adapt: result of `make_retargeter` or `live_retargeter`; None leaves the points as they are.
            smoothing: settings of the filter; None for no smoothing.

        Raises:
            ValueError: if the cutoff is not positive or beta is negative.
        """
        self._adapt = adapt
        self._points = self._motion = None
        if smoothing is not None and isinstance(adapt, ModelRetargeter | LiveRetargeter):
            self._motion = MotionFilter(smoothing, load_model(), adapt.driver.person)
        elif smoothing is not None:
            self._points = LandmarkFilter(smoothing)

    def reset(self) -> None:
        """Clear the filter's history; the next frame passes unsmoothed."""
        for one in (self._points, self._motion):
            if one is not None:
                one.reset()

    def __call__(self, landmarks: Float[np.ndarray, "P 2"], *, time: float) -> Float[np.ndarray, "P 2"]:
        """Adapt and smooth the frame at `time` seconds; one without all 68 points becomes NaN if it is to be adapted.

        Raises:
            ValueError: if `time` does not increase.
        """
        if self._motion is not None and known_points(landmarks)[:IBUG_POINTS].all():
            assert isinstance(self._adapt, ModelRetargeter | LiveRetargeter)
            points = with_pupil_rows(landmarks[None])[0]
            smoothed, frame = self._motion(points, self._adapt.fit(points), time=time)
            return self._adapt.move(smoothed, frame)[: len(landmarks)].astype(landmarks.dtype)
        adapted = landmarks if self._adapt is None else self._adapt(landmarks[None])[0]
        return adapted if self._points is None else self._points(adapted, time=time)


def _usable(landmarks: Float[np.ndarray, "S P 2"], whose: str) -> Float[np.ndarray, "K P 2"]:
    """Return the frames with all 68 points as float64."""
    check_point_count(landmarks.shape[1])
    usable = landmarks[known_points(landmarks)[:, :IBUG_POINTS].all(-1)].astype(np.float64)
    if not len(usable):
        raise ValueError(f"retargeting needs at least one frame of {whose} in which all 68 landmarks are known")
    return usable


def _median_center(faces: Float[np.ndarray, "K P 2"]) -> Float[np.ndarray, "2"]:
    return np.asarray(np.median(faces[:, :IBUG_POINTS].mean(1), axis=0))


def _median_size(faces: Float[np.ndarray, "K P 2"]) -> float:
    face = faces[:, :IBUG_POINTS]
    return float(np.median(np.linalg.norm(face - face.mean(1, keepdims=True), axis=-1).mean(1)))


def _resting(faces: Float[np.ndarray, "K P 2"]) -> Float[np.ndarray, "P 2"]:
    """Return the frame nearest to frontal, by the nose tip's place between the jaw's ends, with the least open mouth."""
    nose, jaw = faces[:, 30], faces[:, [0, 16]]
    across = jaw[:, 1] - jaw[:, 0]
    place = ((nose - jaw[:, 0]) * across).sum(-1) / np.maximum((across**2).sum(-1), 1e-12)
    mouth = np.linalg.norm(faces[:, 62] - faces[:, 66], axis=-1) / np.maximum(np.linalg.norm(across, axis=-1), 1e-6)
    return np.asarray(faces[np.argmin(np.abs(place - 0.5) + mouth)])


def _hull_area(face: Float[np.ndarray, "P 2"]) -> float:
    """Compute the area of the points' convex hull (Andrew's monotone chain)."""
    points = sorted(map(tuple, face[:IBUG_POINTS].tolist()))

    def half(ordered: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
        chain: list[tuple[float, ...]] = []
        for x, y in ordered:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    hull = np.array(half(points) + half(points[::-1]))
    x, y = hull.T
    return float(max(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2, 1e-12))


def _with_points(face: Float[np.ndarray, "P 2"], count: int) -> Float[np.ndarray, "Q 2"]:
    """Return the face with as many points; pupils that are unknown lie between the corners of the eyes."""
    middle = (face[[36, 42]] + face[[39, 45]]) / 2
    whole = np.concatenate([face[:IBUG_POINTS], middle])
    whole[: len(face)] = np.where(np.isfinite(face), face, whole[: len(face)])
    return whole[:count]


def _relative(
    frames: Float[np.ndarray, "S P 2"], rest: Float[np.ndarray, "Q 2"], still: Float[np.ndarray, "R 2"], growth: float
) -> Float[np.ndarray, "S P 2"]:
    count = frames.shape[1]
    moved = _with_points(still, count) + growth * (frames - _with_points(rest, count))
    return moved.astype(frames.dtype)


def _by_parts(
    frames: Float[np.ndarray, "S P 2"], rest: Float[np.ndarray, "Q 2"], still: Float[np.ndarray, "R 2"]
) -> Float[np.ndarray, "S P 2"]:
    """Scale each part about its center, and the centers about the face's, by ratios of width and of height."""
    moved = frames.astype(np.float64)
    source = moved.copy()
    everything = [list(points) for points, _ in _PARTS]
    centers = np.stack([source[:, points].mean(1) for points in everything], axis=1)
    own = np.stack([rest[points].mean(0) for points in everything])
    other = np.stack([still[points].mean(0) for points in everything])
    middle, growth = centers.mean(1), _extent(other) / _extent(own)
    # The face's middle moves as the driver's, from where the target's rests.
    place = other.mean(0) + growth * (middle - own.mean(0))
    centers_moved = place[:, None] + growth * (centers - middle[:, None])
    # The centers' own layout is the target's: the difference of the resting layouts is added.
    centers_moved += (other - other.mean(0)) - growth * (own - own.mean(0))
    for number, (points, pupils) in enumerate(_PARTS):
        part = list(points)
        ratio = _extent(still[part]) / _extent(rest[part])
        carried = part + [pupil for pupil in pupils if pupil < frames.shape[1]]
        moved[:, carried] = centers_moved[:, None, number] + ratio * (source[:, carried] - centers[:, None, number])
    moved[~known_points(frames)[:, :IBUG_POINTS].all(-1)] = np.nan
    return moved.astype(frames.dtype)


def _extent(points: Float[np.ndarray, "K 2"]) -> float:
    """Compute the mean distance from the mean."""
    return float(max(np.linalg.norm(points - points.mean(0), axis=-1).mean(), 1e-6))
