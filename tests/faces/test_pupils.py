"""Pupils are found where they were drawn or rendered, at any size and gaze, and nowhere else."""

import cv2
import numpy as np
import pytest
from portrait import portrait

from benchmarks.pupils import jitter
from data_prep.heads import draw_identity, head_state, render_head
from th_jax.faces import Box, landmarks_in_box
from th_jax.faces.pupils import EYES, eye_opening, find_pupils, with_pupils

SKIN, WHITE, IRIS, PUPIL = (190, 140, 120), (225, 220, 215), (110, 75, 50), (15, 15, 15)
SHAPE = np.array([(0, 0.5), (0.27, 0.3), (0.7, 0.3), (1, 0.5), (0.7, 0.68), (0.27, 0.68)])


def outlines(*, width: float = 40.0, opening: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """68 landmarks with two eyes."""
    landmarks = np.full((68, 2), 120.0)
    turned = (SHAPE - 0.5) * (1, opening) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    for eye, left in zip(EYES, (50.3, 140.7), strict=True):
        landmarks[eye] = turned * width + (left + width / 2, 120.4)
    return landmarks.astype(np.float32)


def drawn(gaze: tuple[float, float] = (0.0, 0.0), **how: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame with two eyes looking aside by fractions of the eye's width, its landmarks and the true pupils."""
    scale, size, landmarks = 4, 240, outlines(**how)
    width, pupils = how.get("width", 40.0), []
    frame = np.full((size * scale, size * scale, 3), SKIN, np.uint8)
    for eye in EYES:
        pupil = landmarks[eye].mean(0) + np.array(gaze) * width
        inside = np.zeros(frame.shape[:2], np.uint8)
        cv2.fillPoly(inside, [np.round(landmarks[eye] * scale).astype(np.int32)], 1)
        ball = np.full_like(frame, WHITE)
        for radius, color in ((0.2, IRIS), (0.09, PUPIL)):
            cv2.circle(ball, np.round(pupil * scale).astype(int).tolist(), round(radius * width * scale), color, -1)
        frame[inside > 0] = ball[inside > 0]
        pupils.append(pupil)
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA), landmarks, np.array(pupils)


@pytest.mark.parametrize("width", [8.0, 20.0, 40.0])
@pytest.mark.parametrize("gaze", [(0.0, 0.0), (-0.2, 0.0), (0.2, 0.02), (0.1, -0.04)])
def test_drawn_pupils(gaze, width):
    frame, landmarks, pupils = drawn(gaze, width=width)
    found = find_pupils(frame, landmarks)
    assert found.dtype == np.float32
    assert np.abs(found - pupils).max() < 0.06 * width


def test_a_head_on_its_side_makes_no_great_difference():
    frame, landmarks, pupils = drawn((0.15, 0.0), turn=0.5)
    assert np.abs(find_pupils(frame, landmarks) - pupils).max() < 0.06 * 40


def test_a_moved_frame_moves_the_pupils_along():
    frame, landmarks, _ = drawn((0.1, 0.0))
    found = find_pupils(frame, landmarks)
    wide = np.full((300, 400, 3), SKIN, np.uint8)
    wide[40:280, 110:350] = frame
    moved = np.float32([110, 40])
    np.testing.assert_allclose(find_pupils(wide, landmarks + moved), found + moved, atol=0.05)


def test_with_pupils_there_are_seventy_points():
    frame, landmarks, _ = drawn()
    points = with_pupils(frame, landmarks)
    np.testing.assert_array_equal(points[:68], landmarks)
    np.testing.assert_array_equal(points[68:], find_pupils(frame, landmarks))


def test_each_eye_is_judged_separately():
    frame, landmarks, pupils = drawn()
    landmarks[36] = np.nan
    found = find_pupils(frame, landmarks)
    assert np.isnan(found).all(1).tolist() == [True, False]
    assert np.abs(found[1] - pupils[1]).max() < 2.4


@pytest.mark.parametrize("width", [2.0, 3.9])
def test_a_narrow_eye_has_no_pupil(width):
    frame, landmarks, _ = drawn(width=width)
    assert np.isnan(find_pupils(frame, landmarks)).all()


def test_lids_that_nearly_touch_hide_it():
    for opening, known in ((0.4, False), (0.6, True)):
        frame, landmarks, _ = drawn(opening=opening)
        np.testing.assert_allclose(eye_opening(landmarks), 0.38 * opening, rtol=1e-4)
        assert np.isfinite(find_pupils(frame, landmarks)).all() == known


def test_an_open_outline_on_skin_has_none():
    """Detectors often place one on a closed eye."""
    landmarks = outlines()
    skin = np.full((240, 240, 3), SKIN, np.uint8)
    skin[120:123] = (120, 80, 70)  # the line of the lashes
    for frame in (skin, np.zeros_like(skin), np.full_like(skin, 255)):
        assert np.isnan(find_pupils(frame, landmarks)).all()


def test_an_outline_beyond_the_frame_has_none():
    frame, landmarks, _ = drawn()
    assert np.isnan(find_pupils(frame, landmarks - np.float32([60, 0]))[0]).all()
    assert np.isnan(find_pupils(frame[:110], landmarks)).all()
    assert np.isnan(find_pupils(frame, landmarks + np.float32(1e6))).all()


def test_noise_is_survived():
    """For any pixels: a pupil inside the outline's box, or none."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        landmarks = outlines(width=float(rng.uniform(4, 60)), opening=float(rng.uniform(0.5, 2.5)))
        found = find_pupils(rng.integers(0, 256, (240, 240, 3), np.uint8), landmarks)
        for eye, pupil in zip(EYES, found, strict=True):
            corners = landmarks[eye]
            assert np.isnan(pupil).all() or ((pupil >= corners.min(0)) & (pupil <= corners.max(0))).all()


@pytest.mark.parametrize("size", [128, 256])
def test_rendered_gaze(size):
    """A glance to either side moves the pupils by as much as the renderer moved them."""
    moved, found = [], []
    for seed in (2, 3, 5):
        pair = [render_head(draw_identity(seed), head_state(gaze_yaw=yaw), size=size) for yaw in (-0.3, 0.3)]
        moved.append((pair[1].landmarks - pair[0].landmarks)[68:, 0])
        found.append(np.subtract(*(find_pupils(r.frame, size * r.landmarks[:68])[:, 0] / size for r in pair[::-1])))
    assert np.isfinite(found).all()
    assert np.abs(np.array(found) / np.array(moved) - 1).mean() < 0.12


def test_a_real_portrait():
    """The centers of her irises, read off an enlargement; each has a lamp's reflection."""
    landmarks = landmarks_in_box(portrait(), Box(83, 82, 172, 171))
    assert np.linalg.norm(find_pupils(portrait(), landmarks) - [(107.5, 101.5), (151.0, 103.5)], axis=-1).max() < 2.5


def test_jitter_is_the_noise_of_one_frame_whatever_the_motion() -> None:
    noise = np.random.default_rng(0).normal(size=(4000, 2, 2), scale=0.03)
    motion = np.linspace(0, 5, 4000)[:, None, None]
    noise[7] = np.nan
    assert jitter((motion + noise) * 40, np.full((4000, 2), 40.0)) == pytest.approx(0.03, rel=0.03)
