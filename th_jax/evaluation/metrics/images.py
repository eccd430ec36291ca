"""Pixel metrics: L1, PSNR, flicker, and the distance of two feature pyramids; one value per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from th_jax.evaluation.metrics.pairs import (
    AnyArray,
    Images,
    Values,
    check_data_range,
    comparable,
    comparable_images,
    mean_of_each,
)

BOX_MARGIN = 0.1
"""Margin that `box_l1` adds on every side, as a share of the landmarks' extent: brows and jaw lie on the border."""


def l1(images_a: Images, images_b: Images) -> Values:
    """Compute the mean absolute difference of each pair of images, in their own unit.

    Raises:
        TypeError, ValueError: if images are not floating point, or their shapes differ.
    """
    xp, a, b = comparable_images(images_a, images_b)
    return mean_of_each(xp, xp.abs(a - b))


def box_l1(
    images_a: Images, images_b: Images, landmarks: Float[AnyArray, "B P 2"], *, margin: float = BOX_MARGIN
) -> Values:
    """Compute `l1` over the pixels whose centers lie in the box around each image's known landmarks.

    The box has `margin` on every side, as a share of its width and height. Landmarks are in [0, 1], NaN where unknown.

    Returns:
        One value per image; NaN if it has no known landmarks, or no pixels in the box.

    Raises:
        TypeError, ValueError: as `l1`; if there is not one set of landmarks per image, or the margin is negative.
    """
    xp, a, b = comparable_images(images_a, images_b)
    if landmarks.ndim != 3 or landmarks.shape[0] != a.shape[0] or landmarks.shape[2] != 2:
        raise ValueError(f"{a.shape[0]} images need landmarks [{a.shape[0]}, P, 2], got {list(landmarks.shape)}")
    if not margin >= 0:
        raise ValueError(f"margin, a fraction of the box's sides, must be 0 or more, got {margin}")
    points = xp.asarray(landmarks)
    known = xp.all(xp.isfinite(points), axis=-1, keepdims=True)
    low = xp.min(xp.where(known, points, xp.inf), axis=1)
    high = xp.max(xp.where(known, points, -xp.inf), axis=1)
    # Without known points the box is [inf, -inf], which is empty; its width would be NaN.
    width = xp.where(high >= low, high - low, 0.0)
    low, high = low - margin * width, high + margin * width
    height, across = a.shape[1], a.shape[2]
    x = (xp.arange(across)[None, :] + 0.5) / across
    y = (xp.arange(height)[None, :] + 0.5) / height
    inside_x = (x >= low[:, :1]) & (x <= high[:, :1])
    inside_y = (y >= low[:, 1:]) & (y <= high[:, 1:])
    inside = (inside_y[:, :, None] & inside_x[:, None, :])[..., None].astype(a.dtype)
    share = mean_of_each(xp, inside)
    total = mean_of_each(xp, xp.abs(a - b) * inside)
    return xp.where(share > 0, total / xp.where(share > 0, share, 1.0), xp.nan)


def psnr(images_a: Images, images_b: Images, *, data_range: float = 1.0) -> Values:
    """Compute 10 · log10(data_range² / mean squared difference) of each pair, in decibels; infinite for identical images.

    Raises:
        TypeError, ValueError: as `l1`; or if the range is not positive.
    """
    check_data_range(data_range)
    xp, a, b = comparable_images(images_a, images_b)
    error = mean_of_each(xp, xp.square(a - b))
    differs = error > 0
    return xp.where(differs, 10.0 * xp.log10(data_range**2 / xp.where(differs, error, 1.0)), xp.inf)


def perceptual_distance(
    features_a: Sequence[Float[AnyArray, "B _ _ _"]], features_b: Sequence[Float[AnyArray, "B _ _ _"]]
) -> Values:
    """Compute the mean absolute difference of two feature pyramids: averaged over each layer, and then over layers.

    On VGG's layers, this is `content_loss` with weight one, divided by the number of layers. It is not LPIPS: features
    are not normalized, and weights of layers or channels are not learned.

    Raises:
        TypeError, ValueError: if layers differ in number or shape, there are no layers, or they are not floating point.
    """
    if len(features_a) != len(features_b) or not features_a:
        raise ValueError(
            f"two pyramids need the same layers, at least one, got {len(features_a)} and {len(features_b)}"
        )
    total: Any = 0.0
    for layer_a, layer_b in zip(features_a, features_b, strict=True):
        xp, a, b = comparable(layer_a, layer_b, "layers of a pyramid")
        total = total + mean_of_each(xp, xp.abs(a - b))
    return total / len(features_a)


def temporal_flicker(
    frames: Float[AnyArray, "S H W C"], *, reference: Float[AnyArray, "S H W C"] | None = None
) -> Float[AnyArray, " S-1"]:
    """Compute the mean absolute error of the change from each frame to the next, one value per step, in the frames' unit.

    |(f[t+1] - f[t]) - (r[t+1] - r[t])|: a constant error costs nothing, one that appears and disappears costs twice.

    Args:
        frames: successive generated frames.
        reference: real frames at the same times. Without them the reference is a still image, and motion counts as
            flicker: compare such values only for the same driver.

    Raises:
        TypeError, ValueError: as `l1`; or if there are fewer than two frames.
    """
    still = np.zeros(frames.shape, frames.dtype) if reference is None else reference
    xp, a, b = comparable_images(frames, still)
    if a.shape[0] < 2:
        raise ValueError(f"flicker needs at least two successive frames, got {a.shape[0]}")
    error = a - b
    return mean_of_each(xp, xp.abs(error[1:] - error[:-1]))
