"""Parameter initializers (docs/paper-map.md).

The distributions exist twice: as initializers that Flax modules refer to, and as `draw`, which draws on the host. Whole
networks are initialized by `draw`: the Flax initializers compile one program for each of about a hundred shapes, which takes
half a minute at paper size on two cores, where LAPACK needs two seconds.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import initializers
from jaxtyping import Float

Start = Callable[..., Array]
"""Maps (key, shape) to a float32 array."""

_SHARED_DEVIATION = 0.02

KERNEL: Start = initializers.orthogonal()
"""Orthogonal. With PyTorch's default (uniform), the identity reaches AdaIN at a tenth of the scale (docs/paper-map.md)."""

BIAS: Start = initializers.zeros
SCALE: Start = initializers.ones
GAMMA: Start = initializers.zeros
SHARED: Start = initializers.normal(_SHARED_DEVIATION)
"""The discriminator's shared vector w0; the rows of the video table W have the same distribution."""


def direction(key: Array, shape: Sequence[int]) -> Float[Array, " n"]:
    """Draw a random unit vector, the initial value of u and v."""
    x = jax.random.normal(key, shape, jnp.float32)
    return x / jnp.linalg.norm(x)


def draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Draw one parameter on the host, in float32.

    Args:
        name: name of the parameter: "kernel", "bias", "scale", "gamma", "shared", "u" or "v".
        shape: shape of the parameter.
        rng: random generator.

    Raises:
        KeyError: if there is no initializer for the name.
    """
    return _LAWS[name](shape, rng).astype(np.float32, copy=False)


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    columns = shape[-1]
    rows = int(np.prod(shape[:-1]))
    normal = rng.standard_normal((max(rows, columns), min(rows, columns)), np.float32)
    if normal.shape[0] >= 2 * normal.shape[1]:
        # A Gaussian matrix far from square is well conditioned, so that a Cholesky factor of its Gram matrix yields the
        # same Q as Gram-Schmidt, to 1e-6, in a tenth of the time. Inverting the small factor leaves one product.
        factor = np.linalg.cholesky(normal.T @ normal)
        q = normal @ np.linalg.inv(factor).T
    else:
        q, r = np.linalg.qr(normal)
        q *= np.sign(np.diagonal(r))  # LAPACK does not fix the signs; these make the distribution uniform
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
