"""A 3D model of the 68 landmarks and both pupils: identity, expression, head pose and gaze, fitted to 2D points in pure jnp.

Head coordinates have x to the image's right, y up and z toward the viewer, in units of about 10 cm; the origin lies where the
head turns, below and behind the eyes. A face is the mean shape plus identity components, which one person keeps, plus
expression components, which change from frame to frame. A pupil lies on an eyeball whose center and radius belong to the
identity; two gaze angles turn both eyes. Points are projected with weak perspective: scaled by the frame's scale, and
enlarged where they are closer to the camera.

Detectors place the jaw on the visible contour, which moves along the head as it turns. `Person.slide` is the strength of that
effect: near 0 for points fixed to the skin, near 1 for a detector's.

The model is fitted by Gauss-Newton steps with robust weights, in a fixed number of iterations: one identity for all frames of
a person (the frames' unknowns are eliminated by the Schur complement), then each frame on its own.
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS, check_point_count

MODEL_FILE = Path(__file__).parents[1] / "assets" / "landmarks" / "model3d.npz"
"""The bundled model, written by data_prep's script fit_landmark_model."""

PERSON_FRAMES = 64
"""Number of frames from which a person's identity is fitted; longer clips are sampled evenly."""

_CHUNK = 32
"""Number of frames fitted in one compiled program; more are not faster."""

_PERSON_STEPS, _FRAME_STEPS, _ROUNDS = 12, 5, 2
"""Gauss-Newton iterations. After 4 for a frame, angles of rendered heads are within 0.001° of their limit."""

_ANGLES, _SCALE, _PLACE, _EXPRESSION = slice(0, 3), 3, slice(4, 6), 6
"""Positions of a frame's unknowns in its vector; the last two are the gaze."""

_ANGLE_PRIOR, _GAZE_PRIOR = 1.0, 2.0
"""Standard deviations in radians. The gaze's is wide: people look at the camera while they turn, and a narrow one, summed over
frames, would move the eyeballs until the eyes seem to turn less."""

_SLIDE_PRIOR, _PERSPECTIVE_PRIOR = (0.5, 0.5), (0.08, 0.03)
"""Means and standard deviations."""

_OFFSET_PRIOR, _CENTER_PRIOR = 0.06, 0.01
"""Standard deviations of a person's points and eyeball centers about the identity components, in model units."""

_OUTLIER = 6.0
"""Residual in standard deviations at which a point's robust weight falls to a quarter."""

_LARGEST_STEP = 0.4
"""Largest change in one iteration of an angle (radians) and of a logarithm of the scale."""


class LandmarkModel(NamedTuple):
    """The arrays of the model, with I identity and E expression components of unit variance.

    Points 68 and 69 of `mean` and `identity` are the centers of the eyeballs, in the order of the pupils.
    """

    mean: Float[Array, "70 3"]
    identity: Float[Array, "I 70 3"]
    expression: Float[Array, "E 68 3"]
    radius: Float[Array, ""]
    """Mean radius of an eyeball, from its center to the pupil."""
    radius_identity: Float[Array, " I"]
    axis: Float[Array, "2 3"]
    """Unit vectors from the centers of the eyeballs to the pupils at a gaze of zero."""
    axis_identity: Float[Array, "I 2 3"]
    movement: Float[Array, ""]
    """Mean size of a movement: faces are divided by their size, so that the same muscles move a smaller face further."""
    movement_identity: Float[Array, " I"]
    slide: Float[Array, "2 17 3"]
    """Displacement of the jaw points per radian of yaw to the image's right and to its left."""
    noise: Float[Array, "70"]
    """Standard deviation of a point's error, relative to the mean over points."""
    arkit: Float[Array, "E 52"]
    """Expression components of the 52 ARKit shapes at weight 1."""
    arkit_shapes: Float[Array, "52 68 3"]
    """Displacements of the points by the ARKit shapes at weight 1."""


class Person(NamedTuple):
    """What a person keeps in all frames of a clip."""

    identity: Float[Array, "*batch I"]
    slide: Float[Array, "*batch"]
    """Strength of the jaw's movement along the contour: 0 for points fixed to the skin, 1 for a detector's."""
    perspective: Float[Array, "*batch"]
    """One divided by the distance of the camera, in model units."""
    offset: Float[Array, "*batch 70 3"]
    """Mean residual of each point, in head coordinates."""


class Frames(NamedTuple):
    """What changes from frame to frame."""

    angles: Float[Array, "*batch 3"]
    """Yaw, pitch and roll in radians: to the image's right, up and clockwise."""
    log_scale: Float[Array, "*batch"]
    """Logarithm of the side's fraction that one model unit covers at the origin."""
    place: Float[Array, "*batch 2"]
    """The origin in the image, as fractions of its side."""
    expression: Float[Array, "*batch E"]
    gaze: Float[Array, "*batch 2"]
    """Yaw and pitch of the eyes in the head, in radians."""


@functools.lru_cache(maxsize=1)
def load_model() -> LandmarkModel:
    """Load the bundled model as float32 arrays, once per process.

    Raises:
        FileNotFoundError: if the installation lacks the file.
    """
    if not MODEL_FILE.is_file():
        raise FileNotFoundError(f"the landmark model {MODEL_FILE} is missing: install th_jax again")
    with np.load(MODEL_FILE, allow_pickle=False) as arrays:
        return LandmarkModel(*(jnp.asarray(arrays[name], jnp.float32) for name in LandmarkModel._fields))


def rotation(angles: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Compute the matrix that turns a head by yaw, then pitch, then roll (radians)."""
    (cy, cp, cr), (sy, sp, sr) = (jnp.moveaxis(function(angles), -1, 0) for function in (jnp.cos, jnp.sin))
    rows = (
        (cr * cy - sr * sp * sy, sr * cp, cr * sy + sr * sp * cy),
        (-sr * cy - cr * sp * sy, cr * cp, -sr * sy + cr * sp * cy),
        (-cp * sy, -sp, cp * cy),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def neutral_shape(model: LandmarkModel, person: Person) -> Float[Array, "70 3"]:
    """Compute a person's points without expression, and the centers of the eyeballs, in head coordinates."""
    return model.mean + jnp.tensordot(person.identity, model.identity, 1) + person.offset


def eye_radius(model: LandmarkModel, person: Person) -> Float[Array, ""]:
    """Compute the radius of a person's eyeballs, in model units."""
    return model.radius + person.identity @ model.radius_identity


def movement_size(model: LandmarkModel, person: Person) -> Float[Array, ""]:
    """Compute how far a person's face moves in model units, relative to the average face, by the same expression."""
    return jnp.clip(model.movement + person.identity @ model.movement_identity, 0.8, 1.25)


def shape_points(
    model: LandmarkModel,
    person: Person,
    displacement: Float[Array, "68 3"],
    gaze: Float[Array, "2"],
    yaw: Float[Array, ""],
) -> Float[Array, "70 3"]:
    """Compute the points of a face in head coordinates.

    Args:
        model: the landmark model.
        person: identity; its `slide` moves the jaw points with the yaw.
        displacement: displacement of the 68 points from the neutral shape, by expression.
        gaze: yaw and pitch of the eyes, in radians.
        yaw: the head's yaw in radians.
    """
    neutral = neutral_shape(model, person)
    contour = person.slide * (jnp.maximum(yaw, 0) * model.slide[0] + jnp.maximum(-yaw, 0) * model.slide[1])
    face = neutral[:IBUG_POINTS] + displacement
    face = face.at[: contour.shape[0]].add(contour)
    axis = model.axis + jnp.tensordot(person.identity, model.axis_identity, 1)
    turned = axis @ rotation(jnp.concatenate([gaze, jnp.zeros(1)])).T
    return jnp.concatenate([face, neutral[IBUG_POINTS:] + eye_radius(model, person) * turned])


def project(points: Float[Array, "P 3"], person: Person, frame: Frames) -> Float[Array, "P 2"]:
    """Project points in head coordinates to fractions of the image's side."""
    turned = points @ rotation(frame.angles).T
    nearer = jnp.exp(frame.log_scale) / jnp.maximum(1 - person.perspective * turned[:, 2], 0.2)
    return frame.place[None] + nearer[:, None] * turned[:, :2] * jnp.array([[1.0, -1.0]])


def predict(model: LandmarkModel, person: Person, frame: Frames) -> Float[Array, "70 2"]:
    """Compute a frame's 68 points and both pupils in fractions of the image's side."""
    moved = jnp.tensordot(frame.expression, model.expression, 1)
    return project(shape_points(model, person, moved, frame.gaze, frame.angles[0]), person, frame)


@jax.jit
def predict_frames(model: LandmarkModel, person: Person, frames: Frames) -> Float[Array, "S 70 2"]:
    """Compute the points of many frames of one person."""
    return jax.vmap(lambda frame: predict(model, person, frame))(frames)


def pack_frame(frame: Frames) -> Float[Array, "*batch F"]:
    """Concatenate a frame's unknowns to a vector: angles, scale, place, expression, gaze."""
    return jnp.concatenate(
        [frame.angles, frame.log_scale[..., None], frame.place, frame.expression, frame.gaze], axis=-1
    )


def unpack_frame(vector: Float[Array, "*batch F"]) -> Frames:
    """Invert `pack_frame`."""
    return Frames(
        vector[..., _ANGLES],
        vector[..., _SCALE],
        vector[..., _PLACE],
        vector[..., _EXPRESSION:-2],
        vector[..., -2:],
    )


def fit_identity(
    landmarks: Float[np.ndarray, "S P 2"], *, model: LandmarkModel | None = None, noise: float = 0.012
) -> Person:
    """Fit one identity to the frames of a person, or to 64 of them that are spread evenly.

    Args:
        landmarks: points in [0, 1] of S frames of one person, NaN where unknown.
        model: the landmark model; the bundled one by default.
        noise: standard deviation of a point's error in model units (0.01 is about 1 mm).

    Raises:
        ValueError: if the number of points is not 68 or 70, there are no frames, or none has half of its 68 points.
    """
    model = load_model() if model is None else model
    points = with_pupil_rows(landmarks)
    usable = np.flatnonzero(np.isfinite(points[:, :IBUG_POINTS]).all(-1).sum(-1) >= IBUG_POINTS // 2)
    if not len(usable):
        raise ValueError("a face can be fitted only if at least one frame has half of its 68 landmarks")
    chosen = usable[np.linspace(0, len(usable) - 1, min(PERSON_FRAMES, len(usable))).round().astype(int)]
    # Two programs: compiling a third takes longer than the padding of few frames.
    size = 1 if len(chosen) == 1 else PERSON_FRAMES
    return fit_person(model, jnp.asarray(_padded(points[chosen], size)), noise=noise)[0]


def fit_clip(
    landmarks: Float[np.ndarray, "S P 2"], *, model: LandmarkModel | None = None, noise: float = 0.012
) -> tuple[Person, Frames]:
    """Fit one identity to all frames of a person, and pose, expression and gaze to each frame.

    Frames without known points get the prior's values; mask them by the landmarks.

    Args:
        landmarks: as `fit_identity`.
        model: the landmark model; the bundled one by default.
        noise: standard deviation of a point's error in model units.

    Raises:
        ValueError: as `fit_identity`.
    """
    person = fit_identity(landmarks, model=model, noise=noise)
    return person, fit_frames(landmarks, person, model=model, noise=noise)


def fit_frames(
    landmarks: Float[np.ndarray, "S P 2"], person: Person, *, model: LandmarkModel | None = None, noise: float = 0.012
) -> Frames:
    """Fit pose, expression and gaze of each frame of a known person, in chunks of one compiled program."""
    model = load_model() if model is None else model
    points = with_pupil_rows(landmarks)
    size = 1 if len(points) == 1 else _CHUNK
    parts = []
    for start in range(0, max(len(points), 1), size):
        part = points[start : start + size]
        fitted = _fit_batch(model, person, jnp.asarray(_padded(part, size)), noise=noise)
        parts.append([np.asarray(leaf)[: len(part)] for leaf in fitted])
    return Frames(*(jnp.asarray(np.concatenate(leaves)) for leaves in zip(*parts, strict=True)))


def with_pupil_rows(landmarks: Float[np.ndarray, "S P 2"]) -> Float[np.ndarray, "S 70 2"]:
    """Return the landmarks as 70 float32 points, with NaN for pupils that are not among them.

    Raises:
        ValueError: if the number of points is not 68 or 70.
    """
    check_point_count(landmarks.shape[1])
    points = np.full((len(landmarks), PUPIL_POINTS, 2), np.nan, np.float32)
    points[:, : landmarks.shape[1]] = landmarks
    return points


@functools.partial(jax.jit, static_argnames="noise")
def fit_person(model: LandmarkModel, points: Float[Array, "S 70 2"], *, noise: float = 0.012) -> tuple[Person, Frames]:
    """Fit identity, slide, perspective and mean residual over all frames, jointly with the frames' unknowns.

    Args:
        model: the landmark model.
        points: points in [0, 1], NaN where unknown; frames that are entirely unknown have no influence.
        noise: standard deviation of a point's error in model units.
    """
    start = jax.vmap(lambda one: pack_frame(_start(model, one)))(points)
    person = Person(
        jnp.zeros(len(model.identity)),
        jnp.float32(_SLIDE_PRIOR[0]),
        jnp.float32(_PERSPECTIVE_PRIOR[0]),
        jnp.zeros((PUPIL_POINTS, 3)),
    )

    def joint(carry: tuple[Person, Array], _: None) -> tuple[tuple[Person, Array], None]:
        return _joint_step(model, *carry, points, noise), None

    def rounds(carry: tuple[Person, Array], _: None) -> tuple[tuple[Person, Array], None]:
        (person, vectors), _done = jax.lax.scan(joint, carry, None, length=_PERSON_STEPS)
        return (person._replace(offset=_offset(model, person, vectors, points, noise)), vectors), None

    (person, vectors), _ = jax.lax.scan(rounds, (person, start), None, length=_ROUNDS)
    return person, unpack_frame(vectors)


@functools.partial(jax.jit, static_argnames="noise")
def _fit_batch(model: LandmarkModel, person: Person, points: Float[Array, "S 70 2"], *, noise: float) -> Frames:
    def one(points: Float[Array, "70 2"]) -> Frames:
        return fit_frame(model, person, points, _start(model, points), noise=noise, steps=_FRAME_STEPS)

    return jax.vmap(one)(points)


def fit_frame(
    model: LandmarkModel,
    person: Person,
    points: Float[Array, "70 2"],
    start: Frames,
    *,
    noise: float = 0.012,
    steps: int = 3,
) -> Frames:
    """Fit one frame of a known person from a start such as the previous frame; use it inside `jit` and `vmap`.

    Args:
        model: the landmark model.
        person: the person's identity (`fit_person`).
        points: points in [0, 1], NaN where unknown.
        start: initial values.
        noise: standard deviation of a point's error in model units.
        steps: number of Gauss-Newton iterations.
    """

    def step(vector: Array, _: None) -> tuple[Array, None]:
        residual, _unused, by_frame = _linearized(model, person, vector, points, noise, with_person=False)
        pull, precision = _frame_prior(vector, len(model.expression))
        normal = by_frame.T @ by_frame + jnp.diag(precision)
        return vector + _limited(_solve(normal, by_frame.T @ residual + pull)), None

    vector, _ = jax.lax.scan(step, pack_frame(start), None, length=steps)
    return unpack_frame(vector)


def _joint_step(
    model: LandmarkModel, person: Person, vectors: Float[Array, "S F"], points: Float[Array, "S 70 2"], noise: float
) -> tuple[Person, Float[Array, "S F"]]:
    def one(vector: Array, points: Array) -> tuple[Array, ...]:
        residual, by_person, by_frame = _linearized(model, person, vector, points, noise, with_person=True)
        pull, precision = _frame_prior(vector, len(model.expression))
        normal = by_frame.T @ by_frame + jnp.diag(precision)
        gradient = by_frame.T @ residual + pull
        cross = by_frame.T @ by_person
        solved = _solve(normal, jnp.concatenate([gradient[:, None], cross], axis=1))
        reduced = by_person.T @ by_person - cross.T @ solved[:, 1:]
        return reduced, by_person.T @ residual - cross.T @ solved[:, 0], solved

    reduced, gradient, solved = jax.vmap(one)(vectors, points)
    current = jnp.concatenate([person.identity, person.slide[None], person.perspective[None]])
    count = len(model.identity)
    mean = jnp.zeros(count + 2).at[-2:].set(jnp.array([_SLIDE_PRIOR[0], _PERSPECTIVE_PRIOR[0]]))
    spread = jnp.ones(count + 2).at[-2:].set(jnp.array([_SLIDE_PRIOR[1], _PERSPECTIVE_PRIOR[1]]))
    normal = reduced.sum(0) + jnp.diag(spread**-2)
    step = jnp.clip(_solve(normal, gradient.sum(0) + (mean - current) / spread**2), -1.0, 1.0)
    updated = current + step
    moved = jax.vmap(lambda solved: _limited(solved[:, 0] - solved[:, 1:] @ step))(solved)
    person = person._replace(identity=updated[:count], slide=updated[-2], perspective=jnp.clip(updated[-1], 0.0, 0.25))
    return person, vectors + moved


def _linearized(
    model: LandmarkModel,
    person: Person,
    vector: Float[Array, " F"],
    points: Float[Array, "70 2"],
    noise: float,
    *,
    with_person: bool,
) -> tuple[Float[Array, "140"], Float[Array, "140 I2"], Float[Array, "140 F"]]:
    """Return the weighted residuals and their derivatives by the person's and by the frame's unknowns."""
    known = jnp.isfinite(points).all(-1)
    unit = jnp.exp(-vector[_SCALE]) / noise
    predicted, by_frame, by_person = _derivatives(model, person, unpack_frame(vector), with_person=with_person)
    difference = jnp.where(known[:, None], jnp.nan_to_num(points) - predicted, 0.0) * unit / model.noise[:, None]
    robust = 1 / (1 + (difference**2).sum(-1, keepdims=True) / _OUTLIER**2)
    weight = jnp.where(known[:, None], robust * unit / model.noise[:, None], 0.0)[..., None]
    flat = 2 * PUPIL_POINTS
    residual = (difference * robust).reshape(flat)
    return residual, (by_person * weight).reshape(flat, -1), (by_frame * weight).reshape(flat, -1)


def _derivatives(
    model: LandmarkModel, person: Person, frame: Frames, *, with_person: bool
) -> tuple[Float[Array, "70 2"], Float[Array, "70 2 F"], Float[Array, "70 2 I2"]]:
    """Return `predict`, and its derivatives by the frame's and by the person's unknowns.

    They are written out, because forward-mode differentiation would repeat the whole prediction for each of 28 unknowns.
    """
    yaw, turn, eyes = frame.angles[0], rotation(frame.angles), rotation(jnp.concatenate([frame.gaze, jnp.zeros(1)]))
    contour = jnp.maximum(yaw, 0) * model.slide[0] + jnp.maximum(-yaw, 0) * model.slide[1]
    by_yaw = jnp.where(yaw > 0, model.slide[0], -model.slide[1]) * person.slide
    radius, axis = eye_radius(model, person), model.axis + jnp.tensordot(person.identity, model.axis_identity, 1)
    points = shape_points(model, person, jnp.tensordot(frame.expression, model.expression, 1), frame.gaze, yaw)
    x, y, depth = (points @ turn.T).T
    nearness = 1 - person.perspective * depth
    nearer = jnp.exp(frame.log_scale) / jnp.maximum(nearness, 0.2)
    seen = nearer[:, None] * jnp.stack([x, -y], axis=-1)
    deeper = jnp.where(nearness > 0.2, nearer / jnp.maximum(nearness, 0.2), 0.0)[:, None] * jnp.stack([x, -y], axis=-1)

    def of_turned(moved: Float[Array, "70 N 3"]) -> Float[Array, "70 N 2"]:
        """Project derivatives of the turned points."""
        flat = nearer[None, :, None] * jnp.stack([moved[..., 0], -moved[..., 1]])
        return jnp.moveaxis(flat + person.perspective * moved[None, ..., 2] * deeper.T[:, :, None], 0, -1)

    # The matrix by which a displacement in head coordinates moves a point in the image.
    view = jnp.moveaxis(of_turned(jnp.broadcast_to(turn.T, (PUPIL_POINTS, 3, 3))), -1, 1)
    turns = jnp.einsum("aij,pj->pai", jnp.moveaxis(jax.jacfwd(rotation)(frame.angles), -1, 0), points)
    by_angles = jnp.moveaxis(of_turned(turns), -1, 1)
    by_angles = by_angles.at[:17, :, 0].add(jnp.einsum("pij,pj->pi", view[:17], by_yaw))
    by_expression = jnp.einsum("pij,kpj->pik", view[:IBUG_POINTS], model.expression)
    looks = jax.jacfwd(lambda gaze: rotation(jnp.concatenate([gaze, jnp.zeros(1)])))(frame.gaze)
    by_gaze = radius * jnp.einsum("pij,jka,pk->pia", view[IBUG_POINTS:], looks, axis)
    rest = PUPIL_POINTS - IBUG_POINTS
    by_frame = jnp.concatenate(
        [
            by_angles,
            seen[..., None],
            jnp.broadcast_to(jnp.eye(2), (PUPIL_POINTS, 2, 2)),
            jnp.pad(by_expression, ((0, rest), (0, 0), (0, 0))),
            jnp.pad(by_gaze, ((IBUG_POINTS, 0), (0, 0), (0, 0))),
        ],
        axis=-1,
    )
    if not with_person:
        return frame.place[None] + seen, by_frame, jnp.zeros((PUPIL_POINTS, 2, 0))
    turned_axes = model.radius_identity[:, None, None] * (axis @ eyes.T)[None] + radius * (model.axis_identity @ eyes.T)
    moved = model.identity.at[:, IBUG_POINTS:].add(turned_axes)
    by_slide = jnp.pad(jnp.einsum("pij,pj->pi", view[:17], contour), ((0, PUPIL_POINTS - 17), (0, 0)))
    by_person = jnp.concatenate(
        [jnp.einsum("pij,kpj->pik", view, moved), by_slide[..., None], (depth[:, None] * deeper)[..., None]], axis=-1
    )
    return frame.place[None] + seen, by_frame, by_person


def _frame_prior(vector: Float[Array, " F"], components: int) -> tuple[Float[Array, " F"], Float[Array, " F"]]:
    """Return the prior's pull toward its mean and its precision for a frame's unknowns."""
    precision = jnp.concatenate(
        [
            jnp.full(3, _ANGLE_PRIOR**-2),
            jnp.full(3, 1e-4),  # scale and place have no prior, and need a positive pivot in frames without points
            jnp.ones(components),
            jnp.full(2, _GAZE_PRIOR**-2),
        ]
    )
    pull = (-precision * vector).at[3:6].set(0.0)
    return pull, precision


def _solve(normal: Float[Array, "N N"], right: Float[Array, "N *M"]) -> Float[Array, "N *M"]:
    """Solve a positive definite system by elimination, scaled to a unit diagonal first because float32 has few digits.

    No LAPACK: jaxlib's batched Cholesky decomposition waits in a thread of XLA's pool for others of that pool, so that two
    threads that fit faces at the same time wait for each other for ever.
    """
    root = jnp.sqrt(jnp.diagonal(normal))
    size = len(root)
    shaped = root.reshape((-1,) + (1,) * (right.ndim - 1))
    scaled = normal / (root[:, None] * root[None]) + 1e-6 * jnp.eye(size)

    def eliminate(pivot: Array, system: Array) -> Array:
        factor = system[:, pivot] - (jnp.arange(size) == pivot)
        return system - factor[:, None] * (system[pivot] / system[pivot, pivot])[None]

    system = jnp.concatenate([scaled, (right / shaped).reshape(size, math.prod(right.shape[1:]))], axis=1)
    return jax.lax.fori_loop(0, size, eliminate, system)[:, size:].reshape(right.shape) / shaped


def _limited(step: Float[Array, " F"]) -> Float[Array, " F"]:
    largest = jnp.full(step.shape, 3.0).at[:4].set(_LARGEST_STEP)
    return jnp.clip(step, -largest, largest)


def _start(model: LandmarkModel, points: Float[Array, "70 2"]) -> Frames:
    """Estimate the pose by the affine transform that maps the mean shape to the points; expression and gaze are zero."""
    known = jnp.isfinite(points).all(-1)[:IBUG_POINTS].astype(jnp.float32)
    count = jnp.maximum(known.sum(), 1.0)
    shape, seen = model.mean[:IBUG_POINTS], jnp.nan_to_num(points[:IBUG_POINTS]) * jnp.array([[1.0, -1.0]])
    middle, place = known @ shape / count, known @ seen / count
    shape, seen = shape - middle[None], (seen - place[None]) * known[:, None]
    spread = shape.T @ (shape * known[:, None]) + 1e-3 * jnp.eye(3)
    affine = _solve(spread, shape.T @ seen).T
    scale = jnp.maximum(jnp.sqrt((affine**2).sum() / 2), 1e-4)
    first = affine[0] / jnp.maximum(jnp.linalg.norm(affine[0]), 1e-9)
    second = affine[1] - (affine[1] @ first) * first
    second /= jnp.maximum(jnp.linalg.norm(second), 1e-9)
    third = jnp.cross(first, second)
    # The third row of the rotation is (-cos(pitch) sin(yaw), -sin(pitch), cos(pitch) cos(yaw)).
    angles = jnp.stack(
        [
            jnp.arctan2(-third[0], third[2]),
            jnp.arcsin(jnp.clip(-third[1], -1.0, 1.0)),
            jnp.arctan2(first[1], second[1]),
        ]
    )
    angles = jnp.clip(angles, -1.2, 1.2)
    turned = rotation(angles) @ middle
    place = (place - scale * turned[:2]) * jnp.array([1.0, -1.0])
    return Frames(angles, jnp.log(scale), place, jnp.zeros(len(model.expression)), jnp.zeros(2))


def _offset(
    model: LandmarkModel, person: Person, vectors: Float[Array, "S F"], points: Float[Array, "S 70 2"], noise: float
) -> Float[Array, "70 3"]:
    """Compute the person's mean residual of each point in head coordinates, by least squares with a prior."""

    def one(vector: Array, points: Array) -> tuple[Array, Array]:
        frame = unpack_frame(vector)
        known = jnp.isfinite(points).all(-1)
        difference = jnp.where(known[:, None], jnp.nan_to_num(points) - predict(model, person, frame), 0.0)
        scale = jnp.exp(frame.log_scale)
        view = rotation(frame.angles)[:2] * jnp.array([[1.0], [-1.0]])
        weight = known / (1 + (difference**2).sum(-1) / (scale * noise * model.noise * _OUTLIER) ** 2) ** 2
        return weight[:, None, None] * (view.T @ view)[None], weight[:, None] * (difference @ view) / scale

    normal, right = jax.vmap(one)(vectors, points)
    normal, right = normal.sum(0), right.sum(0)
    spread = jnp.full(PUPIL_POINTS, _OFFSET_PRIOR).at[IBUG_POINTS:].set(_CENTER_PRIOR)
    prior = (noise * model.noise / spread)[:, None, None] ** 2
    right = right + jnp.einsum("pij,pj->pi", normal, person.offset)
    return jax.vmap(_solve)(normal + prior * jnp.eye(3)[None], right)


def known_frames(landmarks: Float[np.ndarray, "S P 2"]) -> Bool[np.ndarray, " S"]:
    """Return which frames have all 68 points."""
    return np.isfinite(landmarks[:, :IBUG_POINTS]).all((-1, -2))


def _padded(points: Float[np.ndarray, "S 70 2"], size: int) -> Float[np.ndarray, "N 70 2"]:
    rows = np.full((size, PUPIL_POINTS, 2), np.nan, np.float32)
    rows[: len(points)] = points
    return rows
