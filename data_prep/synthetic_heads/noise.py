"""Smooth steps and lattice noise for compiled drawing code."""

import math

import numpy as np

from data_prep.synthetic_heads.compiled import kernel


@kernel
def smoothstep(start: float, end: float, value: float) -> float:
    """0 before `start`, 1 after `end`, smooth between; `start` may be the larger one."""
    t = min(max((value - start) / (end - start), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@kernel
def bell(distance: float, width: float) -> float:
    """A Gaussian bump of height 1."""
    scaled = distance / width
    return math.exp(-scaled * scaled)


@kernel
def _lattice(x: int, y: int, z: int, seed: int) -> float:
    value = np.uint32(x * 374761393 + y * 668265263 + z * 2147483647 + seed * 1274126177)
    value = np.uint32((value ^ (value >> np.uint32(13))) * np.uint32(1274126177))
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(668265263))
    return float((value ^ (value >> np.uint32(15))) & np.uint32(0xFFFF)) / 65535.0


@kernel
def noise(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in 0..1 with a feature size of 1."""
    ix, iy, iz = math.floor(x), math.floor(y), math.floor(z)
    fx, fy, fz = x - ix, y - iy, z - iz
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for corner in range(8):
        dx, dy, dz = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
        total += weight * _lattice(ix + dx, iy + dy, iz + dz, seed)
    return total


@kernel
def rough(x: float, y: float, z: float, seed: int) -> float:
    """Two octaves of `noise`, centred on 0, in about -0.5..0.5."""
    return 0.67 * noise(x, y, z, seed) + 0.33 * noise(2.1 * x, 2.1 * y, 2.1 * z, seed + 7) - 0.5
