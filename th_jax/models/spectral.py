"""Spectral norm as pure functions of parameter trees: one power iteration per parameter update (docs/paper-map.md).

A parameter tree has a kernel at some path; the tree of spectral stats has `u` and `v` at the same path. M is the kernel
reshaped to [inputs, features]; u approximates its first right singular vector, v its first left one.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.types import NetworkState, Params

SPECTRAL_STATS = "spectral_stats"
"""Name of the Flax collection that holds u and v."""

SPECTRAL_NORM_EPS = 1e-4
"""Minimum length that a vector is divided by, and minimum sigma: a zero kernel stays zero instead of becoming NaN."""


def unit_vector(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Compute x / max(|x|, eps)."""
    return x / jnp.maximum(jnp.linalg.norm(x), SPECTRAL_NORM_EPS)


def normalized_kernel(
    kernel: Float[Array, "*inputs features"], u: Float[Array, " features"], v: Float[Array, " rows"]
) -> Float[Array, "*inputs features"]:
    """Divide a kernel by sigma = vᵀ M u; the gradient passes through sigma but not through u and v."""
    u, v = jax.lax.stop_gradient(u), jax.lax.stop_gradient(v)
    sigma = v @ kernel.reshape(-1, kernel.shape[-1]) @ u
    return kernel / jnp.maximum(sigma, SPECTRAL_NORM_EPS)


@jax.jit  # traced once for each shape: a network has many layers of few shapes
def fitting_vectors(
    kernel: Float[Array, "*inputs features"], start: Float[Array, " features"]
) -> tuple[Float[Array, " features"], Float[Array, " rows"]]:
    """Fit u and v to a kernel by one power iteration from a random direction; exact if all singular values are equal.

    This is the case for a fresh kernel, which is orthogonal. For any other kernel, sigma is then a considerable fraction of
    the largest singular value instead of nearly zero.
    """
    u, v = _iterate_once(jax.lax.stop_gradient(kernel).reshape(-1, kernel.shape[-1]), start, start)
    return u, v


def power_iterate(params: Params, spectral_stats: Params, *, iterations: int = 1) -> dict[str, Any]:
    """Update spectral stats by `iterations` power iterations on every spectrally normalized kernel.

    Args:
        params: parameters of one network, or of several under their names.
        spectral_stats: u and v at the paths of their kernels.
        iterations: one per parameter update in training; 20 before averaged weights are evaluated, saved or exported.

    Raises:
        ValueError: if the stats name a layer that the parameters do not have.
    """
    if _is_layer(spectral_stats):
        if "kernel" not in params:
            raise ValueError(f"spectral stats require a layer with a kernel, but the layer has {sorted(params)}")
        kernel = params["kernel"]
        matrix = jax.lax.stop_gradient(kernel).reshape(-1, kernel.shape[-1])
        iterate = _iterate_once if iterations == 1 else functools.partial(_iterate_often, iterations=iterations)
        u, v = iterate(matrix, spectral_stats["u"], spectral_stats["v"])
        return {"u": u, "v": v}
    if missing := sorted(set(spectral_stats) - set(params)):
        raise ValueError(f"spectral stats and parameters belong to different networks: no parameters for {missing}")
    return {name: power_iterate(params[name], below, iterations=iterations) for name, below in spectral_stats.items()}


def fold_spectral_norm(state: NetworkState) -> Params:
    """Divide every kernel by its sigma, for networks built with `spectral_norm=False`.

    Inference and export use these parameters: the program contains no division, and u and v are not needed.
    """
    return _fold(state.params, state.spectral_stats)


def _iterate_once(matrix: Array, u: Array, _: Array) -> tuple[Array, Array]:
    v = unit_vector(matrix @ u)
    return unit_vector(v @ matrix), v


# A loop, because twenty copies of every layer's products would take ten times as long to compile. A jitted program of its own,
# because otherwise each layer's loop would be compiled at each call.
@functools.partial(jax.jit, static_argnames="iterations")
def _iterate_often(matrix: Array, u: Array, v: Array, *, iterations: int) -> tuple[Array, Array]:
    return jax.lax.fori_loop(0, iterations, lambda _, vectors: _iterate_once(matrix, *vectors), (u, v))


def _fold(params: Params, stats: Params) -> dict[str, Any]:
    if _is_layer(stats):
        return {**params, "kernel": normalized_kernel(params["kernel"], stats["u"], stats["v"])}
    return {name: _fold(below, stats[name]) if name in stats else below for name, below in params.items()}


def _is_layer(stats: Params) -> bool:
    return set(stats) == {"u", "v"} and not isinstance(stats["u"], Mapping)
