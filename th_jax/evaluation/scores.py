"""Scores of frames in place of held-out targets: pixels, features, landmarks, pose, expression and identity."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from th_jax.evaluation import metrics
from th_jax.evaluation.chunks import in_chunks, joined
from th_jax.evaluation.face_measures import FaceMeasures, measure_faces
from th_jax.evaluation.people import HeldOut
from th_jax.images import to_network_range
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.perceptual.pyramids import feature_pyramids

FAILURE_VALUES = {
    "identity/l2": 1.0,
    "identity/centred_cosine": 0.0,
    "landmark_error": 1.0,
    "landmark_error_detected": 1.0,
    "pose_error": 60.0,
    "expression_error": 0.3,
}
"""Values charged for a frame without a face: as bad as the face of a wrong person in a wrong pose."""


class RealFaces(NamedTuple):
    """Face measures of the real target frames, computed once per run."""

    targets: FaceMeasures
    mean_descriptor: Float[np.ndarray, " 128"]
    """Mean over people of their mean descriptors, on which cosines are centered."""


def real_faces(held: HeldOut, *, identity: bool = True) -> RealFaces:
    """Measure the faces of the real targets, for all scorings of the same people.

    Descriptors, for `identity`, take several times as long as the rest.

    Raises:
        ImportError, FileNotFoundError: as `measure_faces`.
    """
    measured = measure_faces(np.asarray(held.target_frames), descriptors=identity)
    return RealFaces(measured, _mean_of_known(_mean_of_known(measured.descriptors, axis=1), axis=0))


def heldout_table(
    held: HeldOut,
    frames: UInt8[np.ndarray, "I S H W 3"],
    *,
    perceptual: PerceptualWeights | None = None,
    faces: bool = True,
    identity: bool = True,
    real: RealFaces | None = None,
) -> dict[str, Float[np.ndarray, "I S"]]:
    """Compute every measure of every frame against the real target, by name; NaN where no face was detected.

    Args:
        held: held-out frames.
        frames: generated, copied or mean frames in place of the targets.
        perceptual: frozen networks; each adds "<network>_distance".
        faces: whether to detect landmarks in the frames; frames without a face take longest.
        identity: whether to compare descriptors too, if `faces`; they take several times as long as landmarks.
        real: `real_faces(held)`, to measure real frames once per run; measured here if missing.

    Raises:
        ValueError: if the frames do not have the targets' shape.
        TypeError: if they are not uint8.
        ImportError, FileNotFoundError: as `measure_faces`.
    """
    if frames.shape != held.target_frames.shape:
        raise ValueError(f"frames must be {held.target_frames.shape} like the targets, got {frames.shape}")
    if frames.dtype != np.uint8:
        raise TypeError(f"frames must be uint8 RGB, got {frames.dtype}")
    shape = frames.shape[:2]
    made, wanted = joined(frames, content=3), joined(held.target_frames, content=3)
    landmarks = joined(held.target_landmarks, content=2)
    unit_made, unit_wanted = made / 255.0, wanted / 255.0
    table = {
        "l1/frame": metrics.l1(unit_made, unit_wanted),
        "l1/box": metrics.box_l1(unit_made, unit_wanted, landmarks[:, :IBUG_POINTS]),
        "ssim": metrics.ssim(unit_made, unit_wanted),
    }
    for network, weights in (perceptual or {}).items():
        compare = functools.partial(_pyramid_distance, {network: weights})
        table[f"{network}_distance"] = in_chunks(compare, (made, wanted))
    if faces:
        real = real or real_faces(held, identity=identity)
        table |= _face_table(measure_faces(made, descriptors=identity), real, landmarks, identity=identity)
    return {name: np.asarray(values, np.float64).reshape(shape) for name, values in table.items()}


def heldout_scores(
    held: HeldOut,
    frames: UInt8[np.ndarray, "I S H W 3"],
    *,
    perceptual: PerceptualWeights | None = None,
    faces: bool = True,
    identity: bool = True,
    real: RealFaces | None = None,
) -> dict[str, float]:
    """Compute the means of `heldout_table` over all frames, by name.

    Face measures are means over the frames with a detected face; "<name>/with_failures" charges `FAILURE_VALUES` for
    the others, and "faces/undetected" is their share. A real target without a detected face counts as a failure of
    whatever is compared with it. "l1/box" is over the frames whose box contains a pixel. Means over no frames are NaN.

    Raises:
        ValueError, TypeError, ImportError, FileNotFoundError: as `heldout_table`.
    """
    table = heldout_table(held, frames, perceptual=perceptual, faces=faces, identity=identity, real=real)
    return table_means(table)


def table_means(table: Mapping[str, Float[np.ndarray, "I S"]]) -> dict[str, float]:
    """Compute the scores of a table: see `heldout_scores`."""
    scores = {}
    for name, values in table.items():
        if name not in FAILURE_VALUES:
            scores[name] = float(_mean_of_known(values.ravel(), axis=0))
            continue
        score = metrics.score_with_failures(values, failure_value=FAILURE_VALUES[name])
        scores[name], scores[f"{name}/with_failures"] = score.mean, score.mean_with_failures
    return scores


def _face_table(made: FaceMeasures, real: RealFaces, landmarks: np.ndarray, *, identity: bool) -> dict[str, np.ndarray]:
    true, detected = landmarks[:, :IBUG_POINTS], joined(real.targets.landmarks, content=2)
    table = {
        "faces/undetected": np.isnan(made.landmarks).any((1, 2)).astype(np.float64),
        "landmark_error": metrics.landmark_error(made.landmarks, true),
        "landmark_error_detected": metrics.landmark_error(made.landmarks, detected),
        "pose_error": metrics.pose_error(made.landmarks, detected),
        "expression_error": metrics.expression_error(made.landmarks, detected),
    }
    if identity:
        theirs = joined(real.targets.descriptors, content=1)
        table["identity/l2"] = metrics.identity_l2(made.descriptors, theirs)
        table["identity/centred_cosine"] = metrics.centred_cosine(made.descriptors, theirs, mean=real.mean_descriptor)
    return table


@jax.jit
def _pyramid_distance(weights: PerceptualWeights, made: Array, wanted: Array) -> Array:
    ours = feature_pyramids(weights, to_network_range(made))
    theirs = feature_pyramids(weights, to_network_range(wanted))
    (network,) = weights
    return jnp.asarray(metrics.perceptual_distance(list(ours[network]), list(theirs[network])))


def _mean_of_known(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Compute numpy's nanmean without its warning for empty slices."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis)
    return np.asarray(total / np.where(known.any(axis), known.sum(axis), np.nan))
