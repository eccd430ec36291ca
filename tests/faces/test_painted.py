"""Detection and landmarks on faces in painted styles: flat colors, brush strokes, sepia and craquelure.

The styles are computed from a photo and from rendered heads, whose landmarks are known; no real paintings were available.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from portrait import portrait

from data_prep.heads.identity import draw_identity
from data_prep.heads.motion import head_state
from data_prep.heads.render import render_head
from th_jax.faces import detect_faces, most_prominent, settled_landmarks

SIZE = 256


def quantized(image: np.ndarray) -> np.ndarray:
    """Six levels of each color."""
    return (np.round(image / 51.0) * 51).astype(np.uint8)


def brushed(image: np.ndarray) -> np.ndarray:
    """Each pixel takes the median of an oval along a direction that changes over the image."""
    rng = np.random.default_rng(0)
    directions = cv2.resize(rng.uniform(0, np.pi, (8, 8)), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    painted = np.zeros_like(image)
    for turn in np.linspace(0, np.pi, 6, endpoint=False):
        kernel = np.zeros((9, 9), np.float32)
        reach = (4 * np.cos(turn), 4 * np.sin(turn))
        cv2.line(kernel, *(tuple(round(4 + sign * step) for step in reach) for sign in (-1, 1)), 1.0, 2)
        near = np.abs(np.angle(np.exp(2j * (directions - turn)))) < np.pi / 6 + 1e-6
        painted[near] = cv2.filter2D(image, -1, kernel / kernel.sum())[near]
    return cv2.medianBlur(painted, 3)


def sepia(image: np.ndarray) -> np.ndarray:
    """An old photo's brown, with faded contrast."""
    luma = image @ np.array([0.299, 0.587, 0.114])
    return np.clip(30 + 0.75 * luma[..., None] * np.array([1.07, 0.9, 0.68]), 0, 255).astype(np.uint8)


def cracked(image: np.ndarray) -> np.ndarray:
    """Thin dark cracks between the cells around random points."""
    rng = np.random.default_rng(1)
    height, width = image.shape[:2]
    places = rng.uniform(0, 1, (160, 2)) * (width, height)
    y, x = np.mgrid[:height, :width]
    distance = np.sqrt((x[..., None] - places[:, 0]) ** 2 + (y[..., None] - places[:, 1]) ** 2)
    nearest = np.partition(distance, 1, axis=-1)
    crack = np.clip(1.2 - (nearest[..., 1] - nearest[..., 0]), 0, 1)[..., None]
    return (image * (1 - 0.6 * crack)).astype(np.uint8)


STYLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "quantized": quantized,
    "brushed": brushed,
    "sepia": sepia,
    "cracked": cracked,
}


@pytest.fixture(scope="module")
def heads() -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames of three held-out heads, and their landmarks in pixels."""
    made = [render_head(draw_identity(100_000 + n), head_state(yaw=0.15 * (n - 1)), size=SIZE) for n in range(3)]
    return [(one.frame, one.landmarks[:68] * SIZE) for one in made]


def detected(image: np.ndarray) -> np.ndarray:
    faces = detect_faces(image)
    assert faces, "no face was found"
    return settled_landmarks(image, most_prominent(faces)[0].box)


def error(points: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance from the truth, relative to the distance between the outer corners of the eyes."""
    return float(np.linalg.norm(points - truth, axis=-1).mean() / np.linalg.norm(truth[36] - truth[45]))


@pytest.mark.parametrize("style", STYLES)
def test_landmarks_of_painted_heads_are_nearly_those_of_the_plain_ones(
    style: str, heads: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    for frame, truth in heads:
        painted = STYLES[style](frame)
        assert np.abs(painted.astype(int) - frame.astype(int)).mean() > 1  # the style changed something
        plain, found = error(detected(frame), truth), error(detected(painted), truth)
        assert found < plain + 0.03, (plain, found)
        assert found < 0.13


@pytest.mark.parametrize("style", STYLES)
def test_a_painted_photo_is_found(style: str) -> None:
    photo = portrait()
    assert error(detected(STYLES[style](photo)), detected(photo)) < 0.06
