"""Renders one moment of one person: a frame and its true landmarks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from data_prep.heads.hair import Layer
from data_prep.heads.identity import Identity, Light
from data_prep.heads.mesh import load_mesh
from data_prep.heads.motion import HeadState, rotation
from data_prep.heads.person import Person, normals_of, prepare
from data_prep.heads.raster import Samples, box_blur, rasterize, resolve
from data_prep.heads.shading import Lighting, Surface, blend_layers, light_layers, shade
from data_prep.heads.shadow import shadow_map
from data_prep.heads.skin import paint_skin

SMALLEST, LARGEST = 16, 1024
# Gaze (radians) at which a look unit has moved the lids by its full weight.
LOOK_SIDEWAYS, LOOK_UP_OR_DOWN = 0.41, 0.29


class Rendering(NamedTuple):
    """A rendered frame with its true landmarks, x and y in 0..1 from the image's left and top edge.

    Points 0-67 follow the iBUG order (36-41 is the eye on the image's left); 68 is the pupil inside 36-41, 69 the
    one inside 42-47. `visible` is false where the head itself hides a point (hair is not considered).
    """

    frame: UInt8[np.ndarray, "S S 3"]
    landmarks: Float[np.ndarray, "70 2"]
    visible: Bool[np.ndarray, "70"]


def look_units(state: HeadState) -> Float[np.ndarray, "52"]:
    """The weights of the face units, with those by which the lids follow the gaze."""
    index = load_mesh().unit_index
    units = np.array(state.units, np.float32)
    look = (
        ("eyeLookUp", state.gaze_pitch / LOOK_UP_OR_DOWN, "eyeLookDown"),
        # The image's right is the person's left: that way the left eye looks out and the right one in.
        ("eyeLookOut", state.gaze_yaw / LOOK_SIDEWAYS, "eyeLookIn"),
    )
    for positive, amount, negative in look:
        for side in ("Left", "Right"):
            signed = -amount if (positive == "eyeLookOut" and side == "Right") else amount
            units[index[(positive if signed > 0 else negative) + side]] += abs(signed)
    return units


def pose(person: Person, state: HeadState) -> Float[np.ndarray, "N 3"]:
    """The person's vertices in this state, in decimeters."""
    mesh = load_mesh()
    units = look_units(state)
    vertices = person.neutral.copy()
    count = len(mesh.vertices)
    vertices[:count] += (units @ mesh.units.reshape(len(units), -1)).reshape(count, 3)
    turn = rotation(state.gaze_yaw, state.gaze_pitch, 0.0)
    for eye, center in zip((mesh.left_eye, mesh.right_eye), person.eye_centers, strict=True):
        vertices[eye] = (vertices[eye] - center) @ turn.T + center
    head = rotation(state.yaw, state.pitch, state.roll)
    turned = (vertices - person.pivot) @ head.T + person.pivot
    return vertices + person.follows_head * (turned - vertices)


def project(person: Person, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Points in the image: x and y in 0..1 from its left and top edge, and their distance from the camera."""
    offset = points - person.camera
    away = -offset[:, 2]
    x = person.middle[0] + person.focal * offset[:, 0] / away
    y = person.middle[1] - person.focal * offset[:, 1] / away
    return np.stack([x, y, away], axis=1).astype(np.float32)


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def _lighting(light: Light, person: Person, vertices: np.ndarray) -> Lighting:
    """Key, fill and rim light of a person, and what the key light cannot reach now."""
    away = -1.0 if light.azimuth > 0 else 1.0
    key = _direction(light.azimuth, light.elevation)
    directions = np.stack([key, _direction(away * 0.9, 0.15), _direction(away * 2.4, 0.6)]).astype(np.float32)
    warm = np.array([1 + 0.06 * light.warmth, 1.0, 1 - 0.08 * light.warmth])
    strengths = np.array([0.95 * light.key, 0.55 - 0.3 * light.key, 0.35])[:, None]
    colors = strengths * np.stack([warm, np.ones(3), np.ones(3)])
    return Lighting(directions, colors.astype(np.float32), 0.40, *shadow_map(person, vertices, key))


def _background(identity: Identity, side: int) -> Float[np.ndarray, "H W 3"]:
    top, bottom = np.array(identity.background, np.float32)
    share = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(top + (bottom - top) * share, (side, side, 3)))


def true_landmarks(person: Person, vertices: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "70 3"]:
    """The 68 points and both pupils, projected: x and y in 0..1, and their distance from the camera."""
    points = (vertices[person.landmark_vertices] * person.landmark_weights[..., None]).sum(1)
    return project(person, np.concatenate([points, _pupils(person, vertices)]))


def _pupils(person: Person, vertices: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "2 3"]:
    """The middles of the irises, the image's left first: those of the rings around them, raised to the eyeball."""
    mesh, pupils = load_mesh(), []
    for eye, ring in zip((mesh.right_eye, mesh.left_eye), person.pupil_rings[::-1], strict=True):
        center = vertices[eye].mean(0)
        axis = vertices[ring].mean(0) - center
        radius = np.linalg.norm(vertices[ring] - center, axis=1).mean()
        pupils.append(center + axis * radius / np.linalg.norm(axis))
    return np.stack(pupils)


def check_size(size: int) -> None:
    """Check the size of a frame.

    Raises:
        ValueError: if the size is outside 16..1024.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size must be {SMALLEST} to {LARGEST} px, but is {size}")


def render_head(identity: Identity, state: HeadState, *, size: int) -> Rendering:
    """Render one moment of a person.

    Args:
        identity: person (`identity.draw_identity`); the preparation of the last few people is cached.
        state: expression, pose and gaze.
        size: width and height of the frame in pixels.

    Raises:
        ValueError: if the size is outside 16..1024.
    """
    check_size(size)
    person = prepare(identity)
    factor = 3 if size <= 160 else 2
    side = size * factor
    vertices = pose(person, state)
    normals = normals_of(vertices, person.smooth_triangles)
    (depth, triangle, weights), soft_depth = scan(person, vertices, side=side)
    light = _lighting(identity.light, person, vertices)
    mesh = load_mesh()
    surface = Surface(
        vertices, normals, person.rest, person.triangles, mesh.corner_uv, mesh.material,
        paint_skin(identity, half=side < 256), mesh.eye_centers, identity.skin.color, identity.iris,
        identity.clothes,
    )  # fmt: skip
    color = _background(identity, side)
    shade(surface, light, person.camera, triangle, weights, depth, soft_depth, color)
    layer = person.layer
    strands = vertices[layer.source] + normals[layer.source] * layer.lift[:, None]
    lit = np.empty_like(strands)
    light_layers(strands, normals[layer.source], layer.color, light, person.camera, lit)
    blend_strands(person, layer, strands, lit, depth, color)
    frame = np.empty((size, size, 3), np.uint8)
    resolve(color, factor, frame)
    return with_landmarks(frame, person, vertices, depth)


def scan(person: Person, vertices: Float[np.ndarray, "N 3"], *, side: int) -> tuple[Samples, Float[np.ndarray, "S S"]]:
    """What the samples of an image show of the posed person, and their depths averaged over the neighborhood."""
    points = project(person, vertices)
    points[:, :2] *= side
    samples = rasterize(points, person.triangles, shape=(side, side), cull=True)
    soft_depth = np.minimum(samples.depth, np.float32(person.camera[2]))
    box_blur(soft_depth, max(side // 64, 1), np.empty_like(soft_depth))
    return samples, soft_depth


def blend_strands(
    person: Person, layer: Layer, strands: np.ndarray, lit: np.ndarray, depth: np.ndarray, color: np.ndarray
) -> None:
    """Blend lit strands of hair over the image, the farthest first."""
    strands = project(person, strands)
    strands[:, :2] *= len(depth)
    order = np.argsort(-strands[layer.triangles, 2].sum(1))
    blend_layers(strands, layer.triangles, order, lit, layer.opacity, layer.strand, layer.fray, depth, color)


def with_landmarks(frame: np.ndarray, person: Person, vertices: np.ndarray, depth: np.ndarray) -> Rendering:
    """The frame with its true landmarks; those outside the image or behind the head are not visible."""
    landmarks = true_landmarks(person, vertices)
    cell = np.floor(landmarks[:, :2] * len(depth)).astype(int)
    inside = ((cell >= 0) & (cell < len(depth))).all(axis=1)
    column, row = np.clip(cell, 0, len(depth) - 1).T
    visible = inside & (landmarks[:, 2] < depth[row, column] + 0.08)
    return Rendering(frame, landmarks[:, :2].astype(np.float32), visible)
