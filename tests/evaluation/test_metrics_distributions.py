"""Distances of distributions: equal to SciPy and PyTorch, to closed forms, and independent of order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden.make_metrics_golden import FEATURES, FILE, feature_pair
from th_jax.evaluation.metrics import frechet_distance, polynomial_mmd

seeds = st.integers(0, 2**32 - 1)


def with_moments(rng: np.random.Generator, rows: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Rows whose sample mean and sample covariance are exactly `mean` and root · rootᵀ."""
    noise = rng.normal(size=(rows, len(mean)))
    noise -= noise.mean(0)
    white = np.linalg.qr(noise)[0] * np.sqrt(rows - 1)
    return mean + white @ root.T


@pytest.mark.parametrize("name", FEATURES)
def test_equal_to_scipy_and_pytorch(name: str) -> None:
    a, b = feature_pair(name)
    with np.load(FILE) as golden:
        assert frechet_distance(a, b) == pytest.approx(float(golden[f"frechet/{name}"]), rel=1e-6)
        assert polynomial_mmd(a, b) == pytest.approx(float(golden[f"mmd/{name}"]), rel=1e-10)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 8))
def test_frechet_of_commuting_covariances(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    deviations_a, deviations_b = rng.uniform(0.1, 3, (2, width))
    mean_a, mean_b = rng.normal(size=(2, width))
    a = with_moments(rng, 30, mean_a, axes * deviations_a)
    b = with_moments(rng, 40, mean_b, axes * deviations_b)
    expected = np.square(mean_a - mean_b).sum() + np.square(deviations_a - deviations_b).sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 12), st.integers(2, 12))
def test_frechet_identity_symmetry_and_order(seed: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, width)), rng.normal(1.0, 2.0, (rows + 3, width))
    assert 0 <= frechet_distance(a, a) < 1e-10 * rows * width
    assert frechet_distance(a, a + 2.0) == pytest.approx(4.0 * width, rel=1e-9), "equal but for the mean"
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(rng.permutation(a), b) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_kernel_distance_is_unbiased() -> None:
    # Each estimate is of two samples of one distribution: their mean is zero within its own error, and some are negative.
    rng = np.random.default_rng(0)
    estimates = [polynomial_mmd(rng.normal(size=(20, 4)), rng.normal(size=(25, 4))) for _ in range(400)]
    assert min(estimates) < 0
    assert abs(np.mean(estimates)) < 3 * np.std(estimates) / np.sqrt(len(estimates))


def test_kernel_distance_of_point_masses() -> None:
    a, b = np.full((5, 3), 1.0), np.full((6, 3), 2.0)
    assert polynomial_mmd(a, b) == pytest.approx((1 + 1) ** 3 + (4 + 1) ** 3 - 2 * (2 + 1) ** 3)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_kernel_distance_symmetry_and_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(9, 5)), rng.normal(0.5, 1.5, (14, 5))
    assert polynomial_mmd(a, b) == pytest.approx(polynomial_mmd(b, a), rel=1e-9)
    assert polynomial_mmd(rng.permutation(a), b) == pytest.approx(polynomial_mmd(a, b), rel=1e-9)


def test_bad_features() -> None:
    a, b = feature_pair("few_samples")
    for distance in (frechet_distance, polynomial_mmd):
        with pytest.raises(ValueError, match=r"two rows, got \(1, 32\)"):
            distance(a[:1], b)
        with pytest.raises(ValueError, match="got widths 32 and 31"):
            distance.__wrapped__(a, b[:, 1:])
        with pytest.raises(ValueError, match="must be finite"):
            distance(a, np.where(np.arange(32) == 3, np.nan, b))
