"""Lights the head: surfaces sample by sample; see-through layers vertex by vertex, then blended from back to front."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.identity import Clothes
from data_prep.heads.kernels import bell, kernel, noise, smoothstep
from data_prep.heads.mesh import LEFT_EYE, LOWER_TEETH, MOUTH, RIGHT_EYE, SKIN, TONGUE, TORSO, UPPER_TEETH

WRAP = (0.36, 0.20, 0.14)  # how far light creeps round skin, by color: the look of light under the skin
IRIS, PUPIL = 0.46, 0.19  # half angles on the eyeball, radians


class Lighting(NamedTuple):
    """Directions towards the lights, their colors, the ambient share, and the key light's shadow map.

    A point p falls on the map at ((p - shadow_center) @ shadow_axes[:2].T) * shadow_scale + half its size.
    """

    directions: Float[np.ndarray, "L 3"]
    colors: Float[np.ndarray, "L 3"]
    ambient: float
    shadow: Float[np.ndarray, "M M"]
    shadow_axes: Float[np.ndarray, "3 3"]
    shadow_center: Float[np.ndarray, "3"]
    shadow_scale: float


class Surface(NamedTuple):
    """The posed head and what it is made of."""

    vertices: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    rest: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "F 3"]
    corner_uv: Float[np.ndarray, "F 3 2"]
    material: np.ndarray
    texture: Float[np.ndarray, "H W 4"]
    eye_centers: Float[np.ndarray, "2 3"]
    skin: tuple[float, float, float]
    iris: tuple[float, float, float]
    clothes: Clothes


@kernel
def cloth_depth(x: float, y: float, z: float, clothes: Clothes) -> float:
    """Distance (decimeters) below the collar of a point at rest; positive where there is cloth."""
    collar = (
        clothes.collar - clothes.neckline * bell(x, 0.30) * smoothstep(0.0, 0.5, z) + 0.12 * smoothstep(0.2, -0.3, z)
    )
    shoulder = min(math.sqrt(x * x + z * z) - 0.95, 6.0 - y)
    return max(collar - y, shoulder)


@kernel
def shadow_at(light: Lighting, x: float, y: float, z: float) -> float:
    """How much of the key light reaches a point, 0..1, softened over the neighborhood."""
    size = light.shadow.shape[0]
    dx, dy, dz = x - light.shadow_center[0], y - light.shadow_center[1], z - light.shadow_center[2]
    axes = light.shadow_axes
    column = (dx * axes[0, 0] + dy * axes[0, 1] + dz * axes[0, 2]) * light.shadow_scale + 0.5 * size
    row = (dx * axes[1, 0] + dy * axes[1, 1] + dz * axes[1, 2]) * light.shadow_scale + 0.5 * size
    depth = -(dx * axes[2, 0] + dy * axes[2, 1] + dz * axes[2, 2])
    lit, total = 0.0, 0.0
    for i in range(-2, 3):
        for j in range(-2, 3):
            r, c = int(row + 1.4 * i), int(column + 1.4 * j)
            if 0 <= r < size and 0 <= c < size:
                total += 1.0
                lit += smoothstep(0.12, 0.04, depth - light.shadow[r, c])
    return lit / total if total > 0 else 1.0


@kernel
def eye_color(angle: float, around: float, iris: tuple, out: np.ndarray) -> None:
    """Write the display color of the eyeball `angle` radians from its pupil and `around` it."""
    white = 1.0 - 0.18 * smoothstep(0.6, 1.3, angle)
    rays = 0.8 + 0.4 * noise(around * 5.0, 2.0 * angle, 0.0, 11)
    inner = smoothstep(IRIS, PUPIL, angle)
    rim = 1.0 - 0.55 * bell(angle - IRIS, 0.06)
    in_iris = smoothstep(IRIS + 0.025, IRIS - 0.025, angle)
    in_pupil = smoothstep(PUPIL + 0.03, PUPIL - 0.03, angle)
    sclera = (0.88, 0.85, 0.83)
    for k in range(3):
        value = sclera[k] * white
        value += (iris[k] * rays * (0.85 + 0.55 * inner) - value) * in_iris
        out[k] = value * rim * (1.0 - in_pupil) + 0.015 * in_pupil


@kernel
def place_on_surface(
    surface: Surface, camera: np.ndarray, f: int, w0: float, w1: float, w2: float, point: np.ndarray, rest: np.ndarray,
    normal: np.ndarray, view: np.ndarray,
) -> None:  # fmt: skip
    """Write a place in triangle `f`, now and at rest, with its unit normal and the unit direction to the camera."""
    a, b, c = surface.triangles[f, 0], surface.triangles[f, 1], surface.triangles[f, 2]
    length, distance = 0.0, 0.0
    for k in range(3):
        point[k] = w0 * surface.vertices[a, k] + w1 * surface.vertices[b, k] + w2 * surface.vertices[c, k]
        rest[k] = w0 * surface.rest[a, k] + w1 * surface.rest[b, k] + w2 * surface.rest[c, k]
        normal[k] = w0 * surface.normals[a, k] + w1 * surface.normals[b, k] + w2 * surface.normals[c, k]
        view[k] = camera[k] - point[k]
        length += normal[k] * normal[k]
        distance += view[k] * view[k]
    length, distance = 1.0 / math.sqrt(length + 1e-12), 1.0 / math.sqrt(distance)
    for k in range(3):
        normal[k] *= length
        view[k] *= distance


@kernel
def place_in_eye(surface: Surface, side: int, rest: np.ndarray) -> tuple[float, float, float]:
    """Angle from the pupil of a place on an eyeball, the angle around it, and its height above the center."""
    ex, ey = rest[0] - surface.eye_centers[side, 0], rest[1] - surface.eye_centers[side, 1]
    ez = rest[2] - surface.eye_centers[side, 2]
    return math.atan2(math.sqrt(ex * ex + ey * ey), ez), math.atan2(ey, ex), ey


@kernel
def sample_texture(surface: Surface, f: int, w0: float, w1: float, w2: float, base: np.ndarray) -> float:
    """Write the texture's color at a place in triangle `f` to `base`, and return its gloss."""
    texture, uv = surface.texture, surface.corner_uv
    rows, columns = texture.shape[0], texture.shape[1]
    u = w0 * uv[f, 0, 0] + w1 * uv[f, 1, 0] + w2 * uv[f, 2, 0]
    v = w0 * uv[f, 0, 1] + w1 * uv[f, 1, 1] + w2 * uv[f, 2, 1]
    x, y = min(max(u * columns - 0.5, 0.0), columns - 1.001), min(max(v * rows - 0.5, 0.0), rows - 1.001)
    column, row = int(x), int(y)
    x, y = x - column, y - row
    for k in range(3):
        upper = texture[row, column, k] * (1 - x) + texture[row, column + 1, k] * x
        lower = texture[row + 1, column, k] * (1 - x) + texture[row + 1, column + 1, k] * x
        base[k] = upper * (1 - y) + lower * y
    return texture[row, column, 3]


@kernel
def shade(
    surface: Surface, light: Lighting, camera: Float[np.ndarray, "3"], triangle: Int[np.ndarray, "H W"],
    weights: Float[np.ndarray, "H W 2"], depth: Float[np.ndarray, "H W"], soft_depth: Float[np.ndarray, "H W"],
    color: Float[np.ndarray, "H W 3"],
) -> None:  # fmt: skip
    """Color every covered sample; the others keep what is in `color` (the background)."""
    base, normal, point, rest = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    view, lit = np.empty(3), np.empty(3)
    for i in range(triangle.shape[0]):
        for j in range(triangle.shape[1]):
            f = triangle[i, j]
            if f < 0:
                continue
            w0, w1 = weights[i, j, 0], weights[i, j, 1]
            w2 = 1.0 - w0 - w1
            place_on_surface(surface, camera, f, w0, w1, w2, point, rest, normal, view)
            material = surface.material[f]
            gloss, shine, wrap, dim, least_light = 0.2, 16.0, 0.0, 1.0, 0.0
            if material in (SKIN, TORSO):
                cloth = cloth_depth(rest[0], rest[1], rest[2], surface.clothes)
                wrap = 1.0
                if material == SKIN:
                    gloss = sample_texture(surface, f, w0, w1, w2, base)
                    # Little light from the sky reaches the throat below the jaw.
                    dim = 1.0 - 0.35 * smoothstep(6.35, 6.05, rest[1]) * smoothstep(5.3, 5.9, rest[1])
                else:
                    for k in range(3):
                        base[k] = surface.skin[k]
                covered = smoothstep(-0.008, 0.008, cloth)
                if covered > 0:
                    seam = 1.0 - 0.3 * bell(cloth - 0.06, 0.012)
                    for k in range(3):
                        base[k] += (surface.clothes.color[k] * seam - base[k]) * covered
                    gloss, wrap = gloss * (1 - covered) + 0.03 * covered, 1.0 - covered
                else:
                    dim *= 1.0 - 0.2 * bell(cloth, 0.06)
            elif material in (LEFT_EYE, RIGHT_EYE):
                angle, around, _ = place_in_eye(surface, material - LEFT_EYE, rest)
                eye_color(angle, around, surface.iris, base)
                gloss, shine, wrap = 1.6, 160.0, 0.5
            elif material in (UPPER_TEETH, LOWER_TEETH):
                gap = abs((abs(rest[0]) + 0.001) % 0.066 - 0.033)
                line = 1.0 - 0.25 * smoothstep(0.024, 0.033, gap)
                base[0], base[1], base[2] = 0.90 * line, 0.87 * line, 0.79 * line
                gloss, shine, dim = 0.5, 40.0, 0.45 + 0.5 * smoothstep(1.1, 1.42, rest[2])
                least_light = 0.55
                if material == LOWER_TEETH:
                    dim *= 0.8
            elif material in (TONGUE, MOUTH):
                base[0], base[1], base[2] = 0.52, 0.20, 0.19
                deep = smoothstep(0.9, 1.5, rest[2])
                gloss, wrap, dim = 0.25, 0.5, (0.22 + 0.45 * deep) if material == TONGUE else 0.10 + 0.6 * deep
            else:
                base[0], base[1], base[2] = surface.skin[0] * 0.55, surface.skin[1] * 0.4, surface.skin[2] * 0.4
            hollow = min(max(depth[i, j] - soft_depth[i, j], 0.0), 0.30)
            dim *= 1.0 - 1.7 * hollow
            ambient = light.ambient * (0.75 + 0.25 * normal[1])
            facing = abs(normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2])
            rim = (1.0 - facing) ** 3
            highlight = 0.0
            for k in range(3):
                lit[k] = ambient + 0.12 * rim * wrap
            for n in range(light.directions.shape[0]):
                lx, ly, lz = light.directions[n, 0], light.directions[n, 1], light.directions[n, 2]
                shadow = max(shadow_at(light, point[0], point[1], point[2]), least_light) if n == 0 else 1.0
                cosine = normal[0] * lx + normal[1] * ly + normal[2] * lz
                hx, hy, hz = lx + view[0], ly + view[1], lz + view[2]
                half = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz)
                mirror = max((normal[0] * hx + normal[1] * hy + normal[2] * hz) * half, 0.0)
                highlight += mirror**shine * light.colors[n, 1] * (0.3 + 0.7 * shadow)
                for k in range(3):
                    creep = WRAP[k] * wrap
                    soft_shadow = shadow + (1.0 - shadow) * (0.12 + 0.25 * creep)
                    lit[k] += light.colors[n, k] * max(cosine + creep, 0.0) / (1.0 + creep) ** 1.5 * soft_shadow
            for k in range(3):
                color[i, j, k] = display((base[k] * lit[k] + 0.24 * gloss * highlight * (0.6 + 0.8 * rim)) * dim)


@kernel
def display(value: float) -> float:
    """Roll bright values off softly so that skin never burns out; 0..1."""
    return value if value < 0.7 else 1.0 - 0.3 * math.exp(-(value - 0.7) / 0.3)


@kernel
def light_layers(
    points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"], color: Float[np.ndarray, "N 3"],
    light: Lighting, camera: Float[np.ndarray, "3"], lit: Float[np.ndarray, "N 3"],
) -> None:  # fmt: skip
    """The lit color of hair that hangs down along the surface (Kajiya and Kay's hair)."""
    for i in range(points.shape[0]):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        vx, vy, vz = camera[0] - points[i, 0], camera[1] - points[i, 1], camera[2] - points[i, 2]
        length = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * length, vy * length, vz * length
        tx, ty, tz = ny * nx, ny * ny - 1.0, ny * nz
        length = 1.0 / math.sqrt(tx * tx + ty * ty + tz * tz + 1e-9)
        tx, ty, tz = tx * length, ty * length, tz * length
        shadow = shadow_at(light, points[i, 0] + 0.1 * nx, points[i, 1] + 0.1 * ny, points[i, 2] + 0.1 * nz)
        red = green = blue = light.ambient * (0.75 + 0.25 * ny)
        highlight = 0.0
        for n in range(light.directions.shape[0]):
            lx, ly, lz = light.directions[n, 0], light.directions[n, 1], light.directions[n, 2]
            along = lx * tx + ly * ty + lz * tz
            facing = min(max(0.55 + 0.6 * (nx * lx + ny * ly + nz * lz), 0.0), 1.0)
            share = math.sqrt(max(1.0 - along * along, 0.0)) * facing
            if n == 0:
                share *= 0.35 + 0.65 * shadow
            red += 0.8 * light.colors[n, 0] * share
            green += 0.8 * light.colors[n, 1] * share
            blue += 0.8 * light.colors[n, 2] * share
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            half = (hx * tx + hy * ty + hz * tz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
            highlight += max(1.0 - half * half, 0.0) ** 18 * facing * light.colors[n, 1]
        sheen = 0.08 * highlight
        lit[i, 0] = 0.85 * color[i, 0] * (red + 0.7 * highlight) + sheen
        lit[i, 1] = 0.85 * color[i, 1] * (green + 0.7 * highlight) + sheen
        lit[i, 2] = 0.85 * color[i, 2] * (blue + 0.7 * highlight) + sheen


@kernel
def blend_layers(
    points: Float[np.ndarray, "N 3"], triangles: Int[np.ndarray, "M 3"], order: Int[np.ndarray, " M"],
    lit: Float[np.ndarray, "N 3"], opacity: Float[np.ndarray, " N"], strand: Float[np.ndarray, "N 2"],
    fray: Float[np.ndarray, " N"], depth: Float[np.ndarray, "H W"], color: Float[np.ndarray, "H W 3"],
) -> None:  # fmt: skip
    """Blend projected layers (x, y in samples; depth) over the image in the given order, behind what is nearer."""
    height, width = depth.shape
    for m in range(order.shape[0]):
        a, b, c = triangles[order[m], 0], triangles[order[m], 1], triangles[order[m], 2]
        x0, y0, x1, y1, x2, y2 = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left, right = max(0, math.ceil(min(x0, x1, x2) - 0.5)), min(width - 1, math.floor(max(x0, x1, x2) - 0.5))
        top, bottom = max(0, math.ceil(min(y0, y1, y2) - 0.5)), min(height - 1, math.floor(max(y0, y1, y2) - 0.5))
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                w0 = ((x1 - j - 0.5) * (y2 - i - 0.5) - (x2 - j - 0.5) * (y1 - i - 0.5)) / area
                w1 = ((x2 - j - 0.5) * (y0 - i - 0.5) - (x0 - j - 0.5) * (y2 - i - 0.5)) / area
                w2 = 1.0 - w0 - w1
                if w0 < 0.0 or w1 < 0.0 or w2 < 0.0:
                    continue
                if w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2] > depth[i, j]:
                    continue
                solid = w0 * opacity[a] + w1 * opacity[b] + w2 * opacity[c]
                across = w0 * strand[a, 0] + w1 * strand[b, 0] + w2 * strand[c, 0]
                down = w0 * strand[a, 1] + w1 * strand[b, 1] + w2 * strand[c, 1]
                broken = w0 * fray[a] + w1 * fray[b] + w2 * fray[c]
                hair = noise(across, 0.35 * down, 0.0, 21)
                # Where hair is thin it is hairs with gaps between them, not a veil.
                cover = smoothstep(0.0, 1.0, solid * (1.0 + broken) - broken * hair)
                tone = 0.80 + 0.40 * noise(1.7 * across, 0.25 * down, 3.0, 22)
                for k in range(3):
                    value = display((w0 * lit[a, k] + w1 * lit[b, k] + w2 * lit[c, k]) * tone)
                    color[i, j, k] += (value - color[i, j, k]) * cover
