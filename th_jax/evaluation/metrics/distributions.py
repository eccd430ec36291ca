"""Distances between two sets of features of any network: Fréchet distance and kernel distance.

Computed by numpy in float64. The name of a reported value must say which network the features are from: "FID" is
reserved for the original Inception.
"""

import numpy as np
from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import AnyArray

FeatureRows = Float[AnyArray, "N D"]


def frechet_distance(features_a: FeatureRows, features_b: Float[AnyArray, "M D"]) -> float:
    """Compute the squared Fréchet distance of the normal distributions with the sets' means and sample covariances.

    |m_a - m_b|² + tr(A) + tr(B) - 2 tr((A·B)^½). With X and Y the centered features, A = XᵀX and B = YᵀY up to the
    number of samples, and the trace of the root is the sum of the singular values of X·Yᵀ. This is exact even with
    fewer samples than dimensions, unlike a matrix root of the singular product. The estimate itself is biased upwards
    for few samples.

    Raises:
        ValueError: if there are fewer than two rows, the widths differ, or features are not finite.
    """
    a, b = _feature_sets(features_a, features_b)
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a, root_b = _root(a - mean_a), _root(b - mean_b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.square(root_a).sum() + np.square(root_b).sum() - 2.0 * cross
    return float(max(distance, 0.0))


def polynomial_mmd(features_a: FeatureRows, features_b: Float[AnyArray, "M D"]) -> float:
    """Compute the unbiased squared maximum mean discrepancy under k(x, y) = (x·y / D + 1)³, over all rows.

    Raises:
        ValueError: if there are fewer than two rows, the widths differ, or features are not finite.
    """
    a, b = _feature_sets(features_a, features_b)
    width = a.shape[1]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / width + 1.0) ** 3

    return _off_diagonal_mean(kernel(a, a)) + _off_diagonal_mean(kernel(b, b)) - 2.0 * float(kernel(a, b).mean())


def _root(centred: np.ndarray) -> np.ndarray:
    """Compute a matrix R with at most D rows such that RᵀR is the sample covariance."""
    scaled = centred / np.sqrt(len(centred) - 1)
    return np.asarray(np.linalg.qr(scaled, mode="r")) if scaled.shape[0] > scaled.shape[1] else scaled


def _off_diagonal_mean(matrix: np.ndarray) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def _feature_sets(one: AnyArray, other: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    for features in (one, other):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features must be [N, D] with at least two rows, got {features.shape}")
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"both sets must be features of the same network, got widths {one.shape[1]} and {other.shape[1]}"
        )
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features must be finite, got NaN or infinity")
    return a, b
