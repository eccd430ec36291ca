"""Preparation of a photographed person, done once for all frames: hair, skin in linear light, glasses, shadows."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.heads.backdrop import linear
from data_prep.heads.environment import DIRECTIONS, sky_visibility
from data_prep.heads.glasses import FRAME, FrameMesh, wear
from data_prep.heads.hair import Layer, join, raise_scalp
from data_prep.heads.identity import Beard, Identity
from data_prep.heads.kernels import kernel, noise, rough, smoothstep
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import GAZE_LIMITS, Motion
from data_prep.heads.person import Person, normals_of, prepare
from data_prep.heads.photo import Photo, SkinDetail, draw_photo
from data_prep.heads.photo_identity import draw_photo_identity, is_male
from data_prep.heads.skin import TextureSpace, beard_cover, paint_skin, texture_space

RINGS = 5

# Length in decimeters, and how far hairs stand off (0 = flat, 1 = straight out), by style.
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
    """A layer, and how far each of its points lies from the vertex it rides on (decimeters, in the still head)."""

    layer: Layer
    offset: Float[np.ndarray, "N 3"]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def loose_hairs(person: Person, identity: Identity, *, count: int) -> Strands | None:
    """Build loose locks of hair; None for bald people."""
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
    tone = np.exp(rng.normal(0.03, 0.3, (count, 1, 1))) * np.array(hair.color)
    each = (count, RINGS, 2)
    solid = 0.85 * (1 - share[..., 0] ** 1.5) * np.minimum(0.35 + 3 * share[..., 0], 1)
    layer = Layer(
        source=np.broadcast_to(root[:, None, None], each).reshape(-1),
        lift=np.zeros(len(points), np.float32),
        color=np.broadcast_to(tone[:, :, None], (*each, 3)).reshape(-1, 3).clip(0, 1).astype(np.float32),
        opacity=np.broadcast_to(solid[..., None], each).reshape(-1).astype(np.float32),
        strand=np.zeros((len(points), 2), np.float32),
        fray=np.zeros(len(points), np.float32),
        triangles=triangles,
    )
    return Strands(layer, points.astype(np.float32))


LOCKS = 1000  # loose locks of hair
SEEN_BY_FRAMES = 0.8  # share of the sky that glasses see


class Sitter(NamedTuple):
    """A person ready to be photographed."""

    person: Person  # the vertices of glasses come last
    photo: Photo
    visible: Float[np.ndarray, "N D"]
    layer: Layer  # the person's, with loose hairs
    offset: Float[np.ndarray, "M 3"]  # of the layer's points from where they ride, in the still head
    frame: FrameMesh | None
    material: UInt8[np.ndarray, " F"]
    corner_uv: Float[np.ndarray, "F 3 2"]


@kernel
def _add_detail(
    space: TextureSpace, detail: SkinDetail, beard: Beard, seed: int, texture: Float[np.ndarray, "H W 4"]
) -> None:
    for i in range(texture.shape[0]):
        for j in range(texture.shape[1]):
            if not space.used[i, j]:
                continue
            x, y, z = space.rest[i, j, 0], space.rest[i, j, 1], space.rest[i, j, 2]
            blotch = detail.blotches * (rough(3 * x, 3 * y, 3 * z, seed) + 0.6 * rough(8 * x, 8 * y, 8 * z, seed + 1))
            pore = rough(55 * x, 55 * y, 55 * z, seed + 2)
            tone = 1.0 + 0.16 * detail.pores * pore + 0.10 * blotch
            mole = smoothstep(0.93, 0.97, noise(7 * x, 7 * y, 7 * z, seed + 3)) * detail.moles
            mole *= smoothstep(0.4, 0.8, z) * smoothstep(7.8, 7.6, y)
            tone *= 1.0 - 0.5 * mole
            lips = space.lips[i, j]
            texture[i, j, 0] *= tone * (1.0 + 0.14 * lips)
            texture[i, j, 1] *= tone * (1.0 - 0.16 * blotch) * (1.0 - 0.12 * lips)
            texture[i, j, 2] *= tone * (1.0 - 0.13 * blotch) * (1.0 - 0.08 * lips)
            hairs = rough(70 * x, 30 * y, 70 * z, seed + 6)
            grown = beard_cover(x, y, z, beard) * (1 - lips) * max(1 - 3 * space.ears[i, j], 0.0)
            grown = grown * smoothstep(0.02, 0.75, grown + 0.35 * hairs * (1.0 - grown)) * (0.8 + 0.7 * hairs)
            for k in range(3):
                texture[i, j, k] += (beard.color[k] - texture[i, j, k]) * min(max(grown, 0.0), 0.92)
            shine = 1.0 + 1.2 * rough(40 * x, 40 * y, 40 * z, seed + 4) + 0.8 * rough(5 * x, 5 * y, 5 * z, seed + 5)
            painted = texture[i, j, 3] - 0.40 * lips
            texture[i, j, 3] = (0.35 + 2.2 * painted * (0.4 + detail.oil)) * max(shine, 0.1) * (1.0 - 0.6 * grown)


@lru_cache(maxsize=4)
def photo_skin(identity: Identity, detail: SkinDetail, *, half: bool) -> Float[np.ndarray, "H W 4"]:
    """Paint the skin in linear light, with pores and blotches; the last channel is a factor of gloss."""
    beard = identity.beard
    texture = paint_skin(identity._replace(beard=beard._replace(jaw=0.0, chin=0.0, moustache=0.0)), half=half).copy()
    texture[..., :3] = linear(texture[..., :3])
    red, green, blue = (float(value) for value in linear(np.array(beard.color)))
    beard = beard._replace(color=(red, green, blue))
    _add_detail(texture_space(half=half), detail, beard, identity.seed % 1000, texture)
    return texture


@lru_cache(maxsize=2)
def sitter(seed: int, *, allow_reserved: bool = False) -> Sitter:
    """Prepare the person of a seed; cached for the last few.

    Raises:
        ValueError: for a negative or reserved seed.
    """
    identity = draw_photo_identity(seed, allow_reserved=allow_reserved)
    photo = draw_photo(identity, male=is_male(seed))
    person = prepare(identity)._replace(middle=photo.middle)
    visible = sky_visibility(person)
    layer, offset = person.layer, np.zeros((len(person.layer.source), 3), np.float32)
    loose = loose_hairs(person, identity, count=LOCKS)
    if loose is not None:
        layer = join([layer, loose.layer])
        offset = np.concatenate([offset, loose.offset])
    mesh, frame = load_mesh(), None
    material, corner_uv = mesh.material, mesh.corner_uv
    if photo.glasses is not None:
        frame = wear(person, photo.glasses)
        count = len(frame.vertices)
        material = np.concatenate([material, np.full(len(frame.triangles), FRAME, np.uint8)])
        corner_uv = np.concatenate([corner_uv, np.zeros((len(frame.triangles), 3, 2), np.float32)])
        visible = np.concatenate([visible, np.full((count, DIRECTIONS), SEEN_BY_FRAMES, np.float32)])
        person = person._replace(
            neutral=np.concatenate([person.neutral, frame.vertices]),
            rest=np.concatenate([person.rest, frame.vertices]),
            follows_head=np.concatenate([person.follows_head, np.ones((count, 1), np.float32)]),
            triangles=np.concatenate([person.triangles, frame.triangles + len(person.neutral)]),
        )
    return Sitter(person, photo, visible, layer, offset, frame, material, corner_uv)


def turned_further(motion: Motion, factor: float) -> Motion:
    """Scale all turns of the head, with the gaze still on the viewer."""
    angles = motion.angles.copy()
    angles[:, :3] *= np.array([factor, 1 + 0.4 * (factor - 1), 1 + 0.4 * (factor - 1)])
    gaze = angles[:, 3:] - 0.75 * (angles[:, :2] - motion.angles[:, :2])
    angles[:, 3:] = np.clip(gaze, -GAZE_LIMITS, GAZE_LIMITS)
    return motion._replace(angles=angles)
