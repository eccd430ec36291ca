"""Loose hairs: locks that break the outline of the head and the line where hair begins."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data_prep.synthetic_heads.hair import Layer, raise_scalp
from data_prep.synthetic_heads.identity import Identity
from data_prep.synthetic_heads.mesh import load_mesh
from data_prep.synthetic_heads.person import Person, normals_of

RINGS = 5
# Length in decimetres, and how far hairs stand off (0 = flat, 1 = straight out), by style.
REACH = {
    "buzz": (0.05, 0.5),
    "short": (0.16, 0.22),
    "quiff": (0.22, 0.30),
    "afro": (0.16, 0.85),
    "tied": (0.16, 0.10),
    "bob": (0.40, 0.035),
    "long": (0.50, 0.035),
}


class Strands(NamedTuple):
    """A layer, and how far each of its points lies from the vertex it rides on (decimetres, in the still head)."""

    layer: Layer
    offset: Float[np.ndarray, "N 3"]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def loose_hairs(person: Person, identity: Identity, *, count: int) -> Strands | None:
    """Locks on a person's hair; None for the bald.

    Args:
        person: the prepared person.
        identity: whose hair.
        count: how many locks.
    """
    hair = identity.hair
    if hair.style == "bald":
        return None
    rng = np.random.default_rng([identity.seed, 9])
    mesh = load_mesh()
    vertices = len(mesh.vertices)
    depth = np.full(len(person.neutral), 0.2, np.float32)
    depth[:vertices] = raise_scalp(mesh, identity).depth
    odds = np.where(depth > 0.0, 1.0, 0.0) + 2.5 * np.exp(-(((depth - 0.03) / 0.05) ** 2)) * (depth > -0.02)
    if hair.length > 0:
        edge = np.zeros(len(depth))
        edge[vertices:] = 1.0
        # Locks that hang from above the forehead would cross the face.
        edge[(person.neutral[:, 2] > 0.6) & (np.abs(person.neutral[:, 0]) < 0.55)] = 0.0
        odds = edge
    root = rng.choice(len(depth), size=count, p=odds / odds.sum())
    normals = normals_of(person.neutral, person.smooth_triangles)[root]
    place = person.neutral[root]
    length, stand = REACH[hair.style]
    top = np.clip((place[:, 1] - 7.7) / 0.4, 0, 1)[:, None]
    side = np.sign(place[:, 0] - hair.parting)[:, None]
    comb = (1 - top) * [0.0, -1.0, -0.35] + top * (side * [0.55, 0.0, 0.0] + [0.0, 0.25, -0.8])
    if hair.length > 0:
        comb = np.array([0.0, -1.0, 0.0]) + 0.5 * top * side * [1.0, 0.0, 0.0]
    elif hair.style == "short":
        comb = comb + top * [0.0, 0.0, 1.3 * (rng.random() < 0.5)]
    comb = comb + rng.normal(0, 0.15 if hair.length > 0 else 0.35, comb.shape)
    flat = _unit(comb - (comb * normals).sum(1, keepdims=True) * normals)
    grown = length * rng.uniform(0.5, 1.3, (count, 1, 1))
    share = np.linspace(0, 1, RINGS)[None, :, None]
    bend = rng.normal(0, 0.10 if hair.length > 0 else 0.22, (count, 1, 3))
    out = stand * rng.uniform(0.2, 1.8, (count, 1, 1))
    if hair.length > 0:  # a few hairs fly
        out = np.where(rng.random((count, 1, 1)) < 0.06, 3 * out, out)
    line = grown * (
        share * flat[:, None] * (1 - 0.5 * out.clip(0, 1)) + out * share * (1.4 - 0.6 * share) * normals[:, None]
    )
    line = line + grown * bend * share**2
    curl = 0.03 * hair.curl * np.sin(8 * share + rng.uniform(0, 6, (count, 1, 1)))
    line = line + curl * _unit(np.cross(flat, normals))[:, None] * np.minimum(3 * share, 1)
    jitter = rng.normal(0, 0.03, (count, 1, 3))
    line = (
        line + jitter - (jitter * normals[:, None]).sum(-1, keepdims=True) * normals[:, None] - 0.01 * normals[:, None]
    )
    across = _unit(np.cross(flat, [0.0, 0.15, 1.0]))[:, None] * (
        rng.uniform(0.006, 0.022, (count, 1, 1)) * (1 - 0.7 * share)
    )
    points = np.stack([line - across, line + across], axis=2).reshape(-1, 3)
    grid = np.arange(count * RINGS * 2).reshape(count, RINGS, 2)
    a, b, c, d = grid[:, :-1, 0], grid[:, :-1, 1], grid[:, 1:, 1], grid[:, 1:, 0]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    tone = np.exp(rng.normal(0.03, 0.3, (count, 1, 1))) * np.array(hair.colour)
    each = (count, RINGS, 2)
    solid = 0.85 * (1 - share[..., 0] ** 1.5) * np.minimum(0.35 + 3 * share[..., 0], 1)
    layer = Layer(
        source=np.broadcast_to(root[:, None, None], each).reshape(-1),
        lift=np.zeros(len(points), np.float32),
        colour=np.broadcast_to(tone[:, :, None], (*each, 3)).reshape(-1, 3).clip(0, 1).astype(np.float32),
        opacity=np.broadcast_to(solid[..., None], each).reshape(-1).astype(np.float32),
        strand=np.zeros((len(points), 2), np.float32),
        fray=np.zeros(len(points), np.float32),
        triangles=triangles,
    )
    return Strands(layer, points.astype(np.float32))
