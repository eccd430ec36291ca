"""Proposes the landmarks that were not placed by hand: the 3D model, fitted to those that were.

With one placed point the face is moved, with up to five it is also turned and scaled; beyond that the model's identity, pose
and expression are fitted.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from th_jax.landmarks.model3d import fit_person, load_model, predict_frames
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS

FITTED = 6
"""Placed points from which on the model is fitted."""

_FACE_SHARE = 0.45
"""Width of the first proposal's face, as a share of the image's shorter side."""


def average_face(*, height: int, width: int) -> Float[np.ndarray, "68 2"]:
    """Return the model's average face, seen from the front, in the middle of the image, in pixels."""
    face = np.asarray(load_model().mean, np.float64)[:IBUG_POINTS, :2] * (1, -1)
    scale = _FACE_SHARE * min(height, width) / np.ptp(face[:, 0])
    return np.asarray((face - face.mean(0)) * scale + (width / 2, height / 2))


def propose(placed: Mapping[int, tuple[float, float]], start: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "68 2"]:
    """Compute all 68 points in pixels; placed ones stay where they are.

    Args:
        placed: coordinates in pixels of the points that were placed, by number.
        start: points in pixels before anything was placed.
    """
    result = start.copy()
    if not placed:
        return result
    numbers = sorted(placed)
    wanted = np.array([placed[number] for number in numbers], np.float64)
    result = _similar(start, start[numbers], wanted)
    if len(numbers) >= FITTED:
        result = _fitted(numbers, wanted, result)
    result[numbers] = wanted
    return result


def _similar(
    points: Float[np.ndarray, "P 2"], own: Float[np.ndarray, "K 2"], wanted: Float[np.ndarray, "K 2"]
) -> Float[np.ndarray, "P 2"]:
    """Move, turn and scale points by the least-squares transform between some of them and their wanted places."""
    whole, own, wanted = (part[:, 0] + 1j * part[:, 1] for part in (points, own, wanted))
    middle, goal = own.mean(), wanted.mean()
    spread = (np.abs(own - middle) ** 2).sum()
    turn = ((wanted - goal) * (own - middle).conj()).sum() / spread if spread > 1e-9 else 1.0
    moved = (whole - middle) * turn + goal
    return np.stack([moved.real, moved.imag], axis=-1)


def _fitted(
    numbers: list[int], wanted: Float[np.ndarray, "K 2"], guess: Float[np.ndarray, "68 2"]
) -> Float[np.ndarray, "68 2"]:
    """Fit the model to the placed points; the guess gives the square in which it is fitted."""
    corner, side = guess.min(0), float(np.ptp(guess, axis=0).max())
    points = np.full((1, PUPIL_POINTS, 2), np.nan, np.float32)
    points[0, numbers] = (wanted - corner) / side
    model = load_model()
    person, frames = fit_person(model, jnp.asarray(points))
    found = np.asarray(predict_frames(model, person, frames), np.float64)[0, :IBUG_POINTS] * side + corner
    return found if np.isfinite(found).all() else guess
