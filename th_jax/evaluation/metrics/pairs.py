"""Validates two batches that are compared image by image, and selects the array library and precision."""

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
    """Select the array library for two arrays, and convert them to a common precision.

    Returns:
        numpy with both arrays in float64; if one is a JAX array, jax.numpy with both in their own precision, at least
        float32.

    Raises:
        TypeError: if one is not floating point, because differences of integers overflow.
        ValueError: if the shapes differ.
    """
    on_device = isinstance(one, jax.Array) or isinstance(other, jax.Array)
    xp: ModuleType = jnp if on_device else np
    for array in (one, other):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{what} must be floating point, got {array.dtype}; divide uint8 images by 255.0 first")
    if one.shape != other.shape:
        raise ValueError(f"{what} must have the same shape, got {list(one.shape)} and {list(other.shape)}")
    if on_device:
        dtype = jnp.promote_types(jnp.result_type(one, other), jnp.float32)
        return xp, jnp.asarray(one, dtype), jnp.asarray(other, dtype)
    return xp, one.astype(np.float64), other.astype(np.float64)


def comparable_images(one: Any, other: Any) -> tuple[ModuleType, Any, Any]:
    """Prepare batches of images as `comparable` does.

    Raises:
        TypeError: if one is not floating point.
        ValueError: if the shapes differ, or are not those of image batches.
    """
    xp, one, other = comparable(one, other, "images")
    if one.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], got {list(one.shape)}")
    return xp, one, other


def mean_of_each(xp: ModuleType, values: Any) -> Any:
    """Compute the mean of each entry along the first dimension, bit for bit independent of the batch on the host."""
    return xp.mean(xp.reshape(values, (values.shape[0], -1)), axis=1)


def check_data_range(data_range: float) -> None:
    """Check the difference between the largest and smallest possible pixel value.

    Raises:
        ValueError: if it is not a positive number.
    """
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be above 0 (1.0 for images in [0, 1]), got {data_range}")
