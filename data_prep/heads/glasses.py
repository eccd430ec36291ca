"""Glasses: two bent rims, a bridge, temples to the ears, and lenses that mirror the room a little."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.identity import Color
from data_prep.heads.person import Person

AROUND, TUBE = 28, 6  # points of a rim, and around its wire
FRAME = 9  # the material of frames, after those of `mesh`


class Glasses(NamedTuple):
    """One pair; lengths in decimeters. `roundness` is the exponent of the rim's superellipse (2 = round)."""

    width: float
    height: float
    roundness: float
    wire: float
    half_rim: bool
    color: Color  # linear
    mirror: float  # share of light that the lenses throw back


class FrameMesh(NamedTuple):
    """Glasses on a neutral head."""

    vertices: Float[np.ndarray, "G 3"]
    normals: Float[np.ndarray, "G 3"]
    triangles: Int[np.ndarray, "T 3"]
    lens: Float[np.ndarray, "K 3"]
    lens_triangles: Int[np.ndarray, "L 3"]


def _tube(path: np.ndarray, radius: np.ndarray, *, closed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, normals and triangles of a wire along a path; triangles face outwards."""
    if closed:
        along = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    else:
        along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    helper = np.where(np.abs(along[:, 2:]) < 0.8, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(along, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(along, side)
    turn = 2 * np.pi * np.arange(TUBE) / TUBE
    normals = np.cos(turn)[None, :, None] * side[:, None] + np.sin(turn)[None, :, None] * other[:, None]
    vertices = path[:, None] + normals * radius[:, None, None]
    rings = len(path)
    grid = np.arange(rings * TUBE).reshape(rings, TUBE)
    following = np.roll(grid, -1, 0) if closed else grid[1:]
    first = grid if closed else grid[:-1]
    a, b, c, d = first, np.roll(first, -1, 1), np.roll(following, -1, 1), following
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return vertices.reshape(-1, 3), normals.reshape(-1, 3), triangles


def _bent(points: np.ndarray, front: float) -> np.ndarray:
    """Points x, y of the front, bent around the face."""
    return np.column_stack([points, front - 0.22 * points[:, 0] ** 2])


def wear(person: Person, glasses: Glasses) -> FrameMesh:
    """Fit glasses to a person's eyes, nose and ears."""
    eyes = person.eye_centers
    landmarks = (person.neutral[person.landmark_vertices] * person.landmark_weights[..., None]).sum(1)
    distance = float(eyes[0, 0] - eyes[1, 0]) / 2
    level = float(eyes[:, 1].mean()) - 0.03
    front = float(max(landmarks[27:29, 2].max(), landmarks[17:27, 2].max())) + 0.05
    turn = 2 * np.pi * np.arange(AROUND) / AROUND
    power = 2 / glasses.roundness
    outline = np.stack(
        [
            glasses.width * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power,
            glasses.height * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power,
        ],
        axis=1,
    )
    thickness = np.full(AROUND, glasses.wire)
    if glasses.half_rim:
        thickness = np.where(np.sin(turn) < -0.2, 0.25 * glasses.wire, glasses.wire)
    parts, lenses, lens_triangles = [], [], []
    for number, side in enumerate((1, -1)):
        rim = outline * [side, 1] + [side * (distance + 0.02), level]
        parts.append(_tube(_bent(rim, front), thickness, closed=True))
        lenses.append(np.concatenate([_bent(rim, front), _bent(rim.mean(0)[None], front)]))
        start = number * (AROUND + 1)
        index = np.arange(AROUND)
        fan = np.stack([np.full(AROUND, AROUND), index, (index + 1) % AROUND], 1)
        lens_triangles.append(fan + start)
        hinge = _bent(np.array([[side * (distance + 0.02 + glasses.width), level + 0.35 * glasses.height]]), front)[0]
        ear = np.array(
            [landmarks[0 if side < 0 else 16, 0] + side * 0.04, hinge[1] + 0.02, landmarks[[0, 16], 2].mean() - 0.1]
        )
        temple = hinge + np.linspace(0, 1, 8)[:, None] * (ear - hinge)
        temple[:, 0] += side * 0.06 * np.sin(np.pi * np.linspace(0, 1, 8))
        parts.append(_tube(temple, np.full(8, 0.8 * glasses.wire), closed=False))
    inner = distance + 0.02 - glasses.width
    x = np.linspace(-inner, inner, 7)
    bridge = np.column_stack([x, level + 0.25 * glasses.height + 0.06 * np.cos(np.pi * x / (2 * inner))])
    parts.append(_tube(_bent(bridge, front), np.full(7, glasses.wire), closed=False))
    starts = np.cumsum([0] + [len(part[0]) for part in parts])
    return FrameMesh(
        np.concatenate([part[0] for part in parts]).astype(np.float32),
        np.concatenate([part[1] for part in parts]).astype(np.float32),
        np.concatenate([part[2] + start for part, start in zip(parts, starts[:-1], strict=True)]),
        np.concatenate(lenses).astype(np.float32),
        np.concatenate(lens_triangles),
    )


def draw_glasses(rng: np.random.Generator) -> Glasses:
    """A pair of glasses."""
    thick = rng.random() < 0.5
    metal = rng.uniform(0.1, 0.45) * np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.4, 1.0)])
    plastic = rng.choice([0.01, 0.015, 0.03]) * np.array([rng.uniform(1.0, 4.0), rng.uniform(1.0, 1.6), 1.0])
    red, green, blue = (round(float(value), 4) for value in (plastic if thick else metal))
    return Glasses(
        width=rng.uniform(0.235, 0.275),
        height=rng.uniform(0.155, 0.225),
        roundness=rng.uniform(2.0, 4.5),
        wire=rng.uniform(0.022, 0.036) if thick else rng.uniform(0.009, 0.014),
        half_rim=bool(rng.random() < 0.2),
        color=(red, green, blue),
        mirror=rng.uniform(0.02, 0.09),
    )
