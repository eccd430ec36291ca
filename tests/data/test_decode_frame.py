"""Frames are decoded unchanged, mirrored together with their landmarks, and their colors change as stated."""

import cv2
import numpy as np
import pytest

from th_jax.data.episodes import Augmentation, decode_frame, jitter_matrix
from th_jax.landmarks.scheme import mirror_landmarks

SIZE = 256
PLAIN = Augmentation(mirrored=False, color_matrix=None)

PARTNERS = [
    *((i, 16 - i) for i in range(8)),  # jaw
    *((17 + i, 26 - i) for i in range(5)),  # brows
    *((31, 35), (32, 34)),  # nostrils
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),  # eyes
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58)),  # outer lips
    *((60, 64), (61, 63), (65, 67)),  # inner lips
    (68, 69),  # pupils
]
"""Points that swap when mirrored, from the iBUG scheme."""


def dotted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame with a disc of a distinct color for each of 70 landmarks, at asymmetric positions."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(11 * 11)[:70]
    landmarks = (np.stack([cells % 11, cells // 11], -1) + 0.5 + rng.uniform(-0.15, 0.15, (70, 2))) / 11
    colors = rng.integers(60, 256, (70, 3)).astype(np.uint8)
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    for point, color in zip(landmarks, colors, strict=True):
        centre = point * SIZE - 0.5  # OpenCV counts from the middle of the first pixel
        cv2.circle(frame, tuple(int(c) for c in np.round(centre)), 6, color.tolist(), -1)
    return frame, landmarks.astype(np.float32), colors


def colors_at(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    return np.stack([frame[int(y * len(frame)), int(x * len(frame))] for x, y in landmarks]).astype(int)


def test_decoding_gives_rgb(make_jpeg):
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[..., 0] = 200
    np.testing.assert_allclose(decode_frame(make_jpeg(frame), size=32).mean((0, 1)), [200, 0, 0], atol=3)


def test_resizing_is_by_area_and_leaves_landmarks_in_place(make_jpeg):
    frame, landmarks, colors = dotted(0)
    jpeg = make_jpeg(frame, quality=100)
    small = decode_frame(jpeg, size=SIZE // 2)
    means = decode_frame(jpeg, size=SIZE).reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(small, means, atol=0.76)
    np.testing.assert_allclose(colors_at(small, landmarks), colors, atol=40)


def test_mirrored_landmarks_agree_with_the_mirrored_image(make_jpeg):
    frame, landmarks, colors = dotted(1)
    jpeg = make_jpeg(frame, quality=100)
    np.testing.assert_allclose(colors_at(decode_frame(jpeg, size=SIZE), landmarks), colors, atol=40)
    mirrored = decode_frame(jpeg, size=SIZE, augmentation=PLAIN._replace(mirrored=True))
    np.testing.assert_array_equal(mirrored, decode_frame(jpeg, size=SIZE)[:, ::-1])
    # The landmarks change places too: point i is drawn where its partner's disc has gone.
    partners = np.arange(70)
    for one, other in PARTNERS:
        partners[[one, other]] = other, one
    np.testing.assert_allclose(colors_at(mirrored, mirror_landmarks(landmarks)), colors[partners], atol=40)
    assert np.abs(colors_at(mirrored, landmarks) - colors).mean() > 60, "the image has no symmetry of its own"


def test_jitter_of_ones_changes_nothing(make_jpeg):
    jpeg = make_jpeg(dotted(2)[0])
    matrix = jitter_matrix(brightness=1.0, contrast=1.0, saturation=1.0)
    plain = decode_frame(jpeg, size=SIZE)
    np.testing.assert_array_equal(
        decode_frame(jpeg, size=SIZE, augmentation=PLAIN._replace(color_matrix=matrix)), plain
    )


@pytest.mark.parametrize(
    ("factors", "before", "after"),
    [
        ({"brightness": 1.5}, [100, 50, 20], [150, 75, 30]),
        ({"brightness": 2.0}, [200, 50, 20], [255, 100, 40]),
        ({"contrast": 0.5}, [127.5, 27.5, 227.5], [127.5, 77.5, 177.5]),
        ({"saturation": 0.0}, [100, 100, 100], [100, 100, 100]),
        ({"saturation": 0.0}, [200, 100, 50], [124.2, 124.2, 124.2]),
        ({"saturation": 0.5}, [200, 100, 50], [162.1, 112.1, 87.1]),
    ],
)
def test_jitter_matches_its_description(factors, before, after):
    matrix = jitter_matrix(**({"brightness": 1.0, "contrast": 1.0, "saturation": 1.0} | factors))
    result = np.clip(matrix @ np.array([*before, 1]), 0, 255)
    np.testing.assert_allclose(result, after, atol=1e-3)


def test_frames_that_cannot_be_used_are_named(make_jpeg):
    with pytest.raises(ValueError, match="7 bytes are not a JPEG"):
        decode_frame(b"nothing", size=8)
    with pytest.raises(ValueError, match="0 bytes are not a JPEG"):
        decode_frame(b"", size=8)
    with pytest.raises(ValueError, match="8 px, got 16 x 12"):
        decode_frame(make_jpeg(np.zeros((12, 16, 3), np.uint8)), size=8)
    with pytest.raises(ValueError, match="32 px, got 16 x 16"):
        decode_frame(make_jpeg(np.zeros((16, 16, 3), np.uint8)), size=32)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (0.1, -0.05)), (1.2, (0.0, 0.0)), (0.8, (-0.06, 0.08))])
def test_moved_landmarks_agree_with_the_moved_image(make_jpeg, scale, shift):
    frame, landmarks, colors = dotted(3)
    augmentation = PLAIN._replace(scale=scale, shift=shift)
    moved = decode_frame(make_jpeg(frame, quality=100), size=SIZE, augmentation=augmentation)
    points = augmentation.move(landmarks)
    inside = ((points > 0.03) & (points < 0.97)).all(-1)
    assert inside.sum() > 40
    np.testing.assert_allclose(colors_at(moved, points[inside]), colors[inside], atol=40)
    # An area of known size keeps its place to a tenth of a pixel: the centroid of a bright square.
    square = np.zeros((SIZE, SIZE, 3), np.uint8)
    square[100:120, 60:80] = 255
    lit = decode_frame(make_jpeg(square, quality=100), size=SIZE, augmentation=augmentation)[..., 0].astype(float)
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    centroid = np.array([(lit * x).sum(), (lit * y).sum()]) / lit.sum() / SIZE
    wanted = augmentation.move(np.array([[70.0, 110.0]], np.float32) / SIZE)[0]
    np.testing.assert_allclose(centroid, wanted, atol=0.1 / SIZE)
    np.testing.assert_allclose(lit.sum() / 255, 400 * scale**2, rtol=0.02)
