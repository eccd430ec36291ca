"""Image grids for figures, such as people beside their landmark images and generated frames."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.landmarks.draw import draw_landmarks


def image_grid(rows: Sequence[Sequence[UInt8[np.ndarray, "H W 3"]]], *, gap: int = 2) -> UInt8[np.ndarray, "Y X 3"]:
    """Arrange images of one size in a grid, with white gaps of `gap` pixels between them.

    Raises:
        ValueError: if there are no images, or rows differ in length or images in size.
    """
    shapes = {image.shape for row in rows for image in row}
    if len(shapes) != 1 or len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"a grid needs rows of equal length and images of one size, got rows of {[len(row) for row in rows]} "
            f"with sizes {sorted(shapes)}"
        )
    height, width, _ = shapes.pop()
    grid = np.full((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            grid[y * (height + gap) : y * (height + gap) + height, x * (width + gap) : x * (width + gap) + width] = (
                image
            )
    return grid


def landmark_images(points: Float[np.ndarray, "B P 2"], *, size: int) -> UInt8[np.ndarray, "B H W 3"]:
    """Draw landmark images as uint8 RGB.

    Args:
        points: landmarks in [0, 1], NaN where unknown.
        size: side of the images in pixels.
    """
    drawn = draw_landmarks(jnp.asarray(points), size=size)
    return np.asarray(jnp.rint(drawn * 255.0).astype(jnp.uint8))
