"""Landmarks of pairs of people with known truth, computed by `data_prep.heads.retarget_truth`."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class RetargetTruth(NamedTuple):
    """Points of P people in [0, 1] of their own images, with F driving frames of each."""

    seeds: tuple[int, ...]
    shots: Float[np.ndarray, "P T 70 2"]
    clips: Float[np.ndarray, "P C 70 2"]
    driving: Float[np.ndarray, "P F 70 2"]
    truth: Float[np.ndarray, "P P F 70 2"]
    """By target, then driver: the target's head in the driver's states, in front of the target's camera."""
    eyes: Float[np.ndarray, "P P F 2 2"]
    """Centers of the target's eyeballs in the image, the image's left first."""
    radius: Float[np.ndarray, "P P F 2"]
    """Radius of the target's eyeballs in the image."""
    units: Float[np.ndarray, "P F 52"]
    """Weights of the drivers' face units, without the lids' part of the gaze."""
    angles: Float[np.ndarray, "P F 5"]
    """Yaw, pitch, roll, gaze yaw and gaze pitch in radians."""
