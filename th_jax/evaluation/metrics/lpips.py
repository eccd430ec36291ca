"""The learned perceptual distance of Zhang et al. (2018) on any feature pyramid: the formula without its weights."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import AnyArray, Values, comparable, mean_of_each

_MIN_LENGTH = 1e-10
"""Added to the norm of a position's features, so that zeros remain zeros; the value of the published code."""


def lpips(
    features_a: Sequence[Float[AnyArray, "B _ _ _"]],
    features_b: Sequence[Float[AnyArray, "B _ _ _"]],
    weights: Sequence[Float[AnyArray, " _"]],
) -> Values:
    """Compute LPIPS of each pair: normalized features at every position, weighted squared differences, spatial mean, sum.

    The result is the published LPIPS only with the published network, image preprocessing and learned weights
    (`th_jax.evaluation.judges.lpips`). The features are layers [B, H, W, C] of a network, with one nonnegative weight
    per channel.

    Raises:
        TypeError, ValueError: if layers differ in number or shape, there are no layers, weights have another number of
            channels, or anything is not floating point.
    """
    if not len(features_a) == len(features_b) == len(weights) or not weights:
        raise ValueError(
            f"two pyramids and their weights need the same layers, at least one, got {len(features_a)}, "
            f"{len(features_b)} and {len(weights)}"
        )
    total: Any = 0.0
    for layer_a, layer_b, weight in zip(features_a, features_b, weights, strict=True):
        xp, a, b = comparable(layer_a, layer_b, "layers of a pyramid")
        if weight.shape != a.shape[-1:]:
            raise ValueError(f"a layer of {a.shape[-1]} channels needs as many weights, got {list(weight.shape)}")
        difference = xp.square(_unit(xp, a) - _unit(xp, b)) * xp.asarray(weight, a.dtype)[None, None, None, :]
        total = total + mean_of_each(xp, difference.sum(-1))
    return total


def _unit(xp: Any, layer: Any) -> Any:
    return layer / (xp.sqrt(xp.square(layer).sum(-1, keepdims=True)) + _MIN_LENGTH)
