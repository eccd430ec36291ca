"""Where every parameter starts (docs/paper-map.md).

The laws stand here twice: as initialisers that Flax modules name, and as `draw`, the same laws drawn on the host. Whole
networks start by the second: the first compile one program for each of about a hundred shapes, half a minute at paper
size on two cores, where LAPACK needs two seconds.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import initializers
from jaxtyping import Float

Start = Callable[..., Array]
"""(key, shape) -> float32 array."""

_SHARED_DEVIATION = 0.02

KERNEL: Start = initializers.orthogonal()
"""Orthogonal: with torch's default uniform start the identity reaches AdaIN at a tenth of the size (docs/paper-map.md)."""

BIAS: Start = initializers.zeros
SCALE: Start = initializers.ones
GAMMA: Start = initializers.zeros
SHARED: Start = initializers.normal(_SHARED_DEVIATION)
"""The discriminator's shared vector w0; the rows of the video table W follow the same law."""


def direction(key: Array, shape: Sequence[int]) -> Float[Array, " n"]:
    """A random unit vector: where u and v begin."""
    x = jax.random.normal(key, shape, jnp.float32)
    return x / jnp.linalg.norm(x)


def draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """One parameter by its name ("kernel", "bias", "scale", "gamma", "shared", "u", "v"), float32.

    Raises:
        KeyError: for a name without a law.
    """
    return _LAWS[name](shape, rng).astype(np.float32, copy=False)


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    columns = shape[-1]
    rows = int(np.prod(shape[:-1]))
    normal = rng.standard_normal((max(rows, columns), min(rows, columns)), np.float32)
    if normal.shape[0] >= 2 * normal.shape[1]:
        # Far from square a Gaussian matrix is so well conditioned that Cholesky's factor of its Gram matrix serves: the
        # same Q as Gram and Schmidt's, to 1e-6, in a tenth of the time. Inverting the small factor leaves one product.
        factor = np.linalg.cholesky(normal.T @ normal)
        q = normal @ np.linalg.inv(factor).T
    else:
        q, r = np.linalg.qr(normal)
        q *= np.sign(np.diagonal(r))  # LAPACK leaves signs open; these make the law uniform
    return (q if rows >= columns else q.T).reshape(shape)


def _unit(shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    x = rng.standard_normal(shape, np.float32)
    return x / np.linalg.norm(x)


_LAWS: dict[str, Callable[[tuple[int, ...], np.random.Generator], np.ndarray]] = {
    "kernel": _orthogonal,
    "bias": lambda shape, rng: np.zeros(shape),
    "scale": lambda shape, rng: np.ones(shape),
    "gamma": lambda shape, rng: np.zeros(shape),
    "shared": lambda shape, rng: _SHARED_DEVIATION * rng.standard_normal(shape, np.float32),
    "u": _unit,
    "v": _unit,
}
