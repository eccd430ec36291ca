"""Quantized differences between two parameter trees, in float16 or in int8 with one scale per output channel. NumPy only.

Fine-tuning changes kernels little, so that their differences need fewer bits than the kernels themselves. Parameters
with fewer than two dimensions (biases, norms) are kept in float32, as they make up less than one percent of the whole.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int8

Bits = Literal["float16", "int8"]

_DIFFERENCE, _SCALE, _WHOLE = "difference/", "scale/", "whole/"
_LEVELS = 127


def encode_difference(
    changed: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], *, bits: Bits
) -> dict[str, np.ndarray]:
    """Encode parameters as tensors from which `decode_difference` restores them approximately.

    Both have the same names and shapes; `bits` is the type of the kernels' differences.

    Raises:
        ValueError: if the type is unknown or a difference overflows it.
    """
    if bits not in ("float16", "int8"):
        raise ValueError(f'bits must be "float16" or "int8", got {bits!r}')
    stored: dict[str, np.ndarray] = {}
    for name, leaf in changed.items():
        if leaf.ndim < 2:
            stored[_WHOLE + name] = np.asarray(leaf, np.float32, order="C")
            continue
        difference = np.asarray(leaf, np.float32) - np.asarray(base[name], np.float32)
        if bits == "int8":
            stored[_DIFFERENCE + name], stored[_SCALE + name] = quantize(difference)
        else:
            with np.errstate(over="ignore"):
                stored[_DIFFERENCE + name] = difference.astype(np.float16)
        if not np.isfinite(stored[_DIFFERENCE + name]).all():
            raise ValueError(f"the difference of {name} is not finite in {bits}")
    return stored


def decode_difference(stored: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Restore parameters in float32 by adding the stored differences to `base`.

    Raises:
        ValueError: if a leaf of `base` is not stored or has another shape; the message names the first one.
    """
    return {name: _restored(name, stored, np.asarray(leaf, np.float32)) for name, leaf in base.items()}


def quantize(x: Float32[np.ndarray, "*rows F"]) -> tuple[Int8[np.ndarray, "*rows F"], Float32[np.ndarray, " F"]]:
    """Quantize to integers in [-127, 127] and return them with the step size for each entry of the last dimension."""
    scale = (np.abs(x).max(axis=tuple(range(x.ndim - 1)), initial=0.0) / _LEVELS).astype(np.float32)
    steps = np.rint(x / np.where(scale > 0, scale, 1.0).astype(np.float32))
    return np.clip(steps, -_LEVELS, _LEVELS).astype(np.int8), scale


def _restored(name: str, stored: Mapping[str, np.ndarray], base: Float[np.ndarray, "..."]) -> np.ndarray:
    shapes = {_WHOLE + name: base.shape} if base.ndim < 2 else {_DIFFERENCE + name: base.shape}
    if base.ndim >= 2 and getattr(stored.get(_DIFFERENCE + name), "dtype", None) == np.int8:
        shapes[_SCALE + name] = base.shape[-1:]
    for key, shape in shapes.items():
        found = stored[key].shape if key in stored else None
        if found != shape:
            raise ValueError(f"{key} must be {list(shape)}, but is {'missing' if found is None else list(found)}")
    if base.ndim < 2:
        return stored[_WHOLE + name].astype(np.float32)
    difference = stored[_DIFFERENCE + name].astype(np.float32)
    return base + difference * stored.get(_SCALE + name, np.float32(1.0))
