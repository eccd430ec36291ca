"""Validation of network inputs and settings: shapes, dtypes, ranges and names, with errors that name the argument."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from th_jax.storage.tensors import leaves_by_name

T = TypeVar("T")

_SLACK = 1e-3  # tolerance for resampling and rounding


def check_picture(name: str, picture: Array, *, size: int) -> None:
    """Check a batch of square images in [-1, 1].

    Values are checked only outside of a trace, because tracers inside jit have no values.

    Raises:
        ValueError: if the shape is wrong or values are outside of [-1, 1].
        TypeError: if the dtype is not floating point.
    """
    shape = tuple(picture.shape)
    if len(shape) != 4 or shape[1:] != (size, size, 3):
        raise ValueError(f"{name} must be [B, {size}, {size}, 3] for networks of {size} px, got {shape}")
    if not jnp.issubdtype(picture.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating point in [-1, 1], got {picture.dtype}; th_jax.images.to_network_range "
            "converts uint8 frames"
        )
    if isinstance(picture, jax.core.Tracer) or picture.size == 0:
        return
    values = np.asarray(picture)  # on the host, because a concrete array may be passed within a caller's trace
    low, high = float(values.min()), float(values.max())
    if not (low >= -1.0 - _SLACK and high <= 1.0 + _SLACK):  # written so that NaN fails, too
        raise ValueError(f"{name} must be in [-1, 1], but ranges from {low:g} to {high:g}")


def check_vector(name: str, vector: Array, *, width: int) -> None:
    """Check a batch of vectors of `width` numbers.

    Raises:
        ValueError: if the shape is wrong.
    """
    shape = tuple(vector.shape)
    if len(shape) != 2 or shape[1] != width:
        raise ValueError(f"{name} must be [B, {width}] for these networks, got {shape}")


def check_same_tree(what: str, wanted: Mapping[str, object], found: Mapping[str, object]) -> None:
    """Check that parameters have the names and shapes of the network they are used with.

    Args:
        what: name of the network, for the error message.
        wanted: parameters or shapes of the network.
        found: parameters to check.

    Raises:
        ValueError: naming the first parameters that are missing, unknown or of a wrong shape.
    """
    wanted_shapes, found_shapes = _flat_shapes(wanted), _flat_shapes(found)
    if wanted_shapes == found_shapes:
        return
    missing = sorted(set(wanted_shapes) - set(found_shapes))
    unknown = sorted(set(found_shapes) - set(wanted_shapes))
    changed = sorted(k for k in set(wanted_shapes) & set(found_shapes) if wanted_shapes[k] != found_shapes[k])
    parts = [f"{label} {_first(names)}" for label, names in (("missing", missing), ("unknown", unknown)) if names]
    if changed:
        name = changed[0]
        parts.append(f"{name} is {found_shapes[name]} instead of {wanted_shapes[name]}")
    raise ValueError(f"these are not the weights of {what}: {'; '.join(parts)}")


def check_setting_names(what: str, known: Iterable[str], found: Iterable[str]) -> None:
    """Check that every key of a config section is a known setting.

    Args:
        what: name of the section, for the error message.
        known: names of all settings.
        found: keys of the section.

    Raises:
        ValueError: naming the first unknown key, the nearest known one and all known ones.
    """
    known = list(known)
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{key!r} is not a setting of {what}{hint} (known: {', '.join(known)})")


def construct(constructor: Callable[..., T], settings: Mapping[str, Any], *, what: str) -> T:
    """Call a constructor with a config section whose keys are its arguments.

    Args:
        constructor: class or function; it checks the values itself.
        settings: the section.
        what: name of the section, for the error message.

    Raises:
        ValueError: if a key is unknown (the message suggests the nearest known one), or a required one is missing.
    """
    parameters = inspect.signature(constructor).parameters
    check_setting_names(what, parameters, settings)
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    if missing := [name for name in required if name not in settings]:
        raise ValueError(f"{what} must have the setting {', '.join(missing)}")
    try:
        return constructor(**settings)
    except TypeError as error:
        raise ValueError(f"{what} cannot be built from {dict(settings)}: {error}") from error


def _flat_shapes(tree: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in leaves_by_name(tree).items()}


def _first(names: list[str], count: int = 3) -> str:
    """Return the first names, quoted: names read from files may contain terminal control characters."""
    return ", ".join(repr(name[:100]) for name in names[:count]) + (
        f" and {len(names) - count} more" if len(names) > count else ""
    )
