"""Initialization of larger networks from trained weights for smaller frames, copying all parameters that fit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from th_jax.models.networks import Networks
from th_jax.storage.tensors import leaf_name, leaves_by_name
from th_jax.types import MetaWeights


class Grown(NamedTuple):
    """Weights of the larger networks, and the names of their new parameters."""

    weights: MetaWeights
    fresh: tuple[str, ...]
    """Names of the parameters that the smaller networks do not have in this shape; they have their initial values."""


def grow(smaller: Networks, weights: MetaWeights, larger: Networks, key: PRNGKeyArray) -> Grown:
    """Initialize `larger` from the weights of `smaller`.

    Self-attention is initialized with gamma 0, so a block that is new, or that follows other features, initially adds nothing.
    If `larger.embedder_size` equals the image size that E was trained with, the embedding, P and the video table stay valid,
    and only G and D have to adapt (docs/learning.md).

    Args:
        smaller: networks that `weights` belong to.
        weights: trained weights.
        larger: networks to initialize, of the same base width and pooling.
        key: random key for the initial values of new parameters.

    Raises:
        ValueError: if the networks differ in the meaning of a parameter, so that copied values would be useless, or `larger`
            has a smaller image size.
    """
    for name in ("base_width", "pool", "pool_order", "projection_spectral_norm", "spectral_norm"):
        old, new = getattr(smaller, name), getattr(larger, name)
        if old != new:
            raise ValueError(f"weights can only grow to networks with the same {name}, got {old!r} and {new!r}")
    if larger.image_size < smaller.image_size:
        raise ValueError(f"weights for {smaller.image_size} px cannot be reduced to {larger.image_size} px")
    shapes, old_leaves = leaves_by_name(larger.shapes()), leaves_by_name(weights)
    fresh_layers = {
        _layer(name) for name, new in shapes.items() if name not in old_leaves or old_leaves[name].shape != new.shape
    }
    fresh = tuple(name for name in shapes if _layer(name) in fresh_layers)

    def start(path: tuple[Any, ...], initial: Array) -> Array:
        name = leaf_name(path)
        return initial if name in fresh else jnp.asarray(np.asarray(old_leaves[name]))

    grown: MetaWeights = jax.tree_util.tree_map_with_path(start, larger.init(key))
    return Grown(grown, fresh)


def _layer(name: str) -> str:
    """Return the unit that is copied as a whole or not at all: an attention block, or a layer with its u and v."""
    group, _, *modules, _ = name.split("/")
    attention = [place for place, module in enumerate(modules) if module.startswith("attention")]
    return "/".join([group, *(modules[: attention[0] + 1] if attention else modules)])
