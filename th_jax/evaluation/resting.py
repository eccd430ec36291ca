"""Measures how still the background of generated frames is while the driver rests: its flicker, with a detector's noise.

The generator sees only landmarks, so that noise in them moves everything that it generates, the background too.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from th_jax.evaluation.metrics import temporal_flicker
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.landmarks.smooth import LandmarkFilter, OneEuro
from th_jax.models.networks import Networks
from th_jax.render import FEW, render
from th_jax.types import Avatar

FRAMES, FPS = 24, 25.0

NOISE = 0.003
"""Standard deviation of a detected point of a resting face, in sides of the frame."""

_HEAD = 2.0
"""Size of the head with hair and neck, relative to the hull of the landmarks; pixels beyond it are background."""

_START = 8
"""Frames before the filter has settled, which do not count."""


def background(landmarks: Float[np.ndarray, "P 2"], *, size: int) -> Bool[np.ndarray, "{size} {size}"]:
    """Return which pixels lie outside of the head and not below it, where the shoulders are."""
    points = landmarks[:IBUG_POINTS].astype(np.float64) * size
    middle = points.mean(0)
    grown = middle + _HEAD * (points - middle)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(grown).astype(np.int32)), 1)
    rows = np.arange(size)[:, None]
    return (mask == 0) & (rows < middle[1])


def flicker(frames: UInt8[np.ndarray, "S H W 3"], where: Bool[np.ndarray, "H W"]) -> float:
    """Compute the mean absolute change between consecutive frames in some pixels, of 255; NaN without such pixels."""
    if not where.any():
        return float("nan")
    return float(temporal_flicker(frames[:, None, where].astype(np.float64)).mean())


def resting_flicker(
    networks: Networks, avatars: Sequence[Avatar], resting: Sequence[Float[np.ndarray, "P 2"]], *, seed: int = 0
) -> dict[str, float]:
    """Measure the background's flicker, the mean over people, for landmarks with a detector's noise and smoothed ones.

    Args:
        networks: networks of the avatars.
        avatars: an avatar of each person.
        resting: landmarks in [0, 1] of one shot of each.
        seed: random seed of the noise.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"detected": [], "smoothed": []}
    for avatar, points in zip(avatars, resting, strict=True):
        noisy = (points[None] + NOISE * rng.normal(size=(FRAMES, *points.shape))).astype(np.float32)
        smooth = LandmarkFilter(OneEuro())
        smoothed = np.stack([smooth(frame, time=number / FPS) for number, frame in enumerate(noisy)])
        where = background(points, size=networks.image_size)
        for name, clip in (("detected", noisy), ("smoothed", smoothed)):
            frames = render(networks, avatar, clip, chunk=FEW)
            found[name].append(flicker(frames[_START:], where))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def resting_report(measured: dict[str, float]) -> str:
    """Format the results as a Markdown table."""
    lines = ["| flicker of the background over a resting driver, of 255 | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} landmarks | {value:.2f} |" for name, value in measured.items())]) + "\n"
