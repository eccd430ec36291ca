"""The landmark scheme: every point is drawn, mirroring is its own inverse and swaps left and right."""

import numpy as np
import pytest

from th_jax.landmarks import scheme


def test_every_point_belongs_to_one_contour() -> None:
    points = [point for contour in scheme.CONTOURS for point in contour.points]
    assert sorted(points) == list(range(68))


def test_segments_are_the_contours_cut() -> None:
    strokes = scheme.segments(68)
    assert len(strokes.start) == 16 + 4 + 4 + 3 + 4 + 6 + 6 + 12 + 8
    assert len(scheme.segments(70).start) == len(strokes.start) + 2
    closed = {(int(a), int(b)) for a, b in zip(strokes.start, strokes.end, strict=True)}
    assert {(41, 36), (47, 42), (59, 48), (67, 60)} <= closed
    assert (16, 0) not in closed


@pytest.mark.parametrize("points", [68, 70])
def test_mirroring_is_its_own_inverse(points: int) -> None:
    landmarks = np.random.default_rng(0).uniform(0, 1, (3, points, 2)).astype(np.float32)
    twice = scheme.mirror_landmarks(scheme.mirror_landmarks(landmarks))
    np.testing.assert_allclose(twice, landmarks, atol=1e-6)


def test_a_symmetric_face_is_its_own_mirror_image() -> None:
    """Built from the right half alone: each contour of it, reflected, must be the contour of the other side."""
    rng = np.random.default_rng(1)
    landmarks = np.zeros((70, 2), np.float32)
    right = [*range(9, 17), *range(22, 27), 34, 35, *range(42, 48), 52, 53, 54, 55, 56, 63, 64, 65, 69]
    middle = [8, *range(27, 31), 33, 51, 57, 62, 66]
    left = {
        9: 7,
        10: 6,
        11: 5,
        12: 4,
        13: 3,
        14: 2,
        15: 1,
        16: 0,
        22: 21,
        23: 20,
        24: 19,
        25: 18,
        26: 17,
        34: 32,
        35: 31,
    }
    left |= {
        42: 39,
        43: 38,
        44: 37,
        45: 36,
        46: 41,
        47: 40,
        52: 50,
        53: 49,
        54: 48,
        55: 59,
        56: 58,
        63: 61,
        64: 60,
        65: 67,
    }
    left |= {69: 68}
    for index in middle:
        landmarks[index] = 0.5, rng.uniform(0, 1)
    for index in right:
        landmarks[index] = rng.uniform(0.5, 1), rng.uniform(0, 1)
        landmarks[left[index]] = 1 - landmarks[index, 0], landmarks[index, 1]
    np.testing.assert_allclose(scheme.mirror_landmarks(landmarks), landmarks, atol=1e-6)


def test_known_points() -> None:
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[3, 1], landmarks[5, 0] = np.nan, np.inf
    known = scheme.known_points(landmarks)
    assert known.sum() == 66
    assert not known[3]
    assert not known[5]


def test_other_numbers_of_points_are_refused() -> None:
    with pytest.raises(ValueError, match="68 iBUG points, or 70 with the two pupils, but got 98"):
        scheme.segments(98)
    with pytest.raises(ValueError, match="but got 5"):
        scheme.mirror_landmarks(np.zeros((5, 2), np.float32))
