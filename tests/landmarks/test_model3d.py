"""The 3D landmark model on faces with known pose, expression and gaze: its own, and rendered heads it was not fitted to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import rotation as rendered_rotation
from data_prep.heads.motion import talk
from data_prep.heads.person import prepare
from data_prep.heads.render import pose, true_landmarks
from data_prep.tools.fit_landmark_model import MOVEMENT_RIDGE, movement_by_identity
from th_jax.landmarks.model3d import (
    MODEL_FILE,
    Frames,
    LandmarkModel,
    Person,
    _derivatives,
    _fit_batch,
    _solve,
    eye_radius,
    fit_clip,
    fit_frames,
    fit_identity,
    fit_person,
    load_model,
    movement_size,
    neutral_shape,
    pack_frame,
    predict,
    project,
    rotation,
    unpack_frame,
)
from th_jax.landmarks.scheme import mirror_landmarks

HELDOUT = 100_000


@pytest.fixture(scope="module")
def model() -> LandmarkModel:
    return load_model()


@pytest.fixture(scope="module")
def made(model: LandmarkModel) -> tuple[Person, Frames, np.ndarray]:
    """Eight frames of a person drawn from the model, with yaw up to 60 degrees."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.normal(0, 1, shape).astype(np.float32)  # noqa: E731 - one line of chance
    person = Person(*map(jnp.asarray, (draw(30), np.float32(0.5), np.float32(0.08), np.zeros((70, 3), np.float32))))
    angles = np.radians(np.stack([np.linspace(-60, 60, 8), 8 * draw(8), 8 * draw(8)], -1)).astype(np.float32)
    parts = angles, np.full(8, np.log(0.25)), 0.5 + 0.03 * draw(8, 2), draw(8, 20), 0.2 * draw(8, 2)
    frames = Frames(*(jnp.asarray(part, jnp.float32) for part in parts))
    points = jax.jit(jax.vmap(lambda frame: predict(model, person, frame)))(frames)
    return person, Frames(*map(np.asarray, frames)), np.asarray(points)


@pytest.fixture(scope="module")
def rendered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, angles and lids of 24 moments of a held-out head."""
    person = prepare(draw_identity(HELDOUT + 3))
    motion = talk(HELDOUT + 3, seconds=12.0, fps=2.0)
    states = [motion.state(moment) for moment in range(24)]
    points = np.stack([true_landmarks(person, pose(person, state))[:, :2] for state in states])
    return points, motion.angles[:24], motion.units[:24, 8]


def yaw_of(frames: Frames) -> np.ndarray:
    return np.degrees(np.asarray(frames.angles)[:, 0])


def test_the_file_is_small_and_symmetric(model: LandmarkModel) -> None:
    assert MODEL_FILE.stat().st_size <= 150_000
    assert len(model.identity) == 30
    assert len(model.expression) == 20
    flipped = np.asarray(model.mean) * [-1, 1, 1]
    from th_jax.landmarks.scheme import MIRROR_ORDER

    np.testing.assert_allclose(flipped[MIRROR_ORDER], model.mean, atol=1e-5)
    slide = np.asarray(model.slide)
    np.testing.assert_allclose(slide[1, ::-1] * [-1, 1, 1], slide[0], atol=1e-5)
    assert np.linalg.norm(slide[0], axis=-1).max() > 0.02  # the jaw does move along the contour


def test_rotations_are_the_renderers() -> None:
    angles = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    expected = np.stack([rendered_rotation(*map(float, one)) for one in angles])
    np.testing.assert_allclose(rotation(jnp.asarray(angles)), expected, atol=1e-6)


def test_pupils_lie_on_the_eyeball(model: LandmarkModel, made: tuple[Person, Frames, np.ndarray]) -> None:
    person, frames, points = made
    straight = person._replace(perspective=jnp.float32(0.0))
    for number in range(0, 8, 3):
        frame = Frames(*(jnp.asarray(leaf[number]) for leaf in frames))
        centers = np.asarray(project(neutral_shape(model, straight)[68:], straight, frame))
        pupils = np.asarray(predict(model, straight, frame))[68:]
        radius = float(eye_radius(model, straight)) * 0.25
        assert (np.linalg.norm(pupils - centers, axis=-1) <= 1.05 * radius).all()
    del points


def test_a_persons_mean_residual_moves_their_points(
    model: LandmarkModel, made: tuple[Person, Frames, np.ndarray]
) -> None:
    person, _, _ = made
    step = np.random.default_rng(0).normal(0, 0.01, person.offset.shape).astype(np.float32)
    moved = person._replace(offset=person.offset + step)
    np.testing.assert_allclose(neutral_shape(model, moved) - neutral_shape(model, person), step, atol=1e-6)


def test_what_the_model_made_is_found_again(model: LandmarkModel, made: tuple[Person, Frames, np.ndarray]) -> None:
    """Including profiles of 60 degrees, whose fit starts from an affine guess."""
    _, frames, points = made
    _, found = fit_clip(points)
    np.testing.assert_allclose(found.angles, frames.angles, atol=np.radians(2.5))
    np.testing.assert_allclose(found.gaze, frames.gaze, atol=np.radians(6))
    again = fit_frames(points, fit_clip(points)[0])
    np.testing.assert_allclose(again.angles, found.angles, atol=1e-3)


def test_a_known_person_is_fitted_closely_frame_by_frame(
    model: LandmarkModel, made: tuple[Person, Frames, np.ndarray]
) -> None:
    person, frames, points = made
    found = fit_frames(points, person)
    np.testing.assert_allclose(found.angles, frames.angles, atol=np.radians(0.6))
    np.testing.assert_allclose(found.gaze, frames.gaze, atol=np.radians(1.0))
    np.testing.assert_allclose(found.place, frames.place, atol=2e-3)


def test_shift_scale_and_turn_of_the_image_change_the_pose_alone(made: tuple[Person, Frames, np.ndarray]) -> None:
    person, _, points = made
    turn = 0.3
    around = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    plain = fit_frames(points, person)
    moved = fit_frames(0.6 * (points - 0.5) @ around + 0.45, person)
    np.testing.assert_allclose(moved.log_scale, plain.log_scale + np.log(0.6), atol=1e-3)
    np.testing.assert_allclose(moved.angles - plain.angles, np.broadcast_to([0, 0, turn], (8, 3)), atol=5e-3)
    np.testing.assert_allclose(moved.expression, plain.expression, atol=0.05)


def test_a_mirrored_image_has_the_mirrored_pose(rendered: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    points = rendered[0][:8]
    plain, flipped = fit_clip(points)[1], fit_clip(mirror_landmarks(points))[1]
    np.testing.assert_allclose(flipped.angles, np.asarray(plain.angles) * [-1, 1, -1], atol=2e-3)
    np.testing.assert_allclose(flipped.gaze, np.asarray(plain.gaze) * [-1, 1], atol=5e-3)


def test_a_rendered_head_turns_and_looks_as_it_does(rendered: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    points, angles, blink = rendered
    person, frames = fit_clip(points)
    assert np.abs(yaw_of(frames) - np.degrees(angles[:, 0])).mean() < 1.5
    gaze = np.degrees(np.asarray(frames.gaze) - angles[:, 3:])[blink < 0.5]
    assert np.abs(gaze[:, 0]).mean() < 2.5
    residual = np.asarray(jax.vmap(lambda frame: predict(load_model(), person, frame))(frames)) - points
    assert np.abs(residual).mean() < 1e-3


def test_unknown_points_and_frames_do_not_disturb(rendered: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    points = rendered[0][:8].copy()
    whole = fit_clip(points)[1]
    points[2, 30:36] = np.nan
    points[5] = np.nan
    points[:, 68:] = np.nan
    partial = fit_clip(points)[1]
    rest = [0, 1, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(yaw_of(partial)[rest], yaw_of(whole)[rest], atol=1.5)
    assert all(np.isfinite(leaf).all() for leaf in partial)
    np.testing.assert_allclose(partial.gaze, 0, atol=1e-3)


def test_one_frame_is_enough(rendered: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    points, angles, _ = rendered
    _, frame = fit_clip(points[:1])
    assert abs(yaw_of(frame)[0] - np.degrees(angles[0, 0])) < 5


def test_a_wild_point_is_ignored(made: tuple[Person, Frames, np.ndarray]) -> None:
    person, frames, points = made
    wrong = points.copy()
    wrong[:, 8] += 0.3
    found = fit_frames(wrong, person)
    np.testing.assert_allclose(found.angles, frames.angles, atol=np.radians(3))


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((2, 5, 2)), "68 iBUG points, or 70"),
        (np.full((3, 68, 2), np.nan), "at least one frame has half of its 68 landmarks"),
        (np.zeros((0, 68, 2)), "at least one frame has half of its 68 landmarks"),
    ],
)
def test_what_is_no_face_is_an_error(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_clip(landmarks)


def test_derivatives_are_those_of_forward_differentiation(model: LandmarkModel) -> None:
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.normal(0, 1, shape), jnp.float32)  # noqa: E731 - one line of chance
    person = Person(draw(30), jnp.float32(0.4), jnp.float32(0.08), 0.01 * draw(70, 3))

    def of_person(unknowns: jax.Array, frame: Frames) -> jax.Array:
        changed = person._replace(identity=unknowns[:-2], slide=unknowns[-2], perspective=unknowns[-1])
        return predict(model, changed, frame)

    unknowns = jnp.concatenate([person.identity, person.slide[None], person.perspective[None]])

    @jax.jit
    def ours_and_expected(frame: Frames) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        of_frame = jax.jacfwd(lambda vector: predict(model, person, unpack_frame(vector)))(pack_frame(frame))
        expected = predict(model, person, frame), of_frame, jax.jacfwd(of_person)(unknowns, frame)
        return _derivatives(model, person, frame, with_person=True), expected

    for yaw in (0.5, -0.7):
        angles, place = jnp.array([yaw, 0.2, -0.1]), jnp.array([0.4, 0.6])
        frame = Frames(angles, jnp.float32(-1.3), place, draw(20), jnp.array([0.2, -0.1]))
        for ours, expected, tolerance in zip(*ours_and_expected(frame), (1e-6, 1e-5, 1e-5), strict=True):
            np.testing.assert_allclose(ours, expected, atol=tolerance)


def test_the_size_of_movements_belongs_to_the_identity(model: LandmarkModel) -> None:
    def size(identity: np.ndarray) -> float:
        rest = jnp.float32(0.5), jnp.float32(0.08), jnp.zeros((70, 3))
        return float(movement_size(model, Person(jnp.asarray(identity, jnp.float32), *rest)))

    direction = np.asarray(model.movement_identity)
    assert size(np.zeros(30)) == pytest.approx(float(model.movement)) == pytest.approx(1, abs=0.03)
    assert size(direction / np.linalg.norm(direction)) - size(np.zeros(30)) == pytest.approx(
        np.linalg.norm(direction), rel=1e-4
    )
    assert np.linalg.norm(direction) > 0.01
    assert size(1e3 * direction) == 1.25
    assert size(-1e3 * direction) == pytest.approx(0.8)


def test_movements_are_fitted_to_identities_with_a_ridge() -> None:
    shares = np.random.default_rng(0).normal(size=(4000, 3))
    weights = movement_by_identity(shares, 1.01 + shares @ np.array([0.05, -0.02, 0.0]))
    np.testing.assert_allclose(weights[0], 1.01, atol=2e-3)
    np.testing.assert_allclose(weights[1:], np.array([0.05, -0.02, 0.0]) / (1 + MOVEMENT_RIDGE), atol=2e-3)


def test_normal_equations_are_solved_as_numpy_does() -> None:
    """With a diagonal over six orders of magnitude, as scale, place and expression have."""
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(60, 28)) * np.logspace(-3, 3, 28)
    normal = factors.T @ factors
    for right in (rng.normal(size=28), rng.normal(size=(28, 33))):
        expected = np.linalg.solve(normal + 1e-6 * np.diag(np.diag(normal)), right)
        found = np.asarray(jax.jit(_solve)(jnp.asarray(normal, jnp.float32), jnp.asarray(right, jnp.float32)))
        scale = np.abs(expected).max(axis=tuple(range(1, right.ndim)), keepdims=True)
        np.testing.assert_allclose(found / scale, expected / scale, atol=2e-4)


def test_a_clips_identity_is_that_of_its_fit(made: tuple[Person, Frames, np.ndarray]) -> None:
    for ours, fitted in zip(fit_identity(made[2]), fit_clip(made[2])[0], strict=True):
        np.testing.assert_array_equal(ours, fitted)


def test_fits_in_two_threads_cannot_wait_for_each_other(model: LandmarkModel) -> None:
    """jaxlib's batched LAPACK waits in the pool's threads for the pool."""
    points = jnp.zeros((32, 70, 2))
    person, _ = jax.eval_shape(fit_person, model, points)
    for lowered in (fit_person.lower(model, points), _fit_batch.lower(model, person, points, noise=0.012)):
        assert "while" in (text := lowered.as_text())
        assert "custom_call" not in text
