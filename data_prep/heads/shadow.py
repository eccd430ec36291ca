"""Shadow maps: how far each ray of a light gets before it meets the person."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_prep.heads.person import Person
from data_prep.heads.raster import rasterize

SHADOW_SIZE, SHADOW_REACH = 144, 2.2  # samples, decimeters


class ShadowMap(NamedTuple):
    """Depths along a light's direction; a point p falls on the map as `shading.Lighting` says."""

    depth: Float[np.ndarray, "M M"]
    axes: Float[np.ndarray, "3 3"]
    center: Float[np.ndarray, "3"]
    scale: float


def map_axes(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Right, up and towards the light: the axes of a shadow map."""
    right = np.cross([0.0, 1.0, 0.0], direction)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(direction, right), direction]).astype(np.float32)


def map_center(person: Person) -> Float[np.ndarray, "3"]:
    """The point in the middle of shadow maps, inside the head."""
    return person.eye_centers.mean(0) + np.array([0, -0.4, -0.8], np.float32)


def shadow_map(person: Person, vertices: Float[np.ndarray, "N 3"], direction: Float[np.ndarray, "3"]) -> ShadowMap:
    """What a light from `direction` (a unit vector) reaches of the posed person."""
    axes, center = map_axes(direction), map_center(person)
    scale = SHADOW_SIZE / (2 * SHADOW_REACH)
    points = (vertices - center) @ axes.T
    points[:, :2] = points[:, :2] * scale + SHADOW_SIZE / 2
    points[:, 2] *= -1
    samples = rasterize(points, person.smooth_triangles, shape=(SHADOW_SIZE, SHADOW_SIZE))
    return ShadowMap(samples.depth, axes, center, scale)
