"""Initialization of larger networks from trained weights for smaller frames, copying all parameters that fit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from th_jax.models.networks import Networks
from th_jax.models.spectral import SPECTRAL_STATS
from th_jax.storage.tensors import leaf_name, leaves_by_name
from th_jax.types import MetaWeights

_WIDENED = ("down_0/conv_0", "down_0/skip", "projection/dense")
"""Layers of networks with an outer block that have more inputs, or outputs, than those of the core."""

_PROJECTION = "synthesis/params/projection/"


class Grown(NamedTuple):
    """Weights of the larger networks, and the names of their new parameters."""

    weights: MetaWeights
    fresh: tuple[str, ...]
    """Names of the parameters that the smaller networks do not have in this shape; they have their initial values."""


def grow(smaller: Networks, weights: MetaWeights, larger: Networks, key: PRNGKeyArray) -> Grown:
    """Initialize `larger` from the weights of `smaller`.

    Self-attention is initialized with gamma 0, so a block that is new, or that follows other features, initially adds nothing.
    If `larger.embedder_size` equals the image size that E was trained with, the embedding, P and the video table stay valid,
    and only G and D have to adapt (docs/learning.md). If `larger` has an outer block (`max_width`) around networks of the
    smaller size, it initially computes the same functions of the images at half the size: the new channels that enter a
    layer begin with zeros, and the finer image is added with a weight of 0.

    Args:
        smaller: networks that `weights` belong to.
        weights: trained weights.
        larger: networks to initialize, of the same pooling, and the same base width but for an outer block.
        key: random key for the initial values of new parameters.

    Raises:
        ValueError: if the networks differ in the meaning of a parameter, so that copied values would be useless, or `larger`
            has a smaller image size; for an outer block, if `smaller` has another one or P has spectral norm.
    """
    for name in ("base_width", "pool", "pool_order", "projection_spectral_norm", "spectral_norm"):
        old, new = getattr(smaller, name), getattr(larger, name)
        if name == "base_width":
            old, new = smaller.plan.generator_down[0], larger.plan.generator_down[0]
        if old != new:
            raise ValueError(f"weights can only grow to networks with the same {name}, got {old!r} and {new!r}")
    added = larger.plan.outer != smaller.plan.outer
    if smaller.plan.outer and added:
        raise ValueError("weights of networks with an outer block can only grow to networks with the same outer block")
    if added and larger.projection_spectral_norm:
        raise ValueError("P must have no spectral norm to get parameters for an outer block: its sigma would change")
    if larger.image_size < smaller.image_size:
        raise ValueError(f"weights for {smaller.image_size} px cannot be reduced to {larger.image_size} px")
    shapes, old_leaves = leaves_by_name(larger.shapes()), leaves_by_name(weights)
    widened = {name for name in shapes if added and _layer(name).endswith(_WIDENED) and name in old_leaves}
    fresh_layers = {
        _layer(name)
        for name, new in shapes.items()
        if name not in widened and (name not in old_leaves or old_leaves[name].shape != new.shape)
    }
    fresh = tuple(name for name in shapes if _layer(name) in fresh_layers)

    def start(path: tuple[Any, ...], initial: Array) -> Array:
        name = leaf_name(path)
        if name in fresh:
            return initial
        old = jnp.asarray(np.asarray(old_leaves[name]))
        if old.shape == initial.shape:
            return old
        if name.startswith(_PROJECTION):  # more AdaIN parameters, after those of the core
            return jnp.concatenate([old, initial[..., old.shape[-1] :]], axis=-1)
        if old.ndim > 1:  # a kernel with more inputs
            return jnp.pad(old, [(0, more - size) for size, more in zip(old.shape, initial.shape, strict=True)])
        inputs = old_leaves[name.replace(SPECTRAL_STATS, "params").removesuffix("/v") + "/kernel"].shape[:-1]
        more = initial.shape[0] // (inputs[0] * inputs[1]) - inputs[2]
        return jnp.pad(old.reshape(inputs), [(0, 0), (0, 0), (0, more)]).reshape(-1)

    grown: MetaWeights = jax.tree_util.tree_map_with_path(start, larger.init(key))
    return Grown(grown, fresh)


def _layer(name: str) -> str:
    """Return the unit that is copied as a whole or not at all: an attention block, or a layer with its u and v."""
    group, _, *modules, _ = name.split("/")
    attention = [place for place, module in enumerate(modules) if module.startswith("attention")]
    return "/".join([group, *(modules[: attention[0] + 1] if attention else modules)])
