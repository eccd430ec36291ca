"""Renders one moment of a photographed person: a frame and its true landmarks."""

import cv2
import numpy as np

from data_prep.heads.backdrop import draw_backdrop, linear
from data_prep.heads.camera import photograph
from data_prep.heads.environment import DIRECTIONS, Environment, irradiance, lamp_direction, radiance, sphere
from data_prep.heads.glasses import FrameMesh
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import HeadState, rotation
from data_prep.heads.person import Person, normals_of
from data_prep.heads.photo_person import Sitter, photo_skin
from data_prep.heads.photo_shading import Lamps, light_hair, shade_photo
from data_prep.heads.render import Rendering, blend_strands, check_size, pose, project, scan, with_landmarks
from data_prep.heads.shading import Surface, blend_layers
from data_prep.heads.shadow import shadow_map

BARE = (0.0, 0.0, 0.0)  # the color of no glasses


def _lamps(environment: Environment, person: Person, vertices: np.ndarray, front: np.ndarray) -> Lamps:
    directions = np.stack([lamp_direction(lamp) for lamp in environment.lamps]).astype(np.float32)
    cast = shadow_map(person, vertices, directions[0].astype(np.float64))
    return Lamps(
        directions,
        np.array([lamp.color for lamp in environment.lamps], np.float32),
        np.array([lamp.sharpness for lamp in environment.lamps], np.float32),
        front, *cast, environment.softness,
    )  # fmt: skip


def _mirror(who: Sitter, frame: FrameMesh, head: np.ndarray, depth: np.ndarray, color: np.ndarray) -> None:
    """Blend what the lenses of glasses mirror over the image."""
    person, environment = who.person, who.photo.environment
    points = (frame.lens - person.pivot) @ head.T + person.pivot
    normals = np.column_stack([0.44 * frame.lens[:, 0], np.zeros(len(frame.lens)), np.ones(len(frame.lens))])
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)) @ head.T
    view = person.camera - points
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    mirrored = 2 * (view * normals).sum(1, keepdims=True) * normals - view
    lit = radiance(environment._replace(lamps=(environment.lamps[0], *environment.lamps)), mirrored)
    assert who.photo.glasses is not None  # their frame is worn
    count = len(points)
    solid = np.full(count, (who.photo.glasses.mirror / 3) ** 0.5, np.float32)  # the blending eases it in
    flat = project(person, points.astype(np.float32))
    flat[:, :2] *= len(depth)
    blend_layers(
        flat, frame.lens_triangles, np.arange(len(frame.lens_triangles)), lit, solid,
        np.zeros((count, 2), np.float32), np.zeros(count, np.float32), depth, color,
    )  # fmt: skip


def render_photo(
    who: Sitter, state: HeadState, *, size: int, moment: int = 0, turning: tuple[float, float] = (0.0, 0.0)
) -> Rendering:
    """Render one moment of a photographed person.

    `moment` is the index of the frame, which is the seed of its noise; `turning` is the angular velocity of the head,
    yaw and pitch, in radians per second.

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
    head = rotation(state.yaw, state.pitch, state.roll)
    if who.frame is not None:
        normals[len(normals) - len(who.frame.normals) :] = who.frame.normals @ head.T
    (depth, triangle, weights), soft_depth = scan(person, vertices, side=side)
    still = sphere(DIRECTIONS)
    turned = still @ head.T
    light = np.stack([radiance(photo.environment, still), radiance(photo.environment, turned)])
    reached = np.empty((len(vertices), 4), np.float32)
    irradiance(normals, person.follows_head, who.visible, np.stack([still, turned]), light, reached)
    front = 4 / DIRECTIONS * (np.maximum(still[:, 2:], 0) * light[0]).sum(0)
    lamps = _lamps(photo.environment, person, vertices, front.astype(np.float32))

    red, green, blue = (float(value) for value in linear(np.array(identity.skin.color)))
    surface = Surface(
        vertices, normals, person.rest, person.triangles, who.corner_uv, who.material,
        photo_skin(identity, photo.detail, half=side < 256), load_mesh().eye_centers,
        (red, green, blue), identity.iris, identity.clothes,
    )  # fmt: skip
    frame_color = photo.glasses.color if photo.glasses else BARE
    color = draw_backdrop(photo.backdrop, side).copy()
    shade_photo(
        surface, photo.garment, frame_color, photo.seed % 1000, lamps, reached, person.camera, triangle, weights, depth,
        soft_depth, color,
    )  # fmt: skip
    if who.frame is not None:
        _mirror(who, who.frame, head, depth, color)
    layer = who.layer
    strands = vertices[layer.source] + normals[layer.source] * layer.lift[:, None] + who.offset @ head.T
    lit = np.empty_like(strands)
    tint = linear(layer.color).astype(np.float32)
    light_hair(strands, normals[layer.source], reached[layer.source], tint, lamps, person.camera, lit)
    blend_strands(person, layer, strands, lit, depth, color)
    image = cv2.resize(color, (size, size), interpolation=cv2.INTER_AREA)
    covered = cv2.resize((triangle >= 0).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng([photo.seed, 8, moment])
    velocity = person.focal / 11.0 * 1.2 * np.array([turning[0], -turning[1]])
    frame = photograph(image, photo.camera, rng, head=covered, velocity=velocity)
    return with_landmarks(frame, person, vertices, depth)
