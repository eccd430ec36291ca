"""Transfers a driver's motion to a target's face with the 3D landmark model: expression, pose and gaze; in pure jnp.

1. The expression, relative to the driver's neutral one, is added to the target's neutral face (`th_jax.landmarks.model3d`),
   scaled by the ratio of the two faces' movements: the lids of a small face overlap more when they are shut.
2. The head turns as the driver's. Its scale and place are the target's usual ones, times the driver's changes.
3. Gaze angles turn the target's eyeballs.
4. What the model does not explain is kept: a person's mean residual is part of the neutral face and turns with the head; a
   frame's own residual is added in the image, turned and scaled with the head. A face that is retargeted to itself is
   therefore unchanged except for rounding.
5. Lids and lips touch exactly when the driver's do, and pupils stay between the lids if the driver's are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from th_jax.landmarks.model3d import (
    Frames,
    LandmarkModel,
    Person,
    fit_clip,
    fit_frames,
    known_frames,
    load_model,
    movement_size,
    neutral_shape,
    predict,
    project,
    shape_points,
    with_pupil_rows,
)
from th_jax.landmarks.scheme import IBUG_POINTS

NEUTRAL_SHARE = 0.1
"""Share of a clip's frames, calm ones with open lids, whose mean is the neutral expression."""

_BROWS, _EYES, _MOUTH = range(17, 27), range(36, 48), (*range(4, 13), *range(48, 68))
"""Points whose expression the gains scale; the chin moves with the mouth."""

_LIDS = np.array([[37, 41], [38, 40], [43, 47], [44, 46]])
_INNER_LIPS = np.array([[61, 67], [62, 66], [63, 65]])
_OUTER_LIPS = np.array([[50, 58], [51, 57], [52, 56]])
_CORNERS = np.array([[36, 39], [42, 45]])
_UPPER, _LOWER = np.array([[37, 38], [43, 44]]), np.array([[41, 40], [47, 46]])

_LIDS_TOUCH = 0.1
"""Distance of the driver's lids, relative to the neutral face, up to which it decides increasingly. Beyond it, open or
overlapping, the model decides: how far shut lids overlap depends on the person."""

_LIPS_SHUT, _LIPS_OPEN = 0.02, 0.12
"""The same for the lips, relative to the width of the mouth."""

_INSIDE = 0.9
"""Largest distance of a pupil from the middle of the eye's opening, relative to the lids and corners."""


class Gains(NamedTuple):
    """Factors of the driver's motion by region, from 0 (none) to 2."""

    pose: float = 1.0
    brows: float = 1.0
    eyes: float = 1.0
    """Of the lids."""
    gaze: float = 1.0
    mouth: float = 1.0
    """Of the lips and the chin."""


class Neutral(NamedTuple):
    """A person's usual expression and place in the image."""

    expression: Float[Array, "*batch E"]
    angles: Float[Array, "*batch 3"]
    gaze: Float[Array, "*batch 2"]
    log_scale: Float[Array, "*batch"]
    place: Float[Array, "*batch 2"]


class Face(NamedTuple):
    """A person, fitted to a clip or to shots, and their neutral face."""

    person: Person
    neutral: Neutral


UNCHANGED = Gains()
"""Gains that leave the driver's motion as it is."""


def check_gains(gains: Gains) -> None:
    """Check the range of the gains.

    Raises:
        ValueError: if a gain is not from 0 to 2.
    """
    for name, gain in gains._asdict().items():
        if not (math.isfinite(gain) and 0 <= gain <= 2):
            raise ValueError(f"a gain is a number from 0 to 2, but {name} is {gain:g}")


def parse_gains(text: str) -> Gains:
    """Parse gains such as "mouth=1.2,pose=0.8"; regions that are not named keep 1.

    Raises:
        ValueError: if a region is unknown or named twice, or a factor is not a number from 0 to 2.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in Gains._fields or not equals:
            raise ValueError(f"gains are REGION=FACTOR with {', '.join(Gains._fields)}, but {part.strip()!r} was given")
        if name in found:
            raise ValueError(f"the gain of {name} is given twice")
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f"a gain is a number from 0 to 2, but {name} is {value!r}") from None
    gains = Gains(**found)
    check_gains(gains)
    return gains


def fit_face(
    landmarks: Float[np.ndarray, "S P 2"],
    *,
    model: LandmarkModel | None = None,
    neutral: Float[np.ndarray, "N P 2"] | None = None,
) -> Face:
    """Fit a person and their neutral face.

    Args:
        landmarks: points in [0, 1] of S frames, NaN where unknown.
        model: the landmark model; the bundled one by default.
        neutral: landmarks of the same person with a neutral expression; by default calm frames are chosen from `landmarks`.

    Raises:
        ValueError: if the landmarks are not of a face (`fit_clip`), or no neutral frame has all 68 points.
    """
    person, frames = fit_clip(landmarks, model=model)
    known = known_frames(landmarks)
    if not known.any():
        known = np.isfinite(landmarks).all(-1).any(-1)
    part = np.flatnonzero(known)
    calm = part[_calm(np.asarray(frames.expression)[part], load_model() if model is None else model)]
    expressions = np.asarray(frames.expression)[calm]
    if neutral is not None:
        neutral = neutral[known_frames(neutral)]
        if not len(neutral):
            raise ValueError("no neutral frame has all 68 landmarks: choose another time")
        expressions = np.asarray(fit_frames(neutral, person, model=model).expression)
    angles, gaze, log_scale, place = (
        jnp.asarray(np.median(np.asarray(leaf)[known], axis=0))
        for leaf in (frames.angles, frames.gaze, frames.log_scale, frames.place)
    )
    expression = jnp.asarray(expressions.mean(0))
    usual = Neutral(expression, angles, gaze, log_scale, place)
    return Face(person, usual)


def _calm(expressions: Float[np.ndarray, "S E"], model: LandmarkModel) -> Int[np.ndarray, " N"]:
    """Choose the frames of lowest expression energy among those whose lids are as open as usual.

    Half shut lids cost little energy: taken as neutral, they would make every blink shut the lids beyond their place.
    """
    lids = np.asarray(model.expression)[:, _LIDS, 1]
    opening = expressions @ (lids[..., 0] - lids[..., 1]).mean(-1)
    energy = np.where(opening >= np.median(opening), (expressions**2).sum(-1), np.inf)
    return np.argsort(energy, kind="stable")[: max(1, round(NEUTRAL_SHARE * len(expressions)))]


def transfer(
    landmarks: Float[np.ndarray, "S P 2"],
    frames: Frames,
    *,
    driver: Face,
    target: Face,
    model: LandmarkModel | None = None,
    gains: Gains = UNCHANGED,
) -> Float[np.ndarray, "S P 2"]:
    """Move the driver's landmarks to the target's face.

    Args:
        landmarks: the driver's points in [0, 1].
        frames: the driver's fitted frames (`fit_frames` with the driver's person).
        driver: the driver's face.
        target: the target's face.
        model: the landmark model; the bundled one by default.
        gains: factors of the motion by region.

    Returns:
        The target's points in [0, 1]. Frames in which one of the 68 points is unknown are NaN; pupils are NaN where the
        driver's are.

    Raises:
        ValueError: if a gain is not from 0 to 2.
    """
    check_gains(gains)
    model = load_model() if model is None else model
    points = with_pupil_rows(landmarks)
    moved = _transfer_all(model, jnp.asarray(points), frames, driver, target, Gains(*map(jnp.float32, gains)))
    result = np.array(moved, np.float32)
    result[~known_frames(landmarks)] = np.nan
    result[np.isnan(points)] = np.nan
    return result[:, : landmarks.shape[1]].astype(landmarks.dtype)


@jax.jit
def _transfer_all(
    model: LandmarkModel,
    points: Float[Array, "S 70 2"],
    frames: Frames,
    driver: Face,
    target: Face,
    gains: Gains,
) -> Float[Array, "S 70 2"]:
    return jax.vmap(lambda one, frame: transfer_frame(model, one, frame, driver, target, gains))(points, frames)


def transfer_frame(
    model: LandmarkModel, points: Float[Array, "70 2"], frame: Frames, driver: Face, target: Face, gains: Gains
) -> Float[Array, "70 2"]:
    """Move one frame, as `transfer` does, inside `jit` and `vmap`; NaN points stay unknown only where they are pupils."""
    known = jnp.isfinite(points).all(-1)
    fitted = predict(model, driver.person, frame)
    residual = _upright(jnp.where(known[:, None], jnp.nan_to_num(points) - fitted, 0.0), frame)
    shown = _target_frame(frame, driver, target, gains)

    region = _regions(gains)
    growth = movement_size(model, target.person) / movement_size(model, driver.person)
    difference = growth * (frame.expression - driver.neutral.expression)
    displacement = jnp.tensordot(target.neutral.expression, model.expression, 1)
    displacement += region[:IBUG_POINTS, None] * jnp.tensordot(difference, model.expression, 1)
    # The jaw lies on the contour as the driver's detector places it.
    person = target.person._replace(slide=driver.person.slide)
    moved = project(shape_points(model, person, displacement, shown.gaze, shown.angles[0]), person, shown)
    moved += _turned_back(residual * region[:, None], shown)

    whole = jnp.where(known[:, None], jnp.nan_to_num(points), fitted)
    scale = jnp.exp(shown.log_scale - frame.log_scale)
    turn = shown.angles[2] - frame.angles[2]
    moved = _close(model, moved, _rolled(whole, turn) * scale, frame, shown, driver, target, gains)
    pupils = _between_lids(moved, whole)
    return jnp.concatenate([moved[:IBUG_POINTS], pupils])


@jax.jit
def transfer_one(
    model: LandmarkModel, points: Float[Array, "70 2"], frame: Frames, driver: Face, target: Face, gains: Gains
) -> Float[Array, "70 2"]:
    """Compute `transfer_frame` as one compiled program; pupils are NaN where the driver's are."""
    return jnp.where(jnp.isfinite(points), transfer_frame(model, points, frame, driver, target, gains), jnp.nan)


def _target_frame(frame: Frames, driver: Face, target: Face, gains: Gains) -> Frames:
    """Compute the target's pose, scale, place and gaze."""
    own, usual = driver.neutral, target.neutral
    growth = jnp.exp(usual.log_scale - own.log_scale)
    return Frames(
        own.angles + gains.pose * (frame.angles - own.angles),
        usual.log_scale + gains.pose * (frame.log_scale - own.log_scale),
        usual.place + gains.pose * growth * (frame.place - own.place),
        frame.expression,
        gains.gaze * frame.gaze,
    )


def _regions(gains: Gains) -> Float[Array, "70"]:
    region = jnp.ones(IBUG_POINTS + 2)
    for points, gain in ((_BROWS, gains.brows), (_EYES, gains.eyes), (_MOUTH, gains.mouth)):
        region = region.at[jnp.array(points)].set(gain)
    return region.at[IBUG_POINTS:].set(gains.gaze)


def _rolled(points: Float[Array, "P 2"], roll: Float[Array, ""]) -> Float[Array, "P 2"]:
    """Turn vectors of the image clockwise."""
    cos, sin = jnp.cos(roll), jnp.sin(roll)
    return jnp.stack([cos * points[:, 0] - sin * points[:, 1], sin * points[:, 0] + cos * points[:, 1]], axis=-1)


def _upright(residual: Float[Array, "70 2"], frame: Frames) -> Float[Array, "70 2"]:
    return _rolled(residual, -frame.angles[2]) * jnp.exp(-frame.log_scale)


def _turned_back(residual: Float[Array, "70 2"], frame: Frames) -> Float[Array, "70 2"]:
    return _rolled(residual, frame.angles[2]) * jnp.exp(frame.log_scale)


def _gap(points: Float[Array, "P D"], pairs: np.ndarray) -> Float[Array, "K D"]:
    return points[pairs[:, 1]] - points[pairs[:, 0]]


def _width(points: Float[Array, "P D"], pairs: np.ndarray) -> Float[Array, " K"]:
    return jnp.linalg.norm(_gap(points, pairs), axis=-1)


def _resting(model: LandmarkModel, face: Face) -> Float[Array, "68 3"]:
    expression = jnp.tensordot(face.neutral.expression, model.expression, 1)
    return neutral_shape(model, face.person)[:IBUG_POINTS] + expression


def _step(value: Array, low: float, high: float) -> Array:
    share = jnp.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3 - 2 * share)


def _close(
    model: LandmarkModel,
    moved: Float[Array, "70 2"],
    seen: Float[Array, "70 2"],
    frame: Frames,
    shown: Frames,
    driver: Face,
    target: Face,
    gains: Gains,
) -> Float[Array, "70 2"]:
    """Set the distances of lids and lips to the driver's where the driver's nearly touch; those of lips relative to the width.

    Args:
        model: the landmark model.
        moved: the target's points so far.
        seen: the driver's points, with the target's scale and roll.
        frame: the driver's fitted frame.
        shown: the target's frame.
        driver: the driver's face.
        target: the target's face.
        gains: factors of the motion by region.
    """
    own, usual = _resting(model, driver), _resting(model, target)
    unit = jnp.exp(shown.log_scale)
    wanted = _gap(seen, _LIDS)
    offset = jnp.linalg.norm(_gap(moved, _LIDS) - wanted, axis=-1)
    # At least the offset, so that a smaller distance of the driver's lids never makes a larger one of the target's.
    reach = jnp.maximum(jnp.maximum(_LIDS_TOUCH * unit * _width(own, _LIDS), offset), 1e-9)
    share = jnp.maximum(1 - jnp.linalg.norm(wanted, axis=-1) / reach, 0.0) * jnp.minimum(gains.eyes, 1.0)
    moved = _spread(moved, _LIDS, (_LIDS,), wanted, share)

    mouth = np.array([[48, 54]])
    width_own, width_target = _width(own, mouth), _width(usual, mouth)
    opening = jnp.linalg.norm(_gap(seen, _INNER_LIPS), axis=-1) / (unit * width_own)
    share = (1 - _step(opening, _LIPS_SHUT, _LIPS_OPEN)) * jnp.minimum(gains.mouth, 1.0)
    wanted = _gap(seen, _INNER_LIPS) * (width_target / width_own)[:, None]
    return _spread(moved, _INNER_LIPS, (_INNER_LIPS, _OUTER_LIPS), wanted, share)


def _spread(
    moved: Float[Array, "70 2"],
    pairs: np.ndarray,
    followers: tuple[np.ndarray, ...],
    wanted: Float[Array, "K 2"],
    share: Float[Array, " K"],
) -> Float[Array, "70 2"]:
    step = share[:, None] * (wanted - _gap(moved, pairs)) / 2
    for pair in followers:
        moved = moved.at[pair[:, 0]].add(-step).at[pair[:, 1]].add(step)
    return moved


def _between_lids(moved: Float[Array, "70 2"], seen: Float[Array, "70 2"]) -> Float[Array, "2 2"]:
    """Move pupils into the target's eyes if the driver's pupils lie in the driver's."""
    inside, (center, across, down) = _eye_place(seen)[0], _eye_place(moved)[1]
    driver_is_inside = (jnp.abs(inside) <= 1).all(-1)
    place = _eye_place(moved)[0]
    limit = jnp.maximum(jnp.abs(inside), _INSIDE)
    clipped = jnp.clip(place, -limit, limit)
    back = center + clipped[:, :1] * across + clipped[:, 1:] * down
    outside = (jnp.abs(place) > limit).any(-1)
    return jnp.where((driver_is_inside & outside)[:, None], back, moved[IBUG_POINTS:])


def _eye_place(points: Float[Array, "70 2"]) -> tuple[Float[Array, "2 2"], tuple[Array, Array, Array]]:
    """Return the pupils' coordinates in the eyes' openings, each in [-1, 1] inside, and the frames of those coordinates."""
    across = (points[_CORNERS[:, 1]] - points[_CORNERS[:, 0]]) / 2
    upper, lower = points[_UPPER].mean(1), points[_LOWER].mean(1)
    down = (lower - upper) / 2
    center = (upper + lower) / 2
    offset = points[IBUG_POINTS:] - center
    area = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    area = jnp.where(jnp.abs(area) < 1e-9, 1e-9, area)
    first = (offset[:, 0] * down[:, 1] - offset[:, 1] * down[:, 0]) / area
    second = (across[:, 0] * offset[:, 1] - across[:, 1] * offset[:, 0]) / area
    return jnp.stack([first, second], axis=-1), (center, across, down)
