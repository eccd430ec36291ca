"""Paints a person's skin, brows, stubble and hairline onto the texture of the head."""

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from data_prep.heads.identity import Beard, Brows, Hair, Identity, Skin
from data_prep.heads.kernels import bell, kernel, noise, rough, smoothstep
from data_prep.heads.mesh import SKIN, HeadMesh, load_mesh
from data_prep.heads.raster import rasterize

TEXTURE = (928, 512)  # rows, columns


class TextureSpace(NamedTuple):
    """For each texel the rest position it shows, and the masks that stand there."""

    rest: Float[np.ndarray, "H W 3"]
    used: Bool[np.ndarray, "H W"]  # on the head's island or near enough to be sampled
    lips: Float[np.ndarray, "H W"]
    inside_mouth: Float[np.ndarray, "H W"]
    ears: Float[np.ndarray, "H W"]


@lru_cache(maxsize=2)
def texture_space(*, half: bool) -> TextureSpace:
    """Compute the texture space, which is the same for all people; cached."""
    mesh = load_mesh()
    rows, columns = (side // 2 if half else side for side in TEXTURE)
    skin = mesh.material == SKIN
    corners = mesh.triangles[skin].reshape(-1)
    uv = mesh.corner_uv[skin].reshape(-1, 2)
    points = np.column_stack([uv * (columns, rows), np.zeros(len(uv))]).astype(np.float32)
    own = np.arange(len(corners)).reshape(-1, 3)
    _, triangle, weights = rasterize(points, own, shape=(rows, columns))
    third = 1 - weights.sum(-1, keepdims=True)
    positions = mesh.vertices[corners][own[triangle]]
    rest = (positions * np.concatenate([weights, third], axis=-1)[..., None]).sum(2)
    # Texels outside the island take their nearest neighbor's place, so that sampling at seams finds no hole.
    distance, near = distance_transform_edt(triangle < 0, return_indices=True)
    rest = np.ascontiguousarray(rest[tuple(near)], dtype=np.float32)
    masks = {
        name: cv2.resize(mesh.masks[name], (columns, rows), interpolation=cv2.INTER_LINEAR)[tuple(near)]
        for name in ("lips", "inside_mouth", "ears")
    }
    return TextureSpace(rest, distance < 4, **masks)


@kernel
def scalp(x: float, y: float, z: float, hairline: float, recession: float) -> float:
    """Distance (decimeters) from the hairline of a point at rest; positive where hair grows."""
    side = abs(x)
    front = (
        hairline
        - 0.05 * math.cos(5.0 * x)
        + recession * (0.07 + 0.13 * bell(side - 0.40, 0.24))
        - 0.25 * max(side - 0.5, 0.0)
    )
    temple = 0.24 + 0.55 * smoothstep(7.15, 8.1, y) + 0.10 * bell(y - 7.1, 0.16)
    back = min(temple - z, y - 6.55 + 0.12 * smoothstep(0.0, -0.5, z))
    return max(y - front, back)


@kernel
def beard_cover(x: float, y: float, z: float, beard: Beard) -> float:
    """How densely a beard grows at a point at rest, 0..1."""
    side = abs(x)
    below = smoothstep(0.05, -0.07, y - 6.66 - 0.5 * max(side - 0.3, 0.0))
    jaw = below * smoothstep(5.95, 6.12, y) * smoothstep(0.15, 0.35, z)
    burn = smoothstep(0.55, 0.66, side) * smoothstep(7.3, 7.1, y) * smoothstep(0.28, 0.4, z) * smoothstep(0.78, 0.6, z)
    chin = smoothstep(0.36, 0.25, side) * smoothstep(6.52, 6.46, y) * smoothstep(6.0, 6.15, y) * smoothstep(0.6, 0.9, z)
    corner = bell(side - 0.285, 0.045) * smoothstep(6.40, 6.46, y) * smoothstep(6.74, 6.68, y)
    lip = smoothstep(0.33, 0.26, side) * bell(y - (6.775 - 0.9 * side * side), 0.042) * smoothstep(1.1, 1.25, z)
    grown = max(beard.jaw * max(jaw, 0.9 * burn), beard.chin * max(chin, corner * beard.moustache))
    return max(grown, beard.moustache * lip)


@kernel
def brow_cover(x: float, y: float, z: float, brows: Brows) -> float:
    """How densely the brows grow at a point at rest, 0..1."""
    along = (abs(x) - 0.345) / 0.235
    center = brows.height + brows.arch * (1.0 - along * along) + brows.tilt * along - 0.02 * max(along, 0.0)
    thickness = brows.thickness * (1.15 - 0.45 * along)
    ends = smoothstep(1.08, 0.7, along) * smoothstep(-1.12, -0.8, along)
    return math.exp(-1.2 * ((y - center) / thickness) ** 2) * ends * smoothstep(0.5, 0.7, z)


@kernel
def _paint(
    space: TextureSpace, skin: Skin, brows: Brows, hair: Hair, beard: Beard, bald: bool, dense: float, seed: int,
    texture: Float[np.ndarray, "H W 4"],
) -> None:  # fmt: skip
    for i in range(texture.shape[0]):
        for j in range(texture.shape[1]):
            if not space.used[i, j]:
                continue
            x, y, z = space.rest[i, j, 0], space.rest[i, j, 1], space.rest[i, j, 2]
            side = abs(x)
            face = smoothstep(6.0, 6.4, y) * smoothstep(0.3, 0.8, z)
            mottle = 1.0 + 0.07 * rough(9 * x, 9 * y, 9 * z, 1) + 0.06 * rough(30 * x, 30 * y, 30 * z, 2)
            flush = 0.55 * bell(side - 0.45, 0.2) * bell(y - 6.98, 0.18) + 0.5 * bell(side, 0.15) * bell(y - 6.98, 0.14)
            flush = flush * skin.blush * face + 0.25 * space.ears[i, j]
            red = skin.color[0] * mottle * (1.0 + 0.05 * flush)
            green = skin.color[1] * mottle * (1.0 - 0.20 * flush)
            blue = skin.color[2] * mottle * (1.0 - 0.17 * flush)
            shade = 1.0
            if skin.freckles > 0.0 and face > 0.0:
                spots = (
                    smoothstep(0.62, 0.85, noise(24 * x, 24 * y, 24 * z, 3))
                    * bell(y - 7.08, 0.2)
                    * bell(side - 0.25, 0.3)
                )
                shade -= 0.35 * skin.freckles * spots * face
            if skin.wrinkles > 0.0 and face > 0.0:
                forehead = smoothstep(7.58, 7.68, y) * smoothstep(8.05, 7.9, y) * smoothstep(0.75, 0.4, side)
                lines = smoothstep(
                    0.6, 0.95, math.sin(y * 62.0 + 1.2 * math.cos(3.0 * x) + 2.0 * noise(3 * x, 3 * y, 0.0, seed))
                )
                fold = (
                    bell(side - (0.235 + 0.35 * (7.0 - y)), 0.028)
                    * smoothstep(6.72, 6.8, y)
                    * smoothstep(7.05, 6.95, y)
                )
                crow = smoothstep(0.5, 0.56, side) * smoothstep(0.72, 0.62, side) * bell(y - 7.27, 0.09)
                crow *= smoothstep(0.5, 0.9, math.sin((y - 7.27) * 90.0 + side * 8.0))
                under = bell(y - (7.13 + 0.25 * (side - 0.31) ** 2), 0.016) * bell(side - 0.31, 0.12)
                shade -= skin.wrinkles * face * (0.10 * forehead * lines + 0.13 * fold + 0.12 * crow + 0.16 * under)
            socket = skin.tired_eyes * bell(side - 0.31, 0.2) * bell(y - 7.25, 0.12) * face
            red, green, blue = (
                red * shade * (1 - 0.20 * socket),
                green * shade * (1 - 0.28 * socket),
                blue * shade * (1 - 0.22 * socket),
            )
            gloss = 0.22 + 0.12 * bell(side, 0.2) * face
            lips = space.lips[i, j]
            tone = 1.0 - 0.12 * smoothstep(0.35, 0.65, noise(60 * x, 8 * y, 0.0, 4))
            red += (skin.lips[0] * tone - red) * lips
            green += (skin.lips[1] * tone - green) * lips
            blue += (skin.lips[2] * tone - blue) * lips
            gloss += 0.35 * lips
            brow = min(
                brow_cover(x, y, z, brows) * brows.strength * (0.75 + 0.5 * noise(90 * x + 40 * y, 25 * y, 0.0, 5)), 1.0
            )
            growth = beard_cover(x, y, z, beard) * (1 - lips) * (0.7 + 0.55 * noise(45 * x, 45 * y, 45 * z, 6))
            growth = min(growth, 0.97)
            red += (brows.color[0] - red) * brow
            green += (brows.color[1] - green) * brow
            blue += (brows.color[2] - blue) * brow
            red += (beard.color[0] - red) * growth
            green += (beard.color[1] - green) * growth
            blue += (beard.color[2] - blue) * growth
            if not bald:
                depth = scalp(x, y, z, hair.hairline, hair.recession) + 0.06 * rough(14 * x, 14 * y, 14 * z, 8)
                cover = dense * smoothstep(-0.035, 0.05, depth) * (1 - space.ears[i, j])
                around = math.atan2(x - hair.parting, z + 0.1)
                strand = 0.72 + 0.5 * noise(26 * around, 1.5 * y, 2 * z, 9) + 0.25 * rough(8 * around, 3 * y, 3 * z, 10)
                red += (hair.color[0] * strand - red) * cover
                green += (hair.color[1] * strand - green) * cover
                blue += (hair.color[2] * strand - blue) * cover
                gloss += (0.30 - gloss) * cover
            inside = space.inside_mouth[i, j]
            red += (0.30 - red) * inside
            green += (0.09 - green) * inside
            blue += (0.09 - blue) * inside
            texture[i, j, 0], texture[i, j, 1], texture[i, j, 2], texture[i, j, 3] = red, green, blue, gloss


@lru_cache(maxsize=8)
def paint_skin(identity: Identity, *, half: bool = False) -> Float[np.ndarray, "H W 4"]:
    """Paint display red, green, blue in 0..1 and gloss of every texel of the head; cached for the last few people.

    Half the size suffices for frames below 96 px, and is painted four times as fast.
    """
    space = texture_space(half=half)
    texture = np.zeros((*space.lips.shape, 4), np.float32)
    hair = identity.hair
    dense = 0.85 if hair.style == "buzz" else 1.0
    _paint(
        space, identity.skin, identity.brows, hair, identity.beard, hair.style == "bald", dense,
        identity.seed % 1000, texture,
    )  # fmt: skip
    return texture


def vertex_mask(mesh: HeadMesh, name: str) -> Float[np.ndarray, " V"]:
    """A mask of the head's texture at each vertex (0 for vertices off the head's skin)."""
    mask = mesh.masks[name]
    skin = mesh.material == SKIN
    uv = mesh.corner_uv[skin].reshape(-1, 2)
    rows = np.clip(uv[:, 1] * mask.shape[0], 0, mask.shape[0] - 1).astype(int)
    columns = np.clip(uv[:, 0] * mask.shape[1], 0, mask.shape[1] - 1).astype(int)
    values = np.zeros(len(mesh.vertices), np.float32)
    np.maximum.at(values, mesh.triangles[skin].reshape(-1), mask[rows, columns])
    return values
