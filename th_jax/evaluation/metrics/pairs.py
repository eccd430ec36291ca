"""Checks two batches that are compared picture by picture, and decides where and how exactly they are measured."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

AnyArray = Array | np.ndarray
Images = Float[AnyArray, "B H W C"]
Values = Float[AnyArray, " B"]


def comparable(one: Any, other: Any, what: str) -> tuple[ModuleType, Any, Any]:
    """numpy with both arrays in float64; if one is a jax array, jax.numpy with both in their precision, at least float32.

    Raises:
        TypeError: if one is not floating point: integers overflow in differences.
        ValueError: if the shapes differ.
    """
    on_device = isinstance(one, jax.Array) or isinstance(other, jax.Array)
    xp: ModuleType = jnp if on_device else np
    for array in (one, other):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"{what} must be floating point, but came as {array.dtype}; divide uint8 pictures by 255.0 first"
            )
    if one.shape != other.shape:
        raise ValueError(
            f"{what} must have one shape to be compared, but have {list(one.shape)} and {list(other.shape)}"
        )
    if on_device:
        dtype = jnp.promote_types(jnp.result_type(one, other), jnp.float32)
        return xp, jnp.asarray(one, dtype), jnp.asarray(other, dtype)
    return xp, one.astype(np.float64), other.astype(np.float64)


def comparable_images(one: Any, other: Any) -> tuple[ModuleType, Any, Any]:
    """As `comparable`, for batches of pictures.

    Raises:
        TypeError: if one is not floating point.
        ValueError: if the shapes differ, or are no batches of pictures.
    """
    xp, one, other = comparable(one, other, "pictures")
    if one.ndim != 4:
        raise ValueError(f"pictures must be [B, H, W, C], but have the shape {list(one.shape)}")
    return xp, one, other


def mean_of_each(xp: ModuleType, values: Any) -> Any:
    """The mean of each entry along the first dimension; rows are summed alone, so the batch changes no bit on the host."""
    return xp.mean(xp.reshape(values, (values.shape[0], -1)), axis=1)


def check_data_range(data_range: float) -> None:
    """The distance of the brightest from the darkest possible value.

    Raises:
        ValueError: if it is no positive number.
    """
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be above 0, 1.0 for pictures in [0, 1], but is {data_range}")
