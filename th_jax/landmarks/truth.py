"""Landmarks of pairs of people with known truth, computed by `data_prep.heads.retarget_truth`."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8


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


class GazeTruth(NamedTuple):
    """Rendered frames of P people whose gaze and lids vary independently, computed by `data_prep.heads.gaze_truth`."""

    shot_frames: UInt8[np.ndarray, "P T S S 3"]
    shots: Float[np.ndarray, "P T 70 2"]
    frames: UInt8[np.ndarray, "P F S S 3"]
    driving: Float[np.ndarray, "P F 70 2"]
    """Points of `frames`."""
    eyes: Float[np.ndarray, "P F 2 2"]
    """Centers of the eyeballs in the image, the image's left first."""
    radius: Float[np.ndarray, "P F 2"]
    """Radius of the eyeballs in the image."""
