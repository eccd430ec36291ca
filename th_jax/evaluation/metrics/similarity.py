"""Structural similarity of Wang et al. (2004), and its multi-scale version (2003); one value per image."""

from types import ModuleType
from typing import Any

import numpy as np

from th_jax.evaluation.metrics.pairs import Images, Values, check_data_range, comparable_images, mean_of_each

WINDOW = 11
SIGMA = 1.5
_LUMINANCE, _CONTRAST = 0.01, 0.03  # K1 and K2 of Wang et al.

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first, from Wang, Simoncelli and Bovik (2003)."""

SSIM_SMALLEST = WINDOW
"""Minimum side for `ssim` in pixels: one window."""
MS_SSIM_SMALLEST = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Minimum side for `ms_ssim` in pixels: one window at the coarsest scale."""


def ssim(images_a: Images, images_b: Images, *, data_range: float = 1.0) -> Values:
    """Compute SSIM of each pair: Gaussian window of 11 px with deviation 1.5, population covariances, K1 0.01, K2 0.03.

    The result is the mean over all complete windows and over channels, -1 to 1. scikit-image's `structural_similarity`
    gives the same with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1`, but not with
    its defaults.

    Args:
        images_a: batch of images.
        images_b: batch of images to compare with.
        data_range: difference between white and black, 1.0 for images in [0, 1].

    Raises:
        TypeError: if images are not floating point.
        ValueError: if shapes differ, the range is not positive, or a side is smaller than `SSIM_SMALLEST`.
    """
    check_data_range(data_range)
    xp, a, b = comparable_images(images_a, images_b)
    _check_sides(a.shape, SSIM_SMALLEST, "ssim")
    luminance, contrast = _terms(xp, a, b, data_range)
    return mean_of_each(xp, luminance * contrast)


def ms_ssim(images_a: Images, images_b: Images, *, data_range: float = 1.0) -> Values:
    """Compute multi-scale SSIM of each pair: contrast and structure at five scales, luminance at the coarsest; 0 to 1.

    Between scales, images are averaged over 2 x 2 px; an odd last row or column is dropped. Negative means are set to 0
    before they are raised to their scale's exponent. The product is computed per channel, and then averaged over
    channels.

    Raises:
        TypeError: if images are not floating point.
        ValueError: if shapes differ, the range is not positive, or a side is smaller than `MS_SSIM_SMALLEST`.
    """
    check_data_range(data_range)
    xp, a, b = comparable_images(images_a, images_b)
    _check_sides(a.shape, MS_SSIM_SMALLEST, "ms_ssim")
    product = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, contrast = _terms(xp, a, b, data_range)
        last = scale == len(SCALE_WEIGHTS) - 1
        value = _mean_of_channels(xp, luminance * contrast if last else contrast)
        product = product * xp.maximum(value, 0.0) ** weight
        if not last:
            a, b = _halved(xp, a), _halved(xp, b)
    return xp.mean(product, axis=1)


def _terms(xp: ModuleType, a: Any, b: Any, data_range: float) -> tuple[Any, Any]:
    """Compute luminance, and contrast times structure, at every complete window."""
    c1, c2 = (_LUMINANCE * data_range) ** 2, (_CONTRAST * data_range) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    variance_a = _windowed(a * a) - mean_a * mean_a
    variance_b = _windowed(b * b) - mean_b * mean_b
    covariance = _windowed(a * b) - mean_a * mean_b
    luminance = (2.0 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    contrast = (2.0 * covariance + c2) / (variance_a + variance_b + c2)
    return luminance, contrast


def _windowed(images: Any) -> Any:
    """Compute Gaussian means over all windows inside. Sums of shifted images, whose rounding does not depend on the batch."""
    weights = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / SIGMA**2)
    shares = [float(weight) for weight in weights / weights.sum()]
    down, across = images.shape[1] - WINDOW + 1, images.shape[2] - WINDOW + 1
    rows = sum(share * images[:, i : i + down] for i, share in enumerate(shares))
    return sum(share * rows[:, :, i : i + across] for i, share in enumerate(shares))


def _mean_of_channels(xp: ModuleType, values: Any) -> Any:
    batch, channels = values.shape[0], values.shape[-1]
    return xp.mean(xp.reshape(xp.moveaxis(values, -1, 1), (batch, channels, -1)), axis=-1)


def _halved(xp: ModuleType, images: Any) -> Any:
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return xp.mean(xp.reshape(even, (batch, height // 2, 2, width // 2, 2, channels)), axis=(2, 4))


def _check_sides(shape: tuple[int, ...], smallest: int, what: str) -> None:
    if min(shape[1:3]) < smallest:
        raise ValueError(f"{what} needs images of at least {smallest} px per side, got {shape[1]} x {shape[2]} px")
