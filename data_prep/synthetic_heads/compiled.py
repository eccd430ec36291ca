"""Compiles the renderer's inner loops, and keeps the programs until any of its sources changes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_HERE = Path(__file__).parent
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_HERE.glob("*.py")))).hexdigest()[:12]


def kernel(function: Callable) -> Any:
    """Compile a function for floats and arrays; division follows IEEE 754.

    Programs are kept in NUMBA_CACHE_DIR, or beside this file. Numba alone would compile a function again when its own
    file changes, but not when a kernel or a constant that it takes from another file does: hence a folder a state of
    the sources.
    """
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or _HERE / "__pycache__") / f"heads-{_SOURCES}")
    try:
        return numba.njit(cache=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})(function)
    finally:
        config.CACHE_DIR = before
