"""Chooses the method of retargeting for a driver: "model" for another person than the avatar's, "none" for the same one.

The identities that the 3D landmark model fits to the driver's landmarks and to those of the avatar's shots are compared. This
needs no image, so that an avatar's file need not hold a face descriptor of its person, and it compares what retargeting
adapts: the shape of the face. `python -m benchmarks.same_person` measures it, beside dlib's face network.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from th_jax.avatars.file import LoadedAvatar
from th_jax.driving.motion import is_motion_file
from th_jax.landmarks.methods import METHODS, Method
from th_jax.landmarks.model3d import fit_identity, known_frames
from th_jax.landmarks.transfer import UNCHANGED, Gains

Retargeting = Method | Literal["auto"]

RETARGETING: tuple[Retargeting, ...] = ("auto", *METHODS)

SAME_SHAPE = 0.28
"""Distance (one minus the cosine) of identities below which two faces count as the same person's. Of the pairs of different
people among the heads of the training records, 5 % are nearer."""


MIN_SHOTS = 4
"""Shots below which faces are not compared: from one shot, every driver counts as another person."""


class Choice(NamedTuple):
    """A method of retargeting, and why it was chosen."""

    method: Method
    reason: str | None = None
    """Reason for a method that was chosen automatically; None if it was requested."""

    def __str__(self) -> str:
        """Format as, for example, "retargeting model: the driver is another person (...)"."""
        return f"retargeting {self.method}" + (f": {self.reason}" if self.reason else "")


def known_choice(
    loaded: LoadedAvatar,
    driver: Path,
    retargeting: Retargeting,
    *,
    gains: Gains = UNCHANGED,
    neutral: float | None = None,
) -> Choice | None:
    """Return the choice if it does not depend on the driver's face, before the driver is read; otherwise None.

    Args:
        loaded: avatar to drive.
        driver: video, landmark file, motion file or camera.
        retargeting: the requested method, or "auto".
        gains: factors of the motion; they need the method "model".
        neutral: time of the neutral expression; it needs the method "model".
    """
    if retargeting != "auto":
        return Choice(retargeting)
    if gains != UNCHANGED or neutral is not None:
        return Choice("model", "gains and a neutral time need it")
    if is_motion_file(driver):
        return Choice("none", "a motion file moves the avatar's own face")
    if loaded.landmarks is None or not known_frames(loaded.landmarks).any():
        return Choice("none", "the avatar was saved without the landmarks of its shots")
    if (shots := int(known_frames(loaded.landmarks).sum())) < MIN_SHOTS:
        return Choice(
            "none", f"too few shots ({shots} of {MIN_SHOTS}) to compare faces; --retargeting model adapts them"
        )
    return None


def compare_faces(shots: Float[np.ndarray, "T P 2"], driver: Float[np.ndarray, "S P 2"]) -> Choice:
    """Choose the method by the landmarks of the avatar's shots and of the driver, which may differ in position and size."""
    if not (known_frames(shots).any() and known_frames(driver).any()):
        return Choice("none", "no frame has all 68 landmarks, by which the driver's face could be compared")
    distance = 1 - float(identity(shots) @ identity(driver))
    compared = f"distance of identities {distance:.2f}, the same person below {SAME_SHAPE:g}"
    if distance < SAME_SHAPE:
        return Choice("none", f"the driver has the face of the avatar's person ({compared})")
    return Choice("model", f"the driver is another person ({compared})")


def identity(landmarks: Float[np.ndarray, "S P 2"]) -> Float[np.ndarray, " I"]:
    """Fit a person's identity components (`th_jax.landmarks.model3d`), at unit length.

    Raises:
        ValueError: if no frame has all 68 landmarks.
    """
    components = np.asarray(fit_identity(landmarks[known_frames(landmarks)]).identity, np.float64)
    return np.asarray(components / max(float(np.linalg.norm(components)), 1e-12))
