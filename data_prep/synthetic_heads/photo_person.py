"""All work on a photographed person that no frame needs to repeat: hair, skin in linear light, glasses, shadows."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.synthetic_heads.backdrop import linear
from data_prep.synthetic_heads.compiled import kernel
from data_prep.synthetic_heads.environment import DIRECTIONS, sky_visibility
from data_prep.synthetic_heads.glasses import FRAME, FrameMesh, wear
from data_prep.synthetic_heads.hair import Layer, join
from data_prep.synthetic_heads.identity import Beard, Identity
from data_prep.synthetic_heads.mesh import load_mesh
from data_prep.synthetic_heads.motion import WIDEST_GAZE, Motion
from data_prep.synthetic_heads.noise import noise, rough, smoothstep
from data_prep.synthetic_heads.person import Person, prepare
from data_prep.synthetic_heads.photo import Photo, SkinDetail, draw_photo
from data_prep.synthetic_heads.photo_identity import draw_photo_identity, is_male
from data_prep.synthetic_heads.skin import TextureSpace, beard_cover, paint_skin, texture_space
from data_prep.synthetic_heads.strands import loose_hairs

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
                texture[i, j, k] += (beard.colour[k] - texture[i, j, k]) * min(max(grown, 0.0), 0.92)
            shine = 1.0 + 1.2 * rough(40 * x, 40 * y, 40 * z, seed + 4) + 0.8 * rough(5 * x, 5 * y, 5 * z, seed + 5)
            painted = texture[i, j, 3] - 0.40 * lips
            texture[i, j, 3] = (0.35 + 2.2 * painted * (0.4 + detail.oil)) * max(shine, 0.1) * (1.0 - 0.6 * grown)


@lru_cache(maxsize=4)
def photo_skin(identity: Identity, detail: SkinDetail, *, half: bool) -> Float[np.ndarray, "H W 4"]:
    """The painted skin in linear light, with pores and blotches; the last channel is a factor of gloss."""
    beard = identity.beard
    texture = paint_skin(identity._replace(beard=beard._replace(jaw=0.0, chin=0.0, moustache=0.0)), half=half).copy()
    texture[..., :3] = linear(texture[..., :3])
    red, green, blue = (float(value) for value in linear(np.array(beard.colour)))
    beard = beard._replace(colour=(red, green, blue))
    _add_detail(texture_space(half=half), detail, beard, identity.seed % 1000, texture)
    return texture


@lru_cache(maxsize=2)
def sitter(seed: int, *, allow_reserved: bool = False) -> Sitter:
    """The person of a seed; kept for the last few.

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
    """The motion with all turns of the head multiplied, and the gaze still held on the viewer."""
    angles = motion.angles.copy()
    angles[:, :3] *= np.array([factor, 1 + 0.4 * (factor - 1), 1 + 0.4 * (factor - 1)])
    gaze = angles[:, 3:] - 0.75 * (angles[:, :2] - motion.angles[:, :2])
    angles[:, 3:] = np.clip(gaze, [-WIDEST_GAZE, -0.6 * WIDEST_GAZE], [WIDEST_GAZE, 0.6 * WIDEST_GAZE])
    return motion._replace(angles=angles)
