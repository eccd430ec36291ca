"""Each reason against a face is found on a good frame that was spoilt for it, and on no good frame."""

import cv2
import numpy as np
import pytest

from data_prep.build.quality import Measured, Reason, Thresholds, face_patch, judge, measure, points_in_crop, sharpness
from data_prep.build.sample_frames import look_at_photo
from tests.data_prep.clips_of_people import talk
from th_jax.faces import Square

GOOD = talk(3).frames[0]
GRAY = np.full_like(GOOD, 128)


def reason(frame, **thresholds):
    return look_at_photo(frame, thresholds=Thresholds(**thresholds)).reason


def test_good_frames_pass():
    assert [reason(frame) for frame in talk(3).frames[::5]] == [None] * 4
    assert reason(talk(4).frames[0]) is None


def test_each_flaw_has_its_reason():
    half = cv2.resize(GOOD, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    assert reason(GRAY) is Reason.NO_FACE
    assert reason(np.concatenate([GOOD, GOOD], axis=1)) is Reason.SEVERAL_FACES
    assert reason(half) is Reason.TOO_SMALL
    assert reason(cv2.GaussianBlur(GOOD, (0, 0), 3.5)) is Reason.TOO_BLURRED
    assert reason((GOOD * 0.15).astype(np.uint8)) is Reason.TOO_DARK
    assert reason(GOOD, landmark_jump=0.0) is Reason.LANDMARK_JUMP


def test_numbers_say_what_was_measured_and_needed():
    face = Measured(size=30.0, sharpness=0.5, brightness=100.0, landmark_jump=0.0)
    assert judge(face, Thresholds()) == (Reason.TOO_SMALL, {"face": 30.0, "least": 40.0})
    assert judge(face._replace(size=60.0), Thresholds()) is None
    assert judge(face._replace(size=60.0, landmark_jump=0.05), Thresholds()) == (
        Reason.LANDMARK_JUMP,
        {"jump": 0.05, "most": 0.04},
    )


def test_sharpness_knows_neither_light_nor_size():
    landmarks = look_at_photo(GOOD, thresholds=Thresholds()).landmarks
    patch = face_patch(GOOD, landmarks)
    dim = face_patch((GOOD * 0.5).astype(np.uint8), landmarks)
    double = face_patch(cv2.resize(GOOD, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), landmarks * 2)
    assert sharpness(dim) == pytest.approx(sharpness(patch), rel=0.1)
    assert sharpness(double) == pytest.approx(sharpness(patch), rel=0.25)
    assert sharpness(cv2.GaussianBlur(patch, (0, 0), 2.5)) < 0.6 * sharpness(patch)


def test_a_face_outside_of_the_frame_has_no_patch():
    landmarks = look_at_photo(GOOD, thresholds=Thresholds()).landmarks
    assert face_patch(GOOD, landmarks + 1000) is None


def test_the_jump_is_counted_in_face_sizes():
    landmarks = look_at_photo(GOOD, thresholds=Thresholds()).landmarks
    moved = landmarks + np.float32([0.03, 0.04]) * 70
    found = measure(moved, before=landmarks, patch=face_patch(GOOD, landmarks))
    assert found.landmark_jump == pytest.approx(0.05 * 70 / found.size, rel=1e-4)


def test_points_outside_of_crop_or_frame_are_unknown():
    points = np.float32([(10, 10), (39, 20), (41, 20), (20, 51), (-1, 10)])
    crop = points_in_crop(points, Square(-10, 0, 50), height=50, width=60)
    np.testing.assert_allclose(crop[:2], [(0.4, 0.2), (0.98, 0.4)], atol=1e-6)
    assert np.isnan(crop[2:]).all()
