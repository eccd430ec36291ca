"""Gradient accumulation: a batch in slices, one after the other, with the result of the whole batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def sliced(batch: Any, slices: int) -> Any:
    """Every leaf [B, …] as [slices, B / slices, …]; slice s takes the episodes s, s + slices, ….

    With strides, and not in blocks, each device of a sharded batch keeps its own episodes in every slice.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // slices, slices, *x.shape[1:]), 1, 0), batch)


def joined(batch: Any) -> Any:
    """The inverse of `sliced`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), batch)


def accumulate(function: Callable[..., tuple[Any, Any]], batch: Any, *, slices: int) -> tuple[Any, Any]:
    """`function` over all slices of a batch.

    Args:
        function: of one slice of `batch` to a pair: a tree of means over its episodes, which are averaged over the slices,
            and a tree of leaves with one entry an episode, which are joined again.
        batch: a tree of leaves [B, …]; `slices` divides B.
        slices: 1 calls the function on the batch as it is, without a loop.
    """
    if slices == 1:
        return function(batch)
    parts = sliced(batch, slices)
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        means, episodes = function(part)
        return jax.tree.map(lambda a, b: a + b / slices, total, means), episodes

    means, episodes = jax.lax.scan(add, zeros, parts)
    return means, joined(episodes)
