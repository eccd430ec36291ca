"""Z-buffer rasterizer: the triangle that covers each sample, the position in it, and its depth."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.kernels import kernel

FAR = np.float32(1e9)


class Samples(NamedTuple):
    """The depth of each sample, the triangle that covers it (-1 for none), and its first two barycentric coordinates."""

    depth: Float[np.ndarray, "H W"]
    triangle: Int[np.ndarray, "H W"]
    weights: Float[np.ndarray, "H W 2"]


def rasterize(
    points: Float[np.ndarray, "V 3"], triangles: Int[np.ndarray, "F 3"], *, shape: tuple[int, int], cull: bool = False
) -> Samples:
    """Draw triangles of points (x, y in samples; depth), nearest depth first.

    With `cull`, triangles that turn their back (clockwise on an image whose y points down) are skipped. Sample (i, j)
    sits at x = j + 0.5, y = i + 0.5.
    """
    samples = Samples(np.full(shape, FAR), np.full(shape, -1, np.int32), np.zeros((*shape, 2), np.float32))
    _rasterize(points, triangles, cull, *samples)
    return samples


@kernel
def _rasterize(
    points: Float[np.ndarray, "V 3"],
    triangles: Int[np.ndarray, "F 3"],
    cull: bool,
    depth: Float[np.ndarray, "H W"],
    triangle: Int[np.ndarray, "H W"],
    weights: Float[np.ndarray, "H W 2"],
) -> None:
    height, width = depth.shape
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        x0, y0, x1, y1, x2, y2 = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if (cull and area >= 0.0) or abs(area) < 1e-9:
            continue
        left = max(0, math.ceil(min(x0, x1, x2) - 0.5))
        right = min(width - 1, math.floor(max(x0, x1, x2) - 0.5))
        top = max(0, math.ceil(min(y0, y1, y2) - 0.5))
        bottom = min(height - 1, math.floor(max(y0, y1, y2) - 0.5))
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        for i in range(top, bottom + 1):
            py = i + 0.5
            for j in range(left, right + 1):
                px = j + 0.5
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                w2 = 1.0 - w0 - w1
                if w0 >= 0.0 and w1 >= 0.0 and w2 >= 0.0:
                    z = w0 * za + w1 * zb + w2 * zc
                    if z < depth[i, j]:
                        depth[i, j] = z
                        triangle[i, j] = f
                        weights[i, j, 0] = w0
                        weights[i, j, 1] = w1


@kernel
def vertex_normals(
    vertices: Float[np.ndarray, "V 3"], triangles: Int[np.ndarray, "F 3"], normals: Float[np.ndarray, "V 3"]
) -> None:
    """Unit normals, each the area-weighted mean of its triangles'."""
    normals[:] = 0.0
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(vertices.shape[0]):
        length = math.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-12
        for k in range(3):
            normals[v, k] /= length


@kernel
def box_blur(source: Float[np.ndarray, "H W"], radius: int, scratch: Float[np.ndarray, "H W"]) -> None:
    """Mean over a square of 2 * radius + 1 samples, in place, edges repeated."""
    height, width = source.shape
    count = 2 * radius + 1
    for i in range(height):
        total = source[i, 0] * (radius + 1)
        for j in range(1, radius + 1):
            total += source[i, min(j, width - 1)]
        for j in range(width):
            scratch[i, j] = total / count
            total += source[i, min(j + radius + 1, width - 1)] - source[i, max(j - radius, 0)]
    for j in range(width):
        total = scratch[0, j] * (radius + 1)
        for i in range(1, radius + 1):
            total += scratch[min(i, height - 1), j]
        for i in range(height):
            source[i, j] = total / count
            total += scratch[min(i + radius + 1, height - 1), j] - scratch[max(i - radius, 0), j]


@kernel
def resolve(color: Float[np.ndarray, "H W 3"], factor: int, frame: np.ndarray) -> None:
    """Average factor x factor samples a pixel and write bytes."""
    for i in range(frame.shape[0]):
        for j in range(frame.shape[1]):
            for k in range(3):
                total = 0.0
                for di in range(factor):
                    for dj in range(factor):
                        total += min(max(color[i * factor + di, j * factor + dj, k], 0.0), 1.0)
                frame[i, j, k] = int(total / (factor * factor) * 255.0 + 0.5)
