"""Preparation of a person, done once for all frames: neutral head, hair, skin texture, camera, landmark points."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.hair import Layer, attached_layers, curtain_layers, hang_hair, join, raise_scalp
from data_prep.heads.identity import Brows, Identity
from data_prep.heads.kernels import kernel
from data_prep.heads.mesh import SKIN, TORSO, UPPER_TEETH, HeadMesh, load_mesh
from data_prep.heads.raster import vertex_normals
from data_prep.heads.shading import cloth_depth
from data_prep.heads.shape import shaped_vertices
from data_prep.heads.skin import vertex_mask

CAMERA_DISTANCE = 11.0
UPPER_TEETH_SHIFT = np.array([0.0, -0.04, 0.01], np.float32)  # where they are modeled, speech never shows them
HEAD_MIDDLE = 0.475  # where the neutral head's middle stands, as a share of the image's height
# Where on a brow dlib puts its points: along it (-1 at the nose, 1 at the temple), and above its middle line in half
# thicknesses.
BROW_ALONG = (1.0, 0.55, 0.0, -0.57, -1.02)
BROW_ABOVE = (-0.1, 0.5, 0.6, 0.6, 0.5)


class Person(NamedTuple):
    """A person ready to be posed; the mesh's vertices come first, those of hanging hair follow."""

    identity: Identity
    neutral: Float[np.ndarray, "N 3"]
    rest: Float[np.ndarray, "N 3"]
    follows_head: Float[np.ndarray, "N 1"]
    pivot: Float[np.ndarray, "3"]
    triangles: Int[np.ndarray, "F 3"]  # the mesh's
    smooth_triangles: Int[np.ndarray, "G 3"]  # those and the hanging hair's: they give normals and cast shadows
    layer: Layer
    eye_centers: Float[np.ndarray, "2 3"]  # left, right; neutral
    pupil_rings: Int[np.ndarray, "2 R"]  # vertices around the middle of each iris, where there is none; left, right
    landmark_vertices: Int[np.ndarray, "68 3"]
    landmark_weights: Float[np.ndarray, "68 3"]
    camera: Float[np.ndarray, "3"]
    focal: float  # image heights
    middle: tuple[float, float] = (0.5, HEAD_MIDDLE)  # of the neutral head, x and y in shares of the image


@kernel
def _cloth_depths(rest: np.ndarray, clothes: tuple) -> np.ndarray:
    depth = np.empty(len(rest), np.float32)
    for i in range(len(rest)):
        depth[i] = cloth_depth(rest[i, 0], rest[i, 1], rest[i, 2], clothes)
    return depth


def normals_of(vertices: Float[np.ndarray, "N 3"], triangles: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "N 3"]:
    """Compute smooth unit normals."""
    normals = np.empty_like(vertices)
    vertex_normals(vertices, triangles, normals)
    return normals


def _brow_points(mesh: HeadMesh, brows: Brows) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles and weights of the ten brow landmarks on this person's brows."""
    triangles = mesh.triangles[mesh.material == SKIN]
    corners = mesh.vertices[triangles]
    edges = corners[:, 1:, :2] - corners[:, :1, :2]
    facing = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0] > 1e-6
    triangles = triangles[facing & (corners[..., 2].min(1) > 0.7) & (np.abs(corners[..., 1] - 7.5).min(1) < 0.3)]
    corners = mesh.vertices[triangles][..., :2].astype(np.float64)
    found, weights = [], []
    for side, order in ((-1, range(5)), (1, range(4, -1, -1))):
        for i in order:
            along = BROW_ALONG[i]
            y = brows.height + brows.arch * (1 - along * along) + brows.tilt * along - 0.02 * max(along, 0.0)
            point = np.array([side * (0.345 + 0.235 * along), y + BROW_ABOVE[i] * brows.thickness])
            edges = corners[:, 1:] - corners[:, :1]
            offset = point - corners[:, 0]
            area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
            second = (offset[:, 0] * edges[:, 1, 1] - offset[:, 1] * edges[:, 1, 0]) / area
            third = (edges[:, 0, 0] * offset[:, 1] - edges[:, 0, 1] * offset[:, 0]) / area
            inside = np.stack([1 - second - third, second, third], axis=1)
            best = int(inside.min(axis=1).argmax())
            found.append(triangles[best])
            weights.append(np.clip(inside[best], 0, 1) / np.clip(inside[best], 0, 1).sum())
    return np.array(found), np.array(weights, np.float32)


def _frame_head(
    neutral: np.ndarray, lifted: np.ndarray, chin: float, eye_z: float, framing: float
) -> tuple[np.ndarray, float]:
    """Compute the camera's position and focal length from the neutral head's share of the image."""
    head = np.concatenate([neutral, lifted])
    top = head[head[:, 1].argmax()]
    bottom = neutral[(neutral[:, 1] - chin) ** 2 + neutral[:, 0] ** 2 < 0.02]
    camera = np.array([0.0, (top[1] + chin) / 2, eye_z + CAMERA_DISTANCE])
    up = (top[1] - camera[1]) / (camera[2] - top[2])
    down = (camera[1] - chin) / (camera[2] - bottom[:, 2].max())
    return camera.astype(np.float32), float(framing / (up + down))


def _pupil_rings(mesh: HeadMesh) -> Int[np.ndarray, "2 R"]:
    rings = []
    for eye, center in zip((mesh.left_eye, mesh.right_eye), mesh.eye_centers, strict=True):
        offset = mesh.vertices[eye] - center
        angle = np.arctan2(np.linalg.norm(offset[:, :2], axis=1), offset[:, 2])
        rings.append(eye[angle < angle.min() + 0.01])
    return np.stack(rings)


@lru_cache(maxsize=4)
def prepare(identity: Identity) -> Person:
    """Prepare a person; cached for the last few people.

    Raises:
        ValueError: if the identity names an unknown shape.
    """
    mesh = load_mesh()
    neutral = shaped_vertices(mesh, identity.shape)
    neutral[np.unique(mesh.triangles[mesh.material == UPPER_TEETH])] += UPPER_TEETH_SHIFT
    scalp_hair = raise_scalp(mesh, identity)
    if identity.hair.length > 0:
        # Hair that hangs over the ears presses them to the head.
        neutral[:, 0] *= 1 - 0.24 * np.clip(1.5 * vertex_mask(mesh, "ears"), 0, 1)
    body = np.zeros(len(neutral), np.float32)
    body[np.unique(mesh.triangles[(mesh.material == SKIN) | (mesh.material == TORSO)])] = 1
    cloth = np.clip(_cloth_depths(mesh.vertices, identity.clothes) / 0.08 + 0.3, 0, 1) * identity.clothes.thickness
    neutral = neutral + normals_of(neutral, mesh.triangles) * ((scalp_hair.raised + cloth) * body)[:, None]
    layers = [attached_layers(mesh, identity, scalp_hair)]
    rest, smooth_triangles = mesh.vertices, mesh.triangles
    if identity.hair.length > 0:
        curtain = hang_hair(neutral, mesh, identity)
        layers.append(curtain_layers(curtain, identity, len(neutral)))
        smooth_triangles = np.concatenate([smooth_triangles, curtain.triangles + len(neutral)])
        neutral = np.concatenate([neutral, curtain.vertices])
        rest = np.concatenate([rest, curtain.vertices])
    layer = join(layers)
    eye_centers = np.stack([neutral[eye].mean(0) for eye in (mesh.left_eye, mesh.right_eye)])
    middle = eye_centers.mean(0)
    brow_vertices, brow_weights = _brow_points(mesh, identity.brows)
    landmark_vertices, landmark_weights = mesh.landmark_vertices.copy(), mesh.landmark_weights.copy()
    landmark_vertices[17:27], landmark_weights[17:27] = brow_vertices, brow_weights
    lifted = neutral[layer.source] + normals_of(neutral, smooth_triangles)[layer.source] * layer.lift[:, None]
    chin = (neutral[landmark_vertices[8]] * landmark_weights[8][:, None]).sum(0)
    camera, focal = _frame_head(neutral, lifted, float(chin[1]), float(middle[2]), identity.framing)
    t = np.clip((rest[:, 1:2] - 5.35) / 1.0, 0, 1)
    return Person(
        identity=identity,
        neutral=np.ascontiguousarray(neutral, np.float32),
        rest=np.ascontiguousarray(rest, np.float32),
        follows_head=(t * t * (3 - 2 * t)).astype(np.float32),
        pivot=np.array([0, middle[1] - 1.05, middle[2] - 1.05], np.float32),
        triangles=mesh.triangles,
        smooth_triangles=smooth_triangles,
        layer=layer,
        eye_centers=eye_centers.astype(np.float32),
        pupil_rings=_pupil_rings(mesh),
        landmark_vertices=landmark_vertices,
        landmark_weights=landmark_weights,
        camera=camera,
        focal=focal,
    )
