"""Builds a person's hair: the raised scalp, soft shells over it, hanging hair, and lashes, as see-through layers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.identity import Identity
from data_prep.heads.kernels import kernel, rough
from data_prep.heads.mesh import SKIN, HeadMesh
from data_prep.heads.skin import beard_cover, scalp, vertex_mask

SHELLS = 5
CURTAIN_COLUMNS, CURTAIN_ROWS, CAP_ROWS = 61, 38, 20
HANGING = ("bob", "long")
BACK_OF_EDGE = 0.93  # hair beside the face hangs from what is behind it, not from the cheek in front


class Layer(NamedTuple):
    """See-through triangles that ride on vertices of the head.

    Point i stands `lift[i]` decimeters along the normal of vertex `source[i]`; `strand` are coordinates in which hairs
    run along the second axis; `fray` says how much hairs break up the opacity.
    """

    source: Int[np.ndarray, " N"]
    lift: Float[np.ndarray, " N"]
    color: Float[np.ndarray, "N 3"]
    opacity: Float[np.ndarray, " N"]
    strand: Float[np.ndarray, "N 2"]
    fray: Float[np.ndarray, " N"]
    triangles: Int[np.ndarray, "M 3"]


def join(layers: list[Layer]) -> Layer:
    """Join layers to one."""
    starts = np.cumsum([0] + [len(layer.source) for layer in layers])
    triangles = [layer.triangles + start for layer, start in zip(layers, starts[:-1], strict=True)]
    joined = [np.concatenate(column) for column in zip(*layers, strict=True)]
    return Layer(*joined)._replace(triangles=np.concatenate(triangles))


@kernel
def _scalp_depth(rest: np.ndarray, hairline: float, recession: float) -> np.ndarray:
    depth = np.empty(len(rest), np.float32)
    for i in range(len(rest)):
        depth[i] = scalp(rest[i, 0], rest[i, 1], rest[i, 2], hairline, recession)
    return depth


@kernel
def _beard_cover(rest: np.ndarray, beard: tuple) -> np.ndarray:
    cover = np.empty(len(rest), np.float32)
    for i in range(len(rest)):
        cover[i] = beard_cover(rest[i, 0], rest[i, 1], rest[i, 2], beard)
    return cover


@kernel
def _lumps(points: np.ndarray, frequency: float, seed: int) -> np.ndarray:
    values = np.empty(len(points), np.float32)
    for i in range(len(points)):
        values[i] = rough(frequency * points[i, 0], frequency * points[i, 1], frequency * points[i, 2], seed)
    return values


def _ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


class Scalp(NamedTuple):
    """The scalp: where hair grows, for each vertex of the mesh."""

    depth: Float[np.ndarray, " V"]  # decimeters behind the hairline, below 0 on the face
    raised: Float[np.ndarray, " V"]  # how far hair lifts the surface, decimeters


def raise_scalp(mesh: HeadMesh, identity: Identity) -> Scalp:
    """Compute how far the person's hair lifts the scalp."""
    hair, rest = identity.hair, mesh.vertices
    on_skin = np.zeros(len(rest), np.float32)
    on_skin[np.unique(mesh.triangles[mesh.material == SKIN])] = 1
    depth = np.where(on_skin > 0, _scalp_depth(rest, hair.hairline, hair.recession), -1).astype(np.float32)
    if hair.style == "bald":
        return Scalp(np.full_like(depth, -1), np.zeros_like(depth))
    reach = {"buzz": 0.10, "afro": 0.32}.get(hair.style, 0.22)
    amount = hair.volume * _ramp(depth, -0.02, reach) * (1 - np.clip(1.5 * vertex_mask(mesh, "ears"), 0, 1))
    if hair.style != "afro":
        amount *= 0.45 + 0.55 * _ramp(rest[:, 1], 6.9, 7.9)
    if hair.style == "quiff":
        amount *= 1 + 0.7 * np.exp(-(((rest[:, 2] - 0.95) / 0.4) ** 2)) * _ramp(rest[:, 1], 7.9, 8.2)
    if hair.style in HANGING:
        return Scalp(depth, (0.3 * amount).astype(np.float32))
    if hair.parting != 0 and hair.style in ("short", "quiff"):
        far_side = (rest[:, 0] - hair.parting) * np.sign(hair.parting) < 0
        amount *= np.where(far_side, 1.15, 0.85)
    amount *= 1 + (0.25 + 0.8 * hair.curl * (hair.style != "afro")) * _lumps(
        rest, 4 + 4 * hair.curl, identity.seed % 1000
    )
    return Scalp(depth, amount.astype(np.float32))


def _shells(mesh: HeadMesh, cover: np.ndarray, height: np.ndarray, color: np.ndarray, *, fray: float) -> Layer:
    """Build shells: copies of the triangles under `cover`, each further out and thinner than the previous one."""
    skin = mesh.triangles[mesh.material == SKIN]
    chosen = skin[(cover[skin] > 0.03).any(axis=1)]
    vertices, local = np.unique(chosen, return_inverse=True)
    local = local.reshape(-1, 3)
    rest = mesh.vertices[vertices]
    around = np.arctan2(rest[:, 0], rest[:, 2] + 0.1)
    strand = np.stack([60 * around, 30 * rest[:, 1] + 30 * rest[:, 2]], axis=1)
    shells = []
    for k in range(1, SHELLS + 1):
        out = k / SHELLS
        shells.append(
            Layer(
                source=vertices,
                lift=(height[vertices] * out).astype(np.float32),
                color=np.tile(color * (0.8 + 0.3 * out), (len(vertices), 1)).astype(np.float32),
                opacity=(cover[vertices] * (1 - 0.75 * out)).astype(np.float32),
                strand=(strand + 17.3 * k * (1 - fray)).astype(np.float32),
                fray=np.full(len(vertices), fray, np.float32),
                triangles=local,
            )
        )
    return join(shells)


def _lashes(mesh: HeadMesh, color: np.ndarray) -> Layer:
    """Build the lashes, dark at the lid and transparent at their tips."""
    vertices, local = np.unique(mesh.lash_triangles, return_inverse=True)
    skin = mesh.vertices[np.unique(mesh.triangles[mesh.material == SKIN])]
    points = mesh.vertices[vertices]
    away = np.sqrt(((points[:, None] - skin[None]) ** 2).sum(-1)).min(1)
    tip = np.clip(away / away.max(), 0, 1)
    upper = points[:, 1] > 7.285
    return Layer(
        source=vertices,
        lift=np.zeros(len(vertices), np.float32),
        color=np.tile(0.35 * color, (len(vertices), 1)).astype(np.float32),
        opacity=((0.95 - 0.75 * tip) * np.where(upper, 1.0, 0.35)).astype(np.float32),
        strand=np.stack([160 * points[:, 0], 4 * tip], axis=1).astype(np.float32),
        fray=np.full(len(vertices), 0.6, np.float32),
        triangles=local.reshape(-1, 3),
    )


def attached_layers(mesh: HeadMesh, identity: Identity, scalp_hair: Scalp) -> Layer:
    """Build the shells of hair and beard, and the lashes."""
    hair, beard = identity.hair, identity.beard
    layers = [_lashes(mesh, np.array(identity.brows.color))]
    if hair.style != "bald":
        cover = _ramp(scalp_hair.depth, -0.03, 0.08) * (1 - np.clip(1.5 * vertex_mask(mesh, "ears"), 0, 1))
        soft = {"buzz": 0.02, "afro": 0.13}.get(hair.style, 0.045 + 0.05 * hair.curl)
        height = soft * _ramp(scalp_hair.depth, -0.03, 0.2)
        layers.append(_shells(mesh, cover, height, np.array(hair.color), fray=0.9 if hair.style == "afro" else 0.7))
    if beard.length > 0:
        bare = np.maximum(vertex_mask(mesh, "lips"), np.clip(2 * vertex_mask(mesh, "ears"), 0, 1))
        cover = _beard_cover(mesh.vertices, beard) * (1 - bare)
        layers.append(_shells(mesh, cover, beard.length * _ramp(cover, 0.1, 0.9), np.array(beard.color), fray=0.8))
    return join(layers)


class Curtain(NamedTuple):
    """Hair that hangs: a sheet of its own vertices, from the crown down."""

    vertices: Float[np.ndarray, "C 3"]
    triangles: Int[np.ndarray, "D 3"]
    edge: Float[np.ndarray, " C"]  # 0 at the sheet's free edges, 1 inside
    strand: Float[np.ndarray, "C 2"]


def _opening(y: np.ndarray, identity: Identity) -> np.ndarray:
    """Half the angle (radians, seen from above) that hanging hair leaves free in front, at height y."""
    hair = identity.hair
    top = min(hair.hairline + 0.02, hair.fringe)
    widest = 0.95 if hair.fringe < 8.0 else 1.12
    arch = np.sqrt(np.clip((top - y) / (top - 7.35), 0, 1))
    return np.where(y > 6.9, widest * arch, np.interp(y, [4.5, 6.3, 6.9], [0.85 * widest, 0.95 * widest, widest]))


def _distance_from_opening(azimuth: np.ndarray, rows_y: np.ndarray, identity: Identity) -> np.ndarray:
    """How far (about decimeters) points of the sheet are from the edge of the opening for the face."""
    edge_y = np.linspace(identity.hair.length - 1.0, min(identity.hair.hairline + 0.02, identity.hair.fringe), 60)
    turned = (np.pi - np.abs(azimuth))[..., None] - _opening(edge_y, identity)
    return np.sqrt(turned**2 + (rows_y[:, None, None] - edge_y) ** 2).min(-1)


def hang_hair(neutral: Float[np.ndarray, "V 3"], mesh: HeadMesh, identity: Identity) -> Curtain:
    """Hanging hair fitted over a person's neutral head (hair already raised), as a cap that turns into a curtain."""
    hair = identity.hair
    on_head = np.unique(mesh.triangles[mesh.material == SKIN])
    skin = neutral[on_head[vertex_mask(mesh, "ears")[on_head] < 0.3]].astype(np.float64)
    center = np.array([0.0, 7.55, 0.25])
    from_crown = np.linspace(0.03, np.pi / 2, CAP_ROWS)
    cap_y = center[1] + 0.95 * np.cos(from_crown)
    fall = np.linspace(0, 1, CURTAIN_ROWS - CAP_ROWS + 1)[1:]
    rows_y = np.concatenate([cap_y, center[1] + (hair.length - center[1]) * fall])
    columns = np.linspace(-1, 1, CURTAIN_COLUMNS)
    azimuth = columns[None] * (np.pi - _opening(rows_y, identity))[:, None]  # 0 = behind the head
    offset = skin - center
    distance = np.linalg.norm(offset, axis=1)
    radius = np.zeros_like(azimuth)
    direction = np.stack([np.sin(azimuth), np.zeros_like(azimuth), -np.cos(azimuth)], axis=-1)
    cap = direction[:CAP_ROWS] * np.sin(from_crown)[:, None, None]
    cap[..., 1] = np.cos(from_crown)[:, None]
    near = np.einsum("rck,vk->rcv", cap, offset / distance[:, None]) > np.cos(0.17)
    radius[:CAP_ROWS] = np.where(near, distance, 0).max(-1)
    flat = np.hypot(offset[:, 0], offset[:, 2])
    turn = np.arctan2(offset[:, 0], -offset[:, 2])
    for row in range(CAP_ROWS, CURTAIN_ROWS):
        level = np.abs(skin[:, 1] - rows_y[row]) < 0.14
        away = np.abs((turn[level][None] - BACK_OF_EDGE * azimuth[row][:, None] + np.pi) % (2 * np.pi) - np.pi)
        support = np.where(away < 0.12, flat[level][None], 0).max(1, initial=0.0)
        # Hair falls straight: it follows what pushes it out, and hardly returns.
        above = np.interp(azimuth[row], azimuth[row - 1], radius[row - 1])
        radius[row] = np.clip(support, above - 0.035, above + 0.04)
    for _ in range(3):
        radius[:, 1:-1] = (radius[:, :-2] + 2 * radius[:, 1:-1] + radius[:, 2:]) / 4
    radius[1:-1] = (radius[:-2] + 2 * radius[1:-1] + radius[2:]) / 4
    sweep = _ramp(rows_y, 8.6, 7.2)[:, None]
    lumps = _lumps(
        direction.reshape(-1, 3) * 2 + rows_y.repeat(CURTAIN_COLUMNS)[:, None],
        1.6 + 2 * hair.curl,
        identity.seed % 1000,
    )
    body = (
        0.4 * hair.volume + 0.6 * hair.volume * sweep + lumps.reshape(radius.shape) * (0.05 + 0.16 * hair.curl) * sweep
    )
    # At the face the sheet lies close to the skin, so that it has no brim.
    from_face = _distance_from_opening(azimuth, rows_y, identity)
    radius += 0.03 + body * (0.1 + 0.9 * _ramp(from_face, 0.0, 0.5))
    points = direction * radius[..., None] + center
    points[:CAP_ROWS] = cap * radius[:CAP_ROWS, :, None] + center
    points[CAP_ROWS:, :, 1] = rows_y[CAP_ROWS:, None]
    side = _ramp(from_face, 0.0, 0.10)
    end = _ramp(np.linspace(1, 0, CURTAIN_ROWS), 0.0, 0.14)[:, None]
    grid = np.arange(CURTAIN_ROWS * CURTAIN_COLUMNS).reshape(CURTAIN_ROWS, CURTAIN_COLUMNS)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    triangles = np.concatenate([np.stack([a, c, d], -1).reshape(-1, 3), np.stack([a, b, c], -1).reshape(-1, 3)])
    down = np.broadcast_to(np.linspace(0, 5, CURTAIN_ROWS)[:, None], radius.shape)
    return Curtain(
        points.reshape(-1, 3).astype(np.float32),
        triangles,
        (side * end).reshape(-1).astype(np.float32),
        np.stack([22 * azimuth, down], axis=-1).reshape(-1, 2).astype(np.float32),
    )


def curtain_layers(curtain: Curtain, identity: Identity, first_vertex: int) -> Layer:
    """The hanging sheet twice: a full one, and a thinner one over it whose hairs end softly."""
    count = len(curtain.vertices)
    layers = []
    for lift, opacity, fray in ((0.0, 1.0, 0.35), (0.035, 0.7, 0.9)):
        layers.append(
            Layer(
                source=np.arange(first_vertex, first_vertex + count),
                lift=np.full(count, lift, np.float32),
                color=np.tile(np.array(identity.hair.color), (count, 1)).astype(np.float32),
                opacity=(opacity * curtain.edge).astype(np.float32),
                strand=curtain.strand,
                fray=np.full(count, fray, np.float32),
                triangles=curtain.triangles,
            )
        )
    return join(layers)
