"""The light around a person: soft lamps, sky and floor, and their visibility from each point of the head."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_prep.heads.identity import Color
from data_prep.heads.kernels import kernel
from data_prep.heads.mesh import SKIN, load_mesh
from data_prep.heads.person import Person, normals_of
from data_prep.heads.raster import rasterize
from data_prep.heads.shadow import map_axes, map_center
from data_prep.heads.skin import vertex_mask

DIRECTIONS = 48  # of the sphere that are looked into from each vertex
MAP_SIZE, MAP_REACH = 104, 2.2  # samples, decimeters
STAND_OFF, TOLERANCE = 0.05, 0.03  # decimeters: what a surface may shade of itself
CREEP = (0.24, 0.11, 0.06)  # how far soft light wraps around skin, by color


class Lamp(NamedTuple):
    """A soft source: direction in radians (0, 0 = from the camera), linear color, and how narrow it is.

    Its radiance falls with the angle t from its middle as exp(sharpness * (cos(t) - 1)); a surface that faces it gets
    about its color.
    """

    azimuth: float
    elevation: float
    color: Color
    sharpness: float


class Environment(NamedTuple):
    """The light of a room; the first lamp casts the visible shadow, whose edge is `softness` map samples wide."""

    lamps: tuple[Lamp, ...]
    sky: Color
    floor: Color
    softness: float


def lamp_direction(lamp: Lamp) -> Float[np.ndarray, "3"]:
    """Return the unit vector towards a lamp."""
    flat = math.cos(lamp.elevation)
    return np.array([math.sin(lamp.azimuth) * flat, math.sin(lamp.elevation), math.cos(lamp.azimuth) * flat])


def sphere(count: int) -> Float[np.ndarray, "D 3"]:
    """Return evenly spread unit vectors (a Fibonacci lattice)."""
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (1 + 5**0.5) * np.arange(count)
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), height, flat * np.sin(turn)], axis=1).astype(np.float32)


def radiance(environment: Environment, directions: Float[np.ndarray, "D 3"]) -> Float[np.ndarray, "D 3"]:
    """Compute the linear light from each direction, without the first lamp; 1 everywhere lights a surface with 1."""
    up = (0.5 + 0.5 * directions[:, 1:2]) ** 1.5
    total = np.array(environment.floor) * (1 - up) + np.array(environment.sky) * up
    for lamp in environment.lamps[1:]:
        lobe = np.exp(lamp.sharpness * (directions @ lamp_direction(lamp) - 1))[:, None]
        total = total + lobe * 0.5 * (lamp.sharpness + 1) * np.array(lamp.color)
    return total.astype(np.float32)


@kernel
def _look(points: np.ndarray, shadow: np.ndarray, column: int, visible: np.ndarray) -> None:
    size = shadow.shape[0]
    for v in range(points.shape[0]):
        seen, total = 0.0, 0.0
        for i in range(-1, 2):
            for j in range(-1, 2):
                r, c = int(points[v, 1]) + i, int(points[v, 0]) + j
                if 0 <= r < size and 0 <= c < size:
                    total += 1.0
                    seen += 1.0 if points[v, 2] - TOLERANCE < shadow[r, c] else 0.0
        visible[v, column] = seen / total if total > 0 else 1.0


def sky_visibility(person: Person) -> Float[np.ndarray, "N D"]:
    """Compute the visibility of each of the `DIRECTIONS` from each vertex of the neutral head, 0..1."""
    neutral = person.neutral
    raised = neutral + STAND_OFF * normals_of(neutral, person.smooth_triangles)
    visible = np.ones((len(neutral), DIRECTIONS), np.float32)
    scale = MAP_SIZE / (2 * MAP_REACH)
    for column, direction in enumerate(sphere(DIRECTIONS).astype(np.float64)):
        axes = map_axes(direction) * np.array([[scale], [scale], [-1]], np.float32)
        offset = np.array([MAP_SIZE / 2, MAP_SIZE / 2, 0], np.float32)
        points = (neutral - map_center(person)) @ axes.T + offset
        shadow = rasterize(points, person.smooth_triangles, shape=(MAP_SIZE, MAP_SIZE)).depth
        _look((raised - map_center(person)) @ axes.T + offset, shadow, column, visible)
    mesh = load_mesh()
    # Lids are folded away in the neutral head, and come out when they shut.
    lids = np.zeros(len(neutral), np.float32)
    lids[: len(mesh.vertices)] = np.clip(2 * vertex_mask(mesh, "eyelids"), 0, 1)
    skin = np.zeros(len(neutral), bool)
    skin[np.unique(mesh.triangles[mesh.material == SKIN])] = True
    share = np.where(skin, 0.6 * lids, 0.0)[:, None]
    return (visible + (1 - visible) * share).astype(np.float32)


@kernel
def irradiance(
    normals: Float[np.ndarray, "N 3"], follows_head: Float[np.ndarray, "N 1"], visible: Float[np.ndarray, "N D"],
    directions: Float[np.ndarray, "2 D 3"], light: Float[np.ndarray, "2 D 3"], lit: Float[np.ndarray, "N 4"],
) -> None:  # fmt: skip
    """Compute the light that reaches each vertex, by color, and its visible share of the sky (last).

    `directions` and `light` are those that belong to the columns of `visible` for the still body (0) and for the
    turned head (1).
    """
    count = visible.shape[1]
    for v in range(normals.shape[0]):
        red = green = blue = seen = whole = 0.0
        for part in range(2):
            share = follows_head[v, 0] if part == 1 else 1.0 - follows_head[v, 0]
            if share < 0.01:
                continue
            for d in range(count):
                cosine = (
                    normals[v, 0] * directions[part, d, 0]
                    + normals[v, 1] * directions[part, d, 1]
                    + normals[v, 2] * directions[part, d, 2]
                )
                if cosine <= -CREEP[0]:
                    continue
                weight = share * visible[v, d]
                red += weight * light[part, d, 0] * (cosine + CREEP[0]) / (1.0 + CREEP[0]) ** 2
                green += weight * light[part, d, 1] * max(cosine + CREEP[1], 0.0) / (1.0 + CREEP[1]) ** 2
                blue += weight * light[part, d, 2] * max(cosine + CREEP[2], 0.0) / (1.0 + CREEP[2]) ** 2
                seen += weight * max(cosine, 0.0)
                whole += share * max(cosine, 0.0)
        scale = 4.0 / count
        lit[v, 0], lit[v, 1], lit[v, 2] = scale * red, scale * green, scale * blue
        lit[v, 3] = seen / max(whole, 1e-6)
