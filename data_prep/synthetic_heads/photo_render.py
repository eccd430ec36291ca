"""Photographs one moment of one rendered person: a frame and its true landmarks."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from data_prep.synthetic_heads.backdrop import draw_backdrop, linear
from data_prep.synthetic_heads.camera import photograph
from data_prep.synthetic_heads.compiled import kernel
from data_prep.synthetic_heads.environment import (
    DIRECTIONS,
    Environment,
    irradiance,
    lamp_direction,
    map_axes,
    map_centre,
    radiance,
    sky_visibility,
    sphere,
)
from data_prep.synthetic_heads.identity import Identity
from data_prep.synthetic_heads.mesh import load_mesh
from data_prep.synthetic_heads.motion import WIDEST_GAZE, Motion
from data_prep.synthetic_heads.noise import noise, rough, smoothstep
from data_prep.synthetic_heads.person import Person, normals_of, prepare
from data_prep.synthetic_heads.photo import Photo, SkinDetail, draw_photo
from data_prep.synthetic_heads.photo_identity import draw_photo_identity, is_male
from data_prep.synthetic_heads.photo_shading import Lamps, light_hair, shade_photo
from data_prep.synthetic_heads.raster import box_blur, clear, rasterize
from data_prep.synthetic_heads.render import (
    SHADOW_REACH,
    SHADOW_SIZE,
    Rendering,
    check_size,
    in_sight,
    pose,
    project,
    true_landmarks,
)
from data_prep.synthetic_heads.shading import Surface, blend_layers
from data_prep.synthetic_heads.skin import TextureSpace, paint_skin, texture_space
from data_prep.synthetic_heads.state import HeadState, rotation


class Sitter(NamedTuple):
    """A person ready to be photographed."""

    person: Person
    photo: Photo
    visible: Float[np.ndarray, "N D"]


@kernel
def _add_detail(space: TextureSpace, detail: SkinDetail, seed: int, texture: Float[np.ndarray, "H W 4"]) -> None:
    for i in range(texture.shape[0]):
        for j in range(texture.shape[1]):
            if not space.used[i, j]:
                continue
            x, y, z = space.rest[i, j, 0], space.rest[i, j, 1], space.rest[i, j, 2]
            blotch = detail.blotches * (rough(3 * x, 3 * y, 3 * z, seed) + 0.6 * rough(8 * x, 8 * y, 8 * z, seed + 1))
            pore = rough(55 * x, 55 * y, 55 * z, seed + 2)
            tone = 1.0 + 0.16 * detail.pores * pore + 0.10 * blotch
            mole = smoothstep(0.93, 0.97, noise(7 * x, 7 * y, 7 * z, seed + 3)) * detail.moles
            tone *= 1.0 - 0.5 * mole
            texture[i, j, 0] *= tone
            texture[i, j, 1] *= tone * (1.0 - 0.16 * blotch)
            texture[i, j, 2] *= tone * (1.0 - 0.13 * blotch)
            shine = 1.0 + 1.2 * rough(40 * x, 40 * y, 40 * z, seed + 4) + 0.8 * rough(5 * x, 5 * y, 5 * z, seed + 5)
            texture[i, j, 3] = (0.35 + 2.2 * texture[i, j, 3] * (0.4 + detail.oil)) * max(shine, 0.1)


@lru_cache(maxsize=4)
def _skin(identity: Identity, detail: SkinDetail, *, half: bool) -> Float[np.ndarray, "H W 4"]:
    """The painted skin in linear light, with pores and blotches; the last channel is a factor of gloss."""
    texture = paint_skin(identity, half=half).copy()
    texture[..., :3] = linear(texture[..., :3])
    _add_detail(texture_space(half=half), detail, identity.seed % 1000, texture)
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
    return Sitter(person, photo, sky_visibility(person))


def turned_further(motion: Motion, factor: float) -> Motion:
    """The motion with all turns of the head multiplied, and the gaze still held on the viewer."""
    angles = motion.angles.copy()
    angles[:, :3] *= np.array([factor, 1 + 0.4 * (factor - 1), 1 + 0.4 * (factor - 1)])
    gaze = angles[:, 3:] - 0.75 * (angles[:, :2] - motion.angles[:, :2])
    angles[:, 3:] = np.clip(gaze, [-WIDEST_GAZE, -0.6 * WIDEST_GAZE], [WIDEST_GAZE, 0.6 * WIDEST_GAZE])
    return motion._replace(angles=angles)


def _lamps(environment: Environment, person: Person, vertices: np.ndarray, front: np.ndarray) -> Lamps:
    directions = np.stack([lamp_direction(lamp) for lamp in environment.lamps]).astype(np.float32)
    axes, centre = map_axes(directions[0].astype(np.float64)), map_centre(person)
    scale = SHADOW_SIZE / (2 * SHADOW_REACH)
    points = (vertices - centre) @ axes.T
    points[:, :2] = points[:, :2] * scale + SHADOW_SIZE / 2
    points[:, 2] *= -1
    shadow = np.empty((SHADOW_SIZE, SHADOW_SIZE), np.float32)
    triangle = np.empty(shadow.shape, np.int32)
    clear(shadow, triangle)
    rasterize(points, person.smooth_triangles, False, shadow, triangle, np.empty((*shadow.shape, 2), np.float32))
    return Lamps(
        directions,
        np.array([lamp.colour for lamp in environment.lamps], np.float32),
        np.array([lamp.sharpness for lamp in environment.lamps], np.float32),
        front, shadow, axes, centre, scale, environment.softness,
    )  # fmt: skip


def render_photo(
    who: Sitter, state: HeadState, *, size: int, moment: int = 0, turning: tuple[float, float] = (0.0, 0.0)
) -> Rendering:
    """Photograph one person at one moment.

    Args:
        who: `sitter`.
        state: expression, pose and gaze.
        size: width and height of the frame in pixels.
        moment: number of the frame, from which its noise is drawn.
        turning: how fast the head turns, yaw and pitch, radians a second.

    Raises:
        ValueError: if the size is outside 16..1024.
    """
    check_size(size)
    person, photo = who.person, who.photo
    identity = person.identity
    factor = 3 if size <= 160 else 2
    side = size * factor
    vertices = pose(person, state)
    normals = normals_of(vertices, person.smooth_triangles)
    points = project(person, vertices)
    points[:, :2] *= side
    depth, triangle = np.empty((side, side), np.float32), np.empty((side, side), np.int32)
    weights = np.empty((side, side, 2), np.float32)
    clear(depth, triangle)
    rasterize(points, person.triangles, True, depth, triangle, weights)
    soft_depth = np.minimum(depth, np.float32(person.camera[2]))
    box_blur(soft_depth, max(side // 64, 1), np.empty_like(soft_depth))

    still = sphere(DIRECTIONS)
    turned = still @ rotation(state.yaw, state.pitch, state.roll).T
    light = np.stack([radiance(photo.environment, still), radiance(photo.environment, turned)])
    reached = np.empty((len(vertices), 4), np.float32)
    irradiance(normals, person.follows_head, who.visible, np.stack([still, turned]), light, reached)
    front = 4 / DIRECTIONS * (np.maximum(still[:, 2:], 0) * light[0]).sum(0)
    lamps = _lamps(photo.environment, person, vertices, front.astype(np.float32))

    mesh = load_mesh()
    red, green, blue = (float(value) for value in linear(np.array(identity.skin.colour)))
    surface = Surface(
        vertices, normals, person.rest, person.triangles, mesh.corner_uv, mesh.material,
        _skin(identity, photo.detail, half=side < 256), mesh.eye_centres, (red, green, blue), identity.iris, identity.clothes,
    )  # fmt: skip
    colour = draw_backdrop(photo.backdrop, side).copy()
    shade_photo(
        surface, photo.garment, photo.seed % 1000, lamps, reached, person.camera, triangle, weights, depth,
        soft_depth, colour,
    )  # fmt: skip
    layer = person.layer
    strands = vertices[layer.source] + normals[layer.source] * layer.lift[:, None]
    lit = np.empty_like(strands)
    tint = linear(layer.colour).astype(np.float32)
    light_hair(strands, normals[layer.source], reached[layer.source], tint, lamps, person.camera, lit)
    strands = project(person, strands)
    strands[:, :2] *= side
    order = np.argsort(-strands[layer.triangles, 2].sum(1))
    blend_layers(strands, layer.triangles, order, lit, layer.opacity, layer.strand, layer.fray, depth, colour)
    picture = cv2.resize(colour, (size, size), interpolation=cv2.INTER_AREA)
    head = cv2.resize((triangle >= 0).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng([photo.seed, 8, moment])
    velocity = person.focal / 11.0 * 1.2 * np.array([turning[0], -turning[1]])
    frame = photograph(picture, photo.camera, rng, head=head, velocity=velocity)
    landmarks = true_landmarks(person, vertices)
    return Rendering(frame, landmarks[:, :2].astype(np.float32), in_sight(landmarks, depth))
