"""Measures how still generated frames are while the driver rests: flicker and jitter with a detector's noise.

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


def landmark_jitter(landmarks: Float[np.ndarray, "S P 2"], *, size: int) -> float:
    """Compute the mean distance that a landmark in [0, 1] moves from frame to frame, in pixels of frames of this size."""
    return float(np.linalg.norm(np.diff(landmarks.astype(np.float64), axis=0), axis=-1).mean() * size)


def passed_jitter(frames: UInt8[np.ndarray, "S H H 3"], landmarks: Float[np.ndarray, "S P 2"]) -> float:
    """Compute how much of the landmarks' jitter a generator passes on, in gray levels of 255 per pixel.

    This is the mean absolute change between consecutive frames, divided by `landmark_jitter`. A generator whose frames do not
    depend on the landmarks has 0; one that moves an image with them has the image's mean absolute gradient along the motion.

    Returns:
        The ratio; NaN if the landmarks do not move at all.
    """
    moved = landmark_jitter(landmarks, size=frames.shape[1])
    return flicker(frames, np.ones(frames.shape[1:3], bool)) / moved if moved else float("nan")


def resting_flicker(
    networks: Networks, avatars: Sequence[Avatar], resting: Sequence[Float[np.ndarray, "P 2"]], *, seed: int = 0
) -> dict[str, float]:
    """Measure flicker and jitter, the means over people, for landmarks with a detector's noise and smoothed ones.

    Args:
        networks: networks of the avatars.
        avatars: an avatar of each person.
        resting: landmarks in [0, 1] of one shot of each.
        seed: random seed of the noise.

    Returns:
        The background's flicker for "detected" and "smoothed" landmarks; with "/frame", the flicker of the whole frame, with
        "/landmarks", the `landmark_jitter`, and with "/passed", the `passed_jitter`.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    size, whole = networks.image_size, np.ones((networks.image_size,) * 2, bool)
    for avatar, points in zip(avatars, resting, strict=True):
        noisy = (points[None] + NOISE * rng.normal(size=(FRAMES, *points.shape))).astype(np.float32)
        smooth = LandmarkFilter(OneEuro())
        smoothed = np.stack([smooth(frame, time=number / FPS) for number, frame in enumerate(noisy)])
        where = background(points, size=size)
        for name, clip in (("detected", noisy), ("smoothed", smoothed)):
            frames, points_of_frames = render(networks, avatar, clip, chunk=FEW)[_START:], clip[_START:]
            for measure, value in (
                (name, flicker(frames, where)),
                (f"{name}/frame", flicker(frames, whole)),
                (f"{name}/landmarks", landmark_jitter(points_of_frames, size=size)),
                (f"{name}/passed", passed_jitter(frames, points_of_frames)),
            ):
                found.setdefault(measure, []).append(value)
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def resting_report(measured: dict[str, float]) -> str:
    """Format the results as a Markdown table."""
    columns = (
        "flicker of the background, of 255",
        "of the frame",
        "jitter of the landmarks, px",
        "passed on, 255 per px",
    )
    lines = [f"| over a resting driver | {' | '.join(columns)} |", "|---|---:|---:|---:|---:|"]
    for name in ("detected", "smoothed"):
        values = [measured[name + part] for part in ("", "/frame", "/landmarks", "/passed")]
        lines.append(f"| {name} landmarks | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines) + "\n"
