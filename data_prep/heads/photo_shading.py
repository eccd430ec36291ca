"""Lights a photographed head sample by sample in linear light: soft surroundings, lamps, shadows, skin, eyes, cloth."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.heads.glasses import FRAME
from data_prep.heads.kernels import bell, kernel, noise, rough, smoothstep
from data_prep.heads.mesh import LEFT_EYE, LOWER_TEETH, MOUTH, RIGHT_EYE, SKIN, TONGUE, TORSO, UPPER_TEETH
from data_prep.heads.photo import Garment
from data_prep.heads.shading import Surface, cloth_depth, eye_color, place_in_eye, place_on_surface, sample_texture

TEE, JUMPER, SHIRT, JACKET = range(4)


@kernel
def _pattern(x: float, y: float, z: float, garment: Garment, seed: int) -> float:
    """Share of the second color, 0..1."""
    across, down = math.atan2(x, z + 1.5) * 2.2, y
    bar = 0.5 + 0.5 * math.sin(6.283 * garment.scale * across)
    stripe = 0.5 + 0.5 * math.sin(6.283 * garment.scale * down)
    if garment.pattern == 1:
        return smoothstep(0.35, 0.65, stripe)
    if garment.pattern == 2:
        return smoothstep(0.45, 0.75, bar)
    if garment.pattern == 3:
        return 0.5 * smoothstep(0.6, 0.8, bar) + 0.5 * smoothstep(0.6, 0.8, stripe)
    if garment.pattern == 4:
        size = 2.0 * garment.scale
        return smoothstep(0.62, 0.7, noise(size * x, size * y, size * z, seed))
    return 0.0


@kernel
def cloth_color(x: float, y: float, z: float, depth: float, garment: Garment, seed: int, out: np.ndarray) -> None:
    """Linear red, green, blue of a point at rest that lies `depth` decimeters below the edge of the cloth."""
    side, front = abs(x), smoothstep(0.1, 0.5, z)
    share = _pattern(x, y, z, garment, seed)
    shade = 1.0
    white = 0.0
    if garment.kind == JACKET:
        opening = 0.10 + 0.46 * (y - 4.9)
        inside = smoothstep(0.02, -0.02, side - opening) * front
        neck = smoothstep(0.16, 0.12, depth)
        white = max(inside, neck)
        lapel = bell(side - opening - 0.30 * smoothstep(4.9, 5.9, y), 0.02) * front
        shade *= 1.0 - 0.35 * lapel - 0.4 * bell(side - opening - 0.03, 0.03) * front * (1 - white)
        share *= 1.0 - white
    if garment.kind == SHIRT or (garment.kind == JACKET and white > 0.5):
        tip = 0.20 + 0.25 * smoothstep(0.36, 0.10, side) * front
        flap = smoothstep(0.02, -0.02, depth - tip)
        shade *= 1.0 - 0.35 * bell(depth - tip - 0.025, 0.03)
        gap = smoothstep(0.05, 0.02, side - 0.35 * max(depth, 0.0)) * front
        shade *= 1.0 - 0.4 * gap * flap
        shade *= 1.0 - 0.15 * bell(side - 0.14, 0.012) * front * (1 - flap)
        if garment.tie:
            wide = 0.085 + 0.03 * smoothstep(6.0, 5.5, y)
            tie = smoothstep(0.015, -0.015, side - wide) * front * smoothstep(0.03, 0.08, depth)
            share, white, shade = max(share, tie), white * (1 - tie), shade * (1 - 0.25 * tie)
    if garment.kind in (TEE, JUMPER):
        shade *= 1.0 - 0.30 * bell(depth - (0.08 + 0.1 * garment.knit), 0.014)
    folds = rough(2.2 * x + 0.8 * y, 1.1 * y, 2.2 * z, seed + 3)
    thread = rough(38 * x, 38 * y, 38 * z, seed + 4)
    if garment.kind == JUMPER:
        thread += 0.5 * math.sin(70.0 * math.atan2(x, z + 1.5))
    shade *= (1.0 + 0.5 * folds) * (1.0 + (0.06 + 0.2 * garment.knit) * thread)
    for k in range(3):
        value = garment.color[k] + (garment.second[k] - garment.color[k]) * share
        value = value * value * (1 - white) + 0.62 * white
        out[k] = max(value * shade, 0.002)


SCATTER = (0.34, 0.15, 0.08)  # how far the first lamp's light creeps round skin, by color
SOCKET = (0.55, 0.40, 0.36)  # color of what is behind the lids, a share of the skin's


class Lamps(NamedTuple):
    """Lamps as the shader needs them; the first one has a shadow map (as in `shading.Lighting`)."""

    directions: Float[np.ndarray, "L 3"]
    colors: Float[np.ndarray, "L 3"]
    sharpness: Float[np.ndarray, " L"]
    front: Float[np.ndarray, "3"]  # what a surface towards the camera gets from all but the first
    shadow: Float[np.ndarray, "M M"]
    shadow_axes: Float[np.ndarray, "3 3"]
    shadow_center: Float[np.ndarray, "3"]
    shadow_scale: float
    softness: float


@kernel
def _reached(lamps: Lamps, x: float, y: float, z: float) -> float:
    """How much of the first lamp reaches a point, 0..1."""
    size, axes = lamps.shadow.shape[0], lamps.shadow_axes
    dx, dy, dz = x - lamps.shadow_center[0], y - lamps.shadow_center[1], z - lamps.shadow_center[2]
    column = (dx * axes[0, 0] + dy * axes[0, 1] + dz * axes[0, 2]) * lamps.shadow_scale + 0.5 * size
    row = (dx * axes[1, 0] + dy * axes[1, 1] + dz * axes[1, 2]) * lamps.shadow_scale + 0.5 * size
    depth = -(dx * axes[2, 0] + dy * axes[2, 1] + dz * axes[2, 2])
    lit, total = 0.0, 0.0
    for i in range(4):
        for j in range(4):
            r, c = int(row + lamps.softness * (i - 1.5)), int(column + lamps.softness * (j - 1.5))
            if 0 <= r < size and 0 <= c < size:
                total += 1.0
                lit += min(max((0.13 - depth + lamps.shadow[r, c]) * 11.0, 0.0), 1.0)
    return lit / total if total > 0 else 1.0


@kernel
def shade_photo(
    surface: Surface, garment: Garment, frame: tuple, seed: int, lamps: Lamps, reached: Float[np.ndarray, "N 4"],
    camera: Float[np.ndarray, "3"], triangle: Int[np.ndarray, "H W"], weights: Float[np.ndarray, "H W 2"],
    depth: Float[np.ndarray, "H W"], soft_depth: Float[np.ndarray, "H W"], color: Float[np.ndarray, "H W 3"],
) -> None:  # fmt: skip
    """Write linear light to every covered sample; the others keep what is in `color` (the background).

    `reached` is what `environment.irradiance` gives for each vertex; the surface's texture and skin are linear.
    """
    base, normal, point, rest = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    view, lit, spread, shine = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(triangle.shape[0]):
        for j in range(triangle.shape[1]):
            f = triangle[i, j]
            if f < 0:
                continue
            w0, w1 = weights[i, j, 0], weights[i, j, 1]
            w2 = 1.0 - w0 - w1
            place_on_surface(surface, camera, f, w0, w1, w2, point, rest, normal, view)
            a, b, c = surface.triangles[f, 0], surface.triangles[f, 1], surface.triangles[f, 2]
            for k in range(3):
                lit[k] = w0 * reached[a, k] + w1 * reached[b, k] + w2 * reached[c, k]
            open_sky = w0 * reached[a, 3] + w1 * reached[b, 3] + w2 * reached[c, 3]
            facing = min(abs(normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]), 1.0)
            material = surface.material[f]
            gloss, exponent, wrap, dim, direct = 0.5, 14.0, 0.0, 1.0, 1.0
            if material in (SKIN, TORSO):
                cloth = cloth_depth(rest[0], rest[1], rest[2], surface.clothes)
                covered = smoothstep(-0.010, 0.010, cloth)
                wrap = 1.0
                if material == SKIN:
                    gloss = sample_texture(surface, f, w0, w1, w2, base)
                else:
                    for k in range(3):
                        base[k] = surface.skin[k]
                if covered > 0:
                    cloth_color(rest[0], rest[1], rest[2], cloth, garment, seed, spread)
                    for k in range(3):
                        base[k] += (spread[k] - base[k]) * covered
                    gloss, wrap = gloss * (1 - covered) + 0.04 * covered, 1.0 - covered
                else:
                    dim *= 1.0 - 0.35 * bell(cloth, 0.06)
            elif material in (LEFT_EYE, RIGHT_EYE):
                angle, around, ey = place_in_eye(surface, material - LEFT_EYE, rest)
                eye_color(angle, around, surface.iris, base)
                for k in range(3):
                    base[k] = 0.75 * base[k] ** 2.0
                gloss, exponent, wrap = 1.0, 220.0, 0.5
                lid = 0.55 + 0.45 * smoothstep(0.085, -0.02, ey)
                for k in range(3):
                    lit[k] = lid * (0.4 * lit[k] + 0.45 * lamps.front[k])
                open_sky, direct = 0.8, 0.9 * lid
            elif material in (UPPER_TEETH, LOWER_TEETH, TONGUE, MOUTH):
                if material in (UPPER_TEETH, LOWER_TEETH):
                    gap = abs((abs(rest[0]) + 0.001) % 0.066 - 0.033)
                    line = 1.0 - 0.25 * smoothstep(0.024, 0.033, gap)
                    base[0], base[1], base[2] = 0.56 * line, 0.48 * line, 0.37 * line
                    gloss, exponent = 1.0, 40.0
                    deep = 0.14 + 0.42 * smoothstep(1.1, 1.42, rest[2])
                    deep *= 0.75 if material == LOWER_TEETH else 1.0
                else:
                    base[0], base[1], base[2] = 0.26, 0.075, 0.065
                    deep = 0.02 + 0.22 * smoothstep(0.9, 1.5, rest[2])
                    deep = 0.10 + 1.3 * deep if material == TONGUE else deep
                    gloss, wrap = 0.4, 0.5
                for k in range(3):
                    lit[k] = deep * (lamps.front[k] + 0.4 * lamps.colors[0, k])
                direct, open_sky = 0.35 * deep, deep
            elif material == FRAME:
                for k in range(3):
                    base[k] = frame[k]
                gloss, exponent = 2.5, 60.0
            else:
                for k in range(3):
                    base[k] = surface.skin[k] * SOCKET[k]
            hollow = min(max(depth[i, j] - soft_depth[i, j], 0.0), 0.25)
            dim *= 1.0 - (0.5 if material in (LEFT_EYE, RIGHT_EYE) else 1.6) * hollow
            fresnel = 0.045 + 0.55 * (1.0 - facing) ** 5
            reach = _reached(lamps, point[0], point[1], point[2]) * direct
            for k in range(3):
                shine[k] = fresnel * 0.35 * gloss * lit[k]
            for n in range(lamps.directions.shape[0]):
                lx, ly, lz = lamps.directions[n, 0], lamps.directions[n, 1], lamps.directions[n, 2]
                cosine = normal[0] * lx + normal[1] * ly + normal[2] * lz
                seen = reach if n == 0 else open_sky
                if n == 0:
                    for k in range(3):
                        creep = SCATTER[k] * wrap
                        edge = seen + (1.0 - seen) * 0.6 * creep
                        lit[k] += lamps.colors[0, k] * max(cosine + creep, 0.0) / (1.0 + creep) ** 2 * edge
                if cosine <= 0.0:
                    continue
                hx, hy, hz = lx + view[0], ly + view[1], lz + view[2]
                half = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
                mirror = max((normal[0] * hx + normal[1] * hy + normal[2] * hz) * half, 0.0)
                # A wide lamp widens its highlight.
                power = (
                    exponent if n == 0 else exponent * 6.0 * lamps.sharpness[n] / (exponent + 6.0 * lamps.sharpness[n])
                )
                glare = mirror**power * (power + 4.0) / 8.0 * seen * gloss * fresnel * min(4.0 * cosine, 1.0)
                for k in range(3):
                    shine[k] += glare * lamps.colors[n, k]
            for k in range(3):
                color[i, j, k] = (base[k] * lit[k] + shine[k]) * dim


@kernel
def light_hair(
    points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"], reached: Float[np.ndarray, "N 4"],
    color: Float[np.ndarray, "N 3"], lamps: Lamps, camera: Float[np.ndarray, "3"], lit: Float[np.ndarray, "N 3"],
) -> None:  # fmt: skip
    """Linear light from hair of linear color that hangs down along the surface (Kajiya and Kay's hair)."""
    for i in range(points.shape[0]):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        vx, vy, vz = camera[0] - points[i, 0], camera[1] - points[i, 1], camera[2] - points[i, 2]
        length = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * length, vy * length, vz * length
        tx, ty, tz = ny * nx, ny * ny - 1.0, ny * nz
        length = 1.0 / math.sqrt(tx * tx + ty * ty + tz * tz + 1e-9)
        tx, ty, tz = tx * length, ty * length, tz * length
        reach = _reached(lamps, points[i, 0] + 0.08 * nx, points[i, 1] + 0.08 * ny, points[i, 2] + 0.08 * nz)
        for k in range(3):
            lit[i, k] = color[i, k] * reached[i, k]
        for n in range(lamps.directions.shape[0]):
            lx, ly, lz = lamps.directions[n, 0], lamps.directions[n, 1], lamps.directions[n, 2]
            along = lx * tx + ly * ty + lz * tz
            facing = min(max(0.35 + 0.65 * (nx * lx + ny * ly + nz * lz), 0.0), 1.0)
            seen = reach if n == 0 else reached[i, 3]
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            half = (hx * tx + hy * ty + hz * tz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
            glare = max(1.0 - half * half, 0.0) ** 14 * facing * seen
            diffuse = math.sqrt(max(1.0 - along * along, 0.0)) * facing * seen if n == 0 else 0.0
            for k in range(3):
                light = lamps.colors[n, k]
                lit[i, k] += light * (color[i, k] * (diffuse + 0.9 * glare) + 0.025 * glare)
