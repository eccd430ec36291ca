"""One square contains the head, is robust to outliers, and crops, points and pixels agree."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from portrait import portrait

from th_jax.faces import (
    Square,
    crop_frame,
    crop_segment,
    detect_faces,
    face_size,
    segment_square,
    settled_landmarks,
    to_crop,
    whole_frame_square,
)


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return settled_landmarks(portrait(), detect_faces(portrait())[0].box)


def square_of(landmarks: np.ndarray, **settings: float) -> Square:
    """In a frame large enough never to limit it."""
    return segment_square(landmarks + 2000, height=9000, width=9000, **settings)


def test_the_square_holds_the_whole_head(landmarks: np.ndarray) -> None:
    square = segment_square(landmarks[None], height=256, width=256)
    assert square.left >= 0
    assert square.top >= 0
    inside = to_crop(landmarks, square)
    assert inside.min() > 0.2
    assert inside.max() < 0.9
    # The face from brows to chin fills about half; the hair's top (row 32 here) and both ears' hair lie inside.
    assert 0.4 < inside[8, 1] - inside[17:27, 1].min() < 0.6
    assert square.top <= 32
    assert square.left < 50 < 205 < square.left + square.side


def test_face_size_is_the_detectors_box(landmarks: np.ndarray) -> None:
    assert face_size(landmarks) == pytest.approx(detect_faces(portrait())[0].box.side, rel=0.15)
    assert np.isnan(face_size(np.full((68, 2), np.nan)))


def test_the_square_covers_every_usual_frame(landmarks: np.ndarray) -> None:
    shifts = np.stack([np.linspace(-60, 60, 40), np.zeros(40)], -1)
    moving = square_of(landmarks + shifts[:, None])
    still = square_of(landmarks[None])
    assert moving.side == pytest.approx(still.side * 0.86 + 120 * 0.9, rel=0.1)
    inside = to_crop(landmarks + 2000 + shifts[:, None], moving)
    assert inside.min() > 0
    assert inside.max() < 1


def test_outliers_do_not_move_the_square(landmarks: np.ndarray) -> None:
    steady = np.repeat(landmarks[None], 40, 0) + np.random.default_rng(0).normal(0, 1, (40, 1, 2))
    outliers = steady.copy()
    outliers[3] += (900, -400)  # found somewhere else
    outliers[20] = (outliers[20] - outliers[20].mean(0)) * 6 + outliers[20].mean(0)  # found far too large
    outliers[30] = np.nan
    one, other = square_of(steady), square_of(outliers)
    assert np.abs(np.subtract(one, other)).max() <= 0.02 * one.side


def test_context_widens_about_the_same_middle(landmarks: np.ndarray) -> None:
    one, wide = square_of(landmarks[None]), square_of(landmarks[None], context=1.5)
    assert wide.side == pytest.approx(1.5 * one.side, abs=2)
    assert wide.left + wide.side / 2 == pytest.approx(one.left + one.side / 2, abs=1)
    with pytest.raises(ValueError, match=r"context .* got 0"):
        square_of(landmarks[None], context=0.0)


@given(
    x=st.integers(-300, 900), y=st.integers(-300, 900), scale=st.floats(0.1, 8), height=st.integers(20, 700),
    width=st.integers(20, 700),
)  # fmt: skip
def test_fitting_loses_nothing_that_the_frame_shows(x: int, y: int, scale: float, height: int, width: int) -> None:
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    ring = (np.stack([np.cos(angles), np.sin(angles)], -1) * 20 * scale + (x, y))[
        None
    ]  # in float64: far away, float32 would round
    free = segment_square(ring + 10_000, height=40_000, width=40_000)
    free = Square(free.left - 10_000, free.top - 10_000, free.side)
    fitted = segment_square(ring, height=height, width=width)
    assert fitted.side == min(free.side, max(height, width))
    for start, wanted, extent in ((fitted.left, free.left, width), (fitted.top, free.top, height)):
        if fitted.side <= extent:
            assert 0 <= start <= extent - fitted.side
        seen = [max(0, wanted), min(extent, wanted + free.side)]
        if seen[0] < seen[1]:
            assert start <= seen[0] + 1, "but for rounding"
            assert start + fitted.side >= seen[1] - 1


def test_a_face_at_the_right_and_lower_edge_is_cropped_up_to_them() -> None:
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    ring = (np.stack([np.cos(angles), np.sin(angles)], -1) * 20 + (290, 190))[None].astype(np.float32)
    square = segment_square(ring, height=200, width=300)
    assert square.side < 200
    assert (square.left + square.side, square.top + square.side) == (300, 200)


def test_a_segment_without_a_face() -> None:
    with pytest.raises(ValueError, match="no face was found in it"):
        segment_square(np.full((3, 68, 2), np.nan, np.float32), height=10, width=10)


def test_whole_frames() -> None:
    assert whole_frame_square(224, 224) == Square(0, 0, 224)
    assert whole_frame_square(100, 60) == Square(-20, 0, 100)
    np.testing.assert_array_equal(crop_frame(portrait(), whole_frame_square(256, 256), size=256), portrait())


def test_pixels_at_scale_one_are_copied() -> None:
    crop = crop_frame(portrait(), Square(10, 20, 100), size=100)
    np.testing.assert_array_equal(crop, portrait()[20:120, 10:110])
    crop[:] = 0
    assert portrait()[20:120, 10:110].any()


def test_borders_repeat_the_edge() -> None:
    frame = portrait()
    crop = crop_frame(frame, Square(-10, 200, 100), size=100)
    np.testing.assert_array_equal(crop[:56, 10:], frame[200:256, :90])
    np.testing.assert_array_equal(crop[:56, :10], np.repeat(frame[200:256, :1], 10, 1))
    np.testing.assert_array_equal(crop[56:, 10:], np.repeat(frame[255:, :90], 44, 0))


def test_reduction_is_by_area_means() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    means = frame.reshape(16, 4, 16, 4, 3).mean((1, 3))
    np.testing.assert_allclose(crop_frame(frame, Square(0, 0, 64), size=16), means, atol=0.51)


@pytest.mark.parametrize("size", [32, 64, 200])
def test_points_and_pixels_agree(size: int) -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    frame[60:68, 80:88] = 255  # its middle is at (84, 64)
    square = Square(30, 10, 100)
    crop = cv2.cvtColor(crop_frame(frame, square, size=size), cv2.COLOR_RGB2GRAY).astype(float)
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    found = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    np.testing.assert_allclose(found, to_crop(np.array([84.0, 64.0]), square), atol=0.003)


def test_impossible_crops() -> None:
    with pytest.raises(ValueError, match="outside the frame of 256 x 256 px"):
        crop_frame(portrait(), Square(300, 0, 50), size=10)
    with pytest.raises(ValueError, match="at least 1 px, got 0"):
        crop_frame(portrait(), Square(0, 0, 50), size=0)


def test_segment_of_the_portrait(landmarks: np.ndarray) -> None:
    crops = crop_segment([portrait(), portrait()], np.stack([landmarks, np.full_like(landmarks, np.nan)]), size=128)
    assert crops.frames.shape == (2, 128, 128, 3)
    np.testing.assert_array_equal(crops.frames[0], crops.frames[1])
    # Detection in the crop finds the same points: crop and landmarks belong together.
    again = settled_landmarks(crops.frames[0], detect_faces(crops.frames[0])[0].box) / 128
    assert np.linalg.norm(again - crops.landmarks[0], axis=-1).mean() < 0.01
    assert np.isnan(crops.landmarks[1]).all()
    given_square = crop_segment([portrait()], landmarks[None], size=64, square=Square(5, 5, 200))
    assert given_square.square == Square(5, 5, 200)


def test_segment_with_a_frame_missing(landmarks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        crop_segment([portrait()], np.stack([landmarks, landmarks]), size=64)
