"""Faces missed by detection are found on copies with correct points, and images without a face stay without one."""

import cv2
import numpy as np
import pytest
from portrait import on_canvas, portrait

from th_jax.faces import Box, Face, detect_faces, face_size, settled_landmarks
from th_jax.faces import copies as on_copies
from th_jax.faces.copies import COPY_SCORE, DOUBTFUL, face_roll, find_on_copies, second_look, stretch_contrast


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return settled_landmarks(portrait(), detect_faces(portrait())[0].box)


def turned(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The image rotated clockwise on a larger plain canvas, and the matrix of its edge-based coordinates."""
    (height, width), side = image.shape[:2], int(np.hypot(*image.shape[:2]))
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    offset = np.array([side, side]) / 2 - matrix @ (width / 2, height / 2)
    of_centers = offset + matrix @ (0.5, 0.5) - 0.5
    canvas = cv2.warpAffine(
        image, np.column_stack([matrix, of_centers]), (side, side), flags=cv2.INTER_CUBIC, borderValue=(120, 120, 120)
    )
    return canvas, np.column_stack([matrix, offset])


def faint(image: np.ndarray, contrast: float) -> np.ndarray:
    """Gray stone: little contrast, no color."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.repeat((grey * contrast + 120).astype(np.uint8)[..., None], 3, axis=-1)


def clouds(seed: int, roughness: float) -> np.ndarray:
    """Random structure at all scales, as in bark, stone and foliage."""
    generator = np.random.default_rng(seed)
    total = np.zeros((240, 300, 3), np.float32)
    for size in (1, 2, 4, 8, 16, 32, 64):
        layer = generator.normal(size=(240 // size + 2, 300 // size + 2, 3)).astype(np.float32)
        total += size**roughness * cv2.resize(layer, (300, 240), interpolation=cv2.INTER_CUBIC)
    return (255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)


@pytest.mark.parametrize("degrees", [67, 180])
def test_rotated_faces_are_mapped_back(landmarks: np.ndarray, degrees: float) -> None:
    image, matrix = turned(portrait(), degrees)
    assert detect_faces(image) == []
    found = find_on_copies(image)
    assert found is not None
    expected = landmarks @ matrix[:, :2].T + matrix[:, 2]
    # Of a face of 88 px, as exact as two looks at one image.
    assert np.linalg.norm(found.landmarks - expected, axis=-1).mean() < 1.0
    np.testing.assert_allclose((found.landmarks - expected).mean(0), 0, atol=0.4)
    assert (found.roll - degrees - face_roll(landmarks) + 180) % 360 - 180 == pytest.approx(0, abs=1.5)
    assert found.copy.startswith("turned by ")
    assert found.score > 0.5
    assert found.rivals == 0


def test_small_faces_in_large_images(landmarks: np.ndarray) -> None:
    small = cv2.resize(portrait(), (80, 80), interpolation=cv2.INTER_AREA)
    image = on_canvas(small, (400, 300), width=600, height=450)
    assert detect_faces(image) == []
    found = find_on_copies(image)
    assert found is not None
    assert found.copy == "enlarged 3.5 times"
    assert np.linalg.norm(found.landmarks - (landmarks * 80 / 256 + (400, 300)), axis=-1).mean() < 0.5
    two = find_on_copies(on_canvas(small, (400, 300), (100, 80), width=600, height=450))
    assert two is not None
    assert two.rivals == 1


def test_faint_faces(landmarks: np.ndarray) -> None:
    image = faint(portrait(), 0.04)
    assert detect_faces(image) == []
    found = find_on_copies(image)
    assert found is not None
    assert found.copy == "contrast-stretched"
    assert np.linalg.norm(found.landmarks - landmarks, axis=-1).mean() < 0.03 * face_size(landmarks)


def test_the_last_kind_is_both_faint_and_turned() -> None:
    found = find_on_copies(np.ascontiguousarray(np.rot90(faint(portrait(), 0.05))))
    assert found is not None
    assert found.copy == "contrast-stretched and turned by -90°"
    assert found.roll == pytest.approx(-87, abs=3)


def test_an_inverted_face_passes_no_second_look() -> None:
    (face,) = detect_faces(portrait())
    assert second_look(portrait(), face) > DOUBTFUL
    assert second_look(clouds(0, 0.5), face) == -1.0
    upside_down = np.ascontiguousarray(portrait()[::-1, ::-1])
    left, top, right, bottom = face.box
    assert second_look(upside_down, Face(Box(256 - right, 256 - bottom, 256 - left, 256 - top), 0.2)) < COPY_SCORE


def test_images_without_a_face() -> None:
    ground, sky = clouds(7, 0.5), cv2.GaussianBlur(clouds(8, 1.2), (0, 0), 5) // 2 + 120
    landscape = np.where((np.arange(240) < 130)[:, None, None], sky, ground // 2)
    for image in (landscape, np.zeros((1, 1, 3)), np.zeros((2, 90, 3))):
        assert find_on_copies(image.astype(np.uint8)) is None


@pytest.mark.slow
def test_many_images_without_a_face() -> None:
    for seed in range(24):
        assert find_on_copies(clouds(seed, 0.4 + seed / 20)) is None, seed


def test_an_image_without_a_face_costs_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def remember(frame: np.ndarray, *, min_score: float) -> list[Face]:
        sides.append(max(frame.shape[:2]))
        return []

    monkeypatch.setattr(on_copies, "detect_faces", remember)
    assert find_on_copies(np.zeros((1500, 2000, 3), np.uint8)) is None
    assert len(sides) == 1 + 13 + 11 + 13 + 11
    assert sorted(sides)[-26] <= 1280  # the others are turned, and reduced by detection itself
    sides.clear()
    assert find_on_copies(np.zeros((200, 256, 3), np.uint8)) is None
    assert len(sides) == 1 + 11 + 11  # detection itself enlarges small images


def test_stretching_keeps_colors_and_spreads_lightness() -> None:
    stretched = stretch_contrast(portrait() // 8 + 100)
    assert stretched.std() > 2 * (portrait() // 8).std()
    coloured = np.zeros((64, 64, 3), np.uint8) + np.array([180, 60, 60], np.uint8)
    assert (stretch_contrast(coloured)[..., 0] > stretch_contrast(coloured)[..., 1] + 60).all()


def test_roll(landmarks: np.ndarray) -> None:
    upright = face_roll(landmarks)
    assert abs(upright) < 8
    for degrees in (30.0, 100.0, -150.0):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        clockwise = (landmarks @ np.array([[cosine, sine], [-sine, cosine]])).astype(np.float32)
        assert face_roll(clockwise) == pytest.approx(upright + degrees, abs=0.01)
