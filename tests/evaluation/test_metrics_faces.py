"""Identity, landmark error, pose and expression on constructed faces, and counted failures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import SAMPLING_RATE, SPACING, choose_spread, rotation, talk
from th_jax.data.records import VideoRecords, bundled_heads
from th_jax.evaluation.metrics import (
    centred_cosine,
    expression_error,
    expression_measures,
    faces,
    head_rotation,
    identity_l2,
    interocular_distance,
    landmark_error,
    pose_error,
    score_with_failures,
)

seeds = st.integers(0, 2**32 - 1)
angles = st.floats(-40, 40)


def random_landmarks(seed: int, *, count: int = 3, points: int = 68) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (count, points, 2))


def seen_from_afar(turn: Rotation, *, scale: float = 0.2, middle: float = 0.5) -> np.ndarray:
    """Landmarks of the mean head under a rotation; those that are not rigid lie anywhere."""
    landmarks = random_landmarks(0, count=1)
    landmarks[0, faces._RIGID] = scale * turn.apply(faces._MEAN_HEAD)[:, :2] + middle
    return landmarks


def person(number: int):
    return VideoRecords(bundled_heads(), "heldout").read(number)


def test_identity_of_constructed_descriptors() -> None:
    a = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 1.0]])
    b = np.array([[1.0, 4.0, 0.0], [0.0, -2.0, 1.0]])
    np.testing.assert_allclose(identity_l2(a, b), [5.0, 4.0])
    np.testing.assert_allclose(identity_l2(a, a), [0.0, 0.0])
    mean = np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(centred_cosine(a, a, mean=mean), [1.0, 1.0])
    np.testing.assert_allclose(centred_cosine(a, b, mean=mean)[1], -1.0)
    assert np.isnan(centred_cosine(mean[None], a[:1], mean=mean)).all(), "a zero vector has no direction"


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_identity_symmetry_and_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, mean = rng.normal(size=(5, 8)), rng.normal(size=(5, 8)), rng.normal(size=8)
    np.testing.assert_array_equal(identity_l2(a, b), identity_l2(b, a))
    cosine = centred_cosine(a, b, mean=mean)
    np.testing.assert_allclose(cosine, centred_cosine(b, a, mean=mean), rtol=1e-12)
    assert np.all(np.abs(cosine) <= 1)
    np.testing.assert_allclose(centred_cosine(a, mean + 3 * (a - mean), mean=mean), 1.0)


def test_landmark_error_of_constructed_shifts() -> None:
    true = random_landmarks(1)
    true[:, 36], true[:, 45] = (0.3, 0.4), (0.7, 0.4)
    np.testing.assert_allclose(interocular_distance(true), 0.4)
    np.testing.assert_allclose(landmark_error(true + np.array([0.03, 0.04]), true), 0.05 / 0.4)
    np.testing.assert_allclose(landmark_error(true, true), 0.0)
    one_moved = true.copy()
    one_moved[:, 5, 0] += 0.4
    np.testing.assert_allclose(landmark_error(one_moved, true), 1 / 68)
    unknown = one_moved.copy()
    unknown[:, 10] = np.nan
    np.testing.assert_allclose(landmark_error(unknown, true), 1 / 67)


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.1, 500), st.floats(-3, 3))
def test_landmark_measures_know_no_unit_and_no_place(seed: int, scale: float, shift: float) -> None:
    a, b = random_landmarks(seed), random_landmarks(seed + 1, points=70)
    for measure in (landmark_error, pose_error, expression_error):
        moved = measure(scale * a + shift, scale * b + shift)
        np.testing.assert_allclose(moved, measure(a, b), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(measure(a[::-1], b[::-1]), measure(a, b)[::-1])
        np.testing.assert_array_equal(measure(a[:1], b[:1]), measure(a, b)[:1])
        np.testing.assert_allclose(measure(a, a), 0.0, atol=1e-9)


def test_a_face_that_was_not_found_is_nan() -> None:
    a, b = random_landmarks(2), random_landmarks(3)
    a[1] = np.nan
    for measure in (landmark_error, pose_error, expression_error):
        assert np.isnan(measure(a, b)).tolist() == [False, True, False]
    without_eye = b.copy()
    without_eye[0, 45] = np.nan
    assert np.isnan(landmark_error(a, without_eye)).tolist() == [True, True, False]


@settings(max_examples=20, deadline=None)
@given(st.tuples(angles, angles, angles), st.tuples(angles, angles, angles))
def test_pose_error_is_the_angle_between_rotations(degrees_a: tuple, degrees_b: tuple) -> None:
    one, other = (Rotation.from_euler("yxz", degrees, degrees=True) for degrees in (degrees_a, degrees_b))
    a, b = seen_from_afar(one), seen_from_afar(other, scale=0.3, middle=0.4)
    np.testing.assert_allclose(head_rotation(a)[0], one.as_matrix(), atol=1e-9)
    expected = np.degrees((one * other.inv()).magnitude())
    np.testing.assert_allclose(pose_error(a, b), expected, atol=1e-6)


def test_pose_error_on_rendered_heads() -> None:
    # The motion that a head was rendered from is known: true turns between successive frames, beside those measured.
    true, measured = [], []
    for number in range(2):
        record = person(number)
        motion = talk(int(record.identity.removeprefix("head-")), seconds=2.5 * SPACING * 64 + 2, fps=SAMPLING_RATE)
        moments = choose_spread(motion, count=64)
        turns = Rotation.from_matrix([rotation(*map(float, motion.angles[i, :3])) for i in moments])
        true.append(np.degrees((turns[:-1] * turns[1:].inv()).magnitude()))
        measured.append(pose_error(record.true_landmarks[:-1], record.true_landmarks[1:]))
    true, measured = np.concatenate(true), np.concatenate(measured)
    assert np.corrcoef(true, measured)[0, 1] > 0.95
    assert np.abs(true - measured).mean() < 4.0


def test_expressions_are_distinguished() -> None:
    face = random_landmarks(4, count=1)
    face[0, 36], face[0, 45] = (0.3, 0.4), (0.8, 0.4)
    face[0, [62, 66]] = (0.5, 0.7), (0.5, 0.75)
    wider = face.copy()
    wider[0, 66] = (0.5, 0.85)
    change = (expression_measures(wider) - expression_measures(face))[0]
    np.testing.assert_allclose(change, [0.2, 0, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(expression_error(wider, face), 0.2 / 6)
    raised = face.copy()
    raised[0, 22:27, 1] -= 0.1
    assert np.flatnonzero((expression_measures(raised) - expression_measures(face))[0]).tolist() == [5]


def test_jaws_are_seen_on_rendered_heads() -> None:
    record = person(0)
    motion = talk(100_000, seconds=2.5 * SPACING * 64 + 2, fps=SAMPLING_RATE)
    moments = choose_spread(motion, count=64)
    jaw = motion.units[moments, load_mesh().unit_index["jawOpen"]]
    measures = expression_measures(record.true_landmarks)
    assert np.corrcoef(jaw, measures[:, 0])[0, 1] > 0.8


def test_failures_are_counted_and_charged() -> None:
    score = score_with_failures(np.array([0.1, np.nan, 0.3, np.nan]), failure_value=1.0)
    assert score.mean == pytest.approx(0.2)
    assert score.mean_with_failures == pytest.approx(0.6)
    assert (score.failures, score.frames, score.failure_value) == (2, 4, 1.0)
    nothing = score_with_failures(np.full((2, 3), np.nan), failure_value=0.5)
    assert np.isnan(nothing.mean)
    assert (nothing.failures, nothing.mean_with_failures) == (6, 0.5)
    whole = score_with_failures(np.array([0.1, 0.3]), failure_value=1.0)
    assert whole.mean == whole.mean_with_failures
    with pytest.raises(ValueError, match=r"failure_value .* got nan"):
        score_with_failures(np.zeros(2), failure_value=float("nan"))
    with pytest.raises(ValueError, match="score must be finite"):
        score_with_failures(np.array([np.inf]), failure_value=1.0)


def test_bad_faces() -> None:
    a = random_landmarks(5)
    with pytest.raises(ValueError, match=r"landmarks .* got \[3, 20, 2\]"):
        interocular_distance(a[:, :20])
    with pytest.raises(ValueError, match="3 frames cannot be compared with those of 2"):
        landmark_error.__wrapped__(a, a[:2])
    with pytest.raises(ValueError, match=r"descriptors .* got \(3, 8\) and"):
        identity_l2.__wrapped__(np.zeros((3, 8)), np.zeros((2, 8)))
    with pytest.raises(ValueError, match=r"mean of descriptors .* got \(7,\)"):
        centred_cosine.__wrapped__(np.zeros((3, 8)), np.zeros((3, 8)), mean=np.zeros(7))
