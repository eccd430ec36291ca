"""A real portrait (tests/data/LICENSE.md) and short videos made from it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from th_jax.media import read_image

PORTRAIT = Path(__file__).parent.parent.parent / "th_jax" / "assets" / "portrait" / "astronaut.jpg"


def portrait() -> np.ndarray:
    """256 x 256 px; the face is 88 px wide, its middle near (127, 126)."""
    return read_image(PORTRAIT)


def moved(image: np.ndarray, *, x: float = 0.0, y: float = 0.0, scale: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """The image translated in pixels, scaled and rotated (degrees) about its center."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale) + np.array([[0, 0, x], [0, 0, y]])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def on_canvas(image: np.ndarray, *places: tuple[int, int], height: int = 300, width: int = 600) -> np.ndarray:
    """The image at each position (left, top) of a plain gray canvas."""
    canvas = np.full((height, width, 3), 128, np.uint8)
    for left, top in places:
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def nodding(count: int, *, amplitude: float = 6.0) -> Sequence[np.ndarray]:
    """Frames of a head that sways, smoothly."""
    phases = np.linspace(0, 2 * np.pi, count)
    image = portrait()
    return [moved(image, x=amplitude * np.sin(p), y=amplitude * np.cos(p), turn=5 * np.sin(p)) for p in phases]
