"""Measures retargeting on points with known truth: landmark error, gaze, closures and self-retargeting, by yaw."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from th_jax.evaluation.bootstrap import Estimate, bootstrap_mean
from th_jax.landmarks.methods import METHODS, Method, Target, make_retargeter

_LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
_LIPS = ((61, 67), (62, 66), (63, 65))


def landmark_error(
    points: Float[np.ndarray, "*batch P 2"], truth: Float[np.ndarray, "*batch P 2"], *, unit: Float[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch"]:
    """Compute the mean distance of the 68 points from the truth, in units such as the distance between the eyes."""
    return np.linalg.norm(points[..., :68, :] - truth[..., :68, :], axis=-1).mean(-1) / unit


def aligned_error(
    points: Float[np.ndarray, "F P 2"], truth: Float[np.ndarray, "F P 2"], *, unit: Float[np.ndarray, " F"]
) -> Float[np.ndarray, " F"]:
    """Compute `landmark_error` after the best similarity transform of each frame, which leaves errors of shape alone."""
    seen, wanted = (one[:, :68, 0] + 1j * one[:, :68, 1] for one in (points, truth))
    middle = seen.mean(1, keepdims=True), wanted.mean(1, keepdims=True)
    seen, wanted = seen - middle[0], wanted - middle[1]
    scale = (wanted * seen.conj()).sum(1, keepdims=True) / np.maximum((np.abs(seen) ** 2).sum(1, keepdims=True), 1e-12)
    return np.asarray(np.abs(scale * seen - wanted).mean(1) / unit)


def closure(points: Float[np.ndarray, "*batch P 2"], *, of: str) -> Float[np.ndarray, "*batch"]:
    """Compute the mean opening of the lids relative to the eyes' width, or of the lips relative to the mouth's.

    Args:
        points: landmarks.
        of: "lids" or "lips".
    """
    gaps, ends = (_LIDS, ((36, 39), (42, 45))) if of == "lids" else (_LIPS, ((48, 54),))

    def mean(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        first, second = np.array(pairs).T
        return np.asarray(np.linalg.norm(points[..., first, :] - points[..., second, :], axis=-1).mean(-1))

    return mean(gaps) / mean(ends)


def gaze_error(
    points: Float[np.ndarray, "F 70 2"],
    truth: Float[np.ndarray, "F 70 2"],
    *,
    eyes: Float[np.ndarray, "F 2 2"],
    radius: Float[np.ndarray, "F 2"],
) -> Float[np.ndarray, " F"]:
    """Compute the angle in degrees between the directions of gaze that points and truth show, the mean of both eyes.

    The pupil is read relative to the corners of its eye, so that a shift of the whole face is no error of gaze, and placed on
    the true eyeball.

    Args:
        points: landmarks with pupils.
        truth: true landmarks of the same frames.
        eyes: true centers of the eyeballs in the image.
        radius: true radius of the eyeballs in the image.
    """
    corners = np.array([[36, 39], [42, 45]])
    true = (truth[:, 68:] - eyes) / radius[..., None]
    shown = true + (
        (points[:, 68:] - points[:, corners].mean(2)) - (truth[:, 68:] - truth[:, corners].mean(2))
    ) / radius[..., None]
    directions = [_on_ball(true), _on_ball(shown)]
    return np.degrees(np.arccos(np.clip((directions[0] * directions[1]).sum(-1), -1, 1))).mean(-1)


def _on_ball(place: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 3"]:
    length = np.linalg.norm(place, axis=-1, keepdims=True)
    place = place / np.maximum(length, 1.0)
    return np.concatenate([place, np.sqrt(np.maximum(1 - (place**2).sum(-1, keepdims=True), 0.0))], axis=-1)
