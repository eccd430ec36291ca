"""Clothes sample by sample: cloth with patterns and folds, shirts with collars, jackets over shirts."""

import math

import numpy as np

from data_prep.synthetic_heads.compiled import kernel
from data_prep.synthetic_heads.noise import bell, noise, rough, smoothstep
from data_prep.synthetic_heads.photo import Garment

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
def cloth_colour(x: float, y: float, z: float, depth: float, garment: Garment, seed: int, out: np.ndarray) -> None:
    """Linear red, green, blue of a point at rest that lies `depth` decimetres below the edge of the cloth."""
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
        value = garment.colour[k] + (garment.second[k] - garment.colour[k]) * share
        value = value * value * (1 - white) + 0.62 * white
        out[k] = max(value * shade, 0.002)
