"""Pixel for pixel: L1, PSNR, flicker, and the distance of two feature pyramids; one value a picture."""

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
"""Share of the landmarks' width and height that `box_l1` adds on every side: brows and jaw lie on the border."""


def l1(images_a: Images, images_b: Images) -> Values:
    """The mean absolute difference of each pair of pictures, in their own unit.

    Raises:
        TypeError, ValueError: for pictures that are not floating point or not of one shape.
    """
    xp, a, b = comparable_images(images_a, images_b)
    return mean_of_each(xp, xp.abs(a - b))


def box_l1(
    images_a: Images, images_b: Images, landmarks: Float[AnyArray, "B P 2"], *, margin: float = BOX_MARGIN
) -> Values:
    """`l1` over the pixels whose centres lie in the box around each picture's known landmarks.

    Args:
        landmarks: x then y in [0, 1]; NaN where unknown.
        margin: share of the box's width and height that is added on every side.

    Returns:
        NaN for a picture without a known landmark, or without a pixel in the box.

    Raises:
        TypeError, ValueError: as `l1`; if there is not one set of landmarks a picture, or the margin is negative.
    """
    xp, a, b = comparable_images(images_a, images_b)
    if landmarks.ndim != 3 or landmarks.shape[0] != a.shape[0] or landmarks.shape[2] != 2:
        raise ValueError(f"{a.shape[0]} pictures need landmarks [{a.shape[0]}, P, 2], but {list(landmarks.shape)} came")
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, a share of the box's sides, but is {margin}")
    points = xp.asarray(landmarks)
    known = xp.all(xp.isfinite(points), axis=-1, keepdims=True)
    low = xp.min(xp.where(known, points, xp.inf), axis=1)
    high = xp.max(xp.where(known, points, -xp.inf), axis=1)
    # Without a known point the box is [inf, -inf], which holds nothing; its width would be NaN.
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
    """10 · log10(data_range² / mean squared difference) of each pair, in decibels; infinite for equal pictures.

    Raises:
        TypeError, ValueError: as `l1`; for a range that is not positive.
    """
    check_data_range(data_range)
    xp, a, b = comparable_images(images_a, images_b)
    error = mean_of_each(xp, xp.square(a - b))
    differs = error > 0
    return xp.where(differs, 10.0 * xp.log10(data_range**2 / xp.where(differs, error, 1.0)), xp.inf)


def perceptual_distance(
    features_a: Sequence[Float[AnyArray, "B _ _ _"]], features_b: Sequence[Float[AnyArray, "B _ _ _"]]
) -> Values:
    """The mean absolute difference of two feature pyramids: over each layer first, then over layers.

    A score over VGG's layers is `content_loss` with weight one, divided by the number of layers. It is no LPIPS: nothing is
    normalised, and no weight of a layer or channel was learned.

    Raises:
        TypeError, ValueError: for layers that differ in number or shape, no layer, or layers that are not floating point.
    """
    if len(features_a) != len(features_b) or not features_a:
        raise ValueError(
            f"two pyramids need the same layers, at least one, but have {len(features_a)} and {len(features_b)}"
        )
    total: Any = 0.0
    for layer_a, layer_b in zip(features_a, features_b, strict=True):
        xp, a, b = comparable(layer_a, layer_b, "layers of a pyramid")
        total = total + mean_of_each(xp, xp.abs(a - b))
    return total / len(features_a)


def temporal_flicker(
    frames: Float[AnyArray, "S H W C"], *, reference: Float[AnyArray, "S H W C"] | None = None
) -> Float[AnyArray, " S-1"]:
    """The mean absolute error of the change from each frame to the next, one value a step, in the frames' unit.

    |(f[t+1] - f[t]) - (r[t+1] - r[t])|: an error that stays costs nothing, one that comes and goes costs twice.

    Args:
        frames: successive generated frames.
        reference: the real frames of the same moments. Without them the reference is a still picture, and motion counts as
            flicker: compare such numbers only for the same driver.

    Raises:
        TypeError, ValueError: as `l1`; for fewer than two frames.
    """
    still = np.zeros(frames.shape, frames.dtype) if reference is None else reference
    xp, a, b = comparable_images(frames, still)
    if a.shape[0] < 2:
        raise ValueError(f"flicker needs at least two successive frames, but {a.shape[0]} came")
    error = a - b
    return mean_of_each(xp, xp.abs(error[1:] - error[:-1]))
