"""Compilation of the renderer's inner loops, and the functions that they share: smooth steps and lattice noise."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

_HERE = Path(__file__).parent
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_HERE.glob("*.py")))).hexdigest()[:12]


def kernel(function: Callable) -> Any:
    """Compile a function for floats and arrays; division follows IEEE 754.

    Programs are cached in NUMBA_CACHE_DIR, or beside this file. Numba invalidates its cache when a function's own file
    changes, but not when a kernel or constant from another file does; hence a cache folder per state of the sources.
    """
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or _HERE / "__pycache__") / f"heads-{_SOURCES}")
    try:
        return numba.njit(cache=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})(function)
    finally:
        config.CACHE_DIR = before


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
    """Two octaves of `noise`, centered on 0, in about -0.5..0.5."""
    return 0.67 * noise(x, y, z, seed) + 0.33 * noise(2.1 * x, 2.1 * y, 2.1 * z, seed + 7) - 0.5
