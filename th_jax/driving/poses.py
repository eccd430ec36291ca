"""Converts tracked landmarks to driving landmarks: retargeted, smoothed, one set per output frame."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import Float, Float32, Int

from th_jax.avatars.file import LoadedAvatar
from th_jax.driving.driver import Driving
from th_jax.landmarks.methods import Follower, Method, Target, check_method, check_target_face, make_retargeter
from th_jax.landmarks.scheme import PUPIL_POINTS
from th_jax.landmarks.smooth import OneEuro
from th_jax.landmarks.transfer import UNCHANGED, Gains

_SHAPE_SAMPLES = 2000
"""Maximum number of frames from which a driver's usual face is computed; longer clips are sampled evenly."""

_NEUTRAL_SECONDS = 0.1
"""Frames this near to the neutral time count as neutral."""


def driving_poses(
    driving: Driving,
    shown: Int[np.ndarray, " F"],
    *,
    fps: Fraction,
    smoothing: OneEuro | None = None,
    target: Target | None = None,
    neutral: float | None = None,
) -> Iterator[Float32[np.ndarray, "P 2"]]:
    """Yield the landmarks of each output frame, in constant memory.

    A frame without a face repeats the last pose; frames before the first face get its pose. The filter restarts with
    each segment, because segments have different squares.

    Args:
        driving: driver, as returned by `track_driver` or `read_landmarks`.
        shown: index of the decoded frame for each output frame (`frames_on_screen`).
        fps: frame rate of the output, in frames per second.
        smoothing: settings of the filter; no smoothing by default.
        target: face to which the motion is retargeted, and the method (`th_jax.landmarks.methods`); by default landmarks
            are unchanged.

        neutral: time in seconds at which the driver's expression is neutral, for the method "model"; by default calm frames
            are found.

    Raises:
        ValueError: if the driver's face is needed and no frame, or none at the neutral time, has all 68 points.
    """
    adapt = (
        None
        if target is None
        else make_retargeter(target, driver_sample(driving), neutral=_neutral_frames(driving, neutral))
    )
    follow = Follower(adapt, smoothing)
    pose: Float[np.ndarray, "P 2"] | None = None
    segment = -1
    for tick, index in enumerate(shown.tolist()):
        number = int(driving.segment[index])
        if number >= 0:
            if number != segment:
                follow.reset()
            segment = number
            pose = follow(np.array(driving.landmarks[index], np.float32), time=tick / float(fps))
        elif pose is None:  # only for frames before the first face: adapting it alone compiles a program
            first = np.array(driving.landmarks[np.flatnonzero(driving.segment >= 0)[0]], np.float32)
            pose = first if adapt is None else adapt(first[None])[0]
        yield pose


def _neutral_frames(driving: Driving, time: float | None) -> Float[np.ndarray, "N P 2"] | None:
    if time is None:
        return None
    near = (np.abs(driving.times - time) <= _NEUTRAL_SECONDS) & (driving.segment >= 0)
    if not near.any():
        raise ValueError(f"the driver has no face at the neutral time of {time:g} s: choose another time")
    return np.array(driving.landmarks[near])


def driver_sample(driving: Driving) -> Float[np.ndarray, "S P 2"]:
    """Return the landmarks of up to 2,000 frames with a face, spread over the clip."""
    faces = np.flatnonzero(driving.segment >= 0)
    sample = faces[:: max(1, len(faces) // _SHAPE_SAMPLES)]
    return np.array(driving.landmarks[sample])


def target_of(loaded: LoadedAvatar, retargeting: Method, *, gains: Gains = UNCHANGED) -> Target | None:
    """Return the face of the avatar's shots, to which the motion is retargeted, or None without retargeting.

    Raises:
        ValueError: if the setting is unknown, gains are given for another method than "model", or the avatar has no
            landmarks of a whole face.
    """
    check_method(retargeting, gains=gains)
    if retargeting == "none":
        return None
    if loaded.landmarks is None:
        raise ValueError(
            f'this avatar was saved without the landmarks of its shots, which retargeting "{retargeting}" requires'
        )
    target = Target(retargeting, loaded.landmarks, gains)
    check_target_face(target)
    return target


def wants_pupils(loaded: LoadedAvatar, gaze: bool | None) -> bool:
    """Return whether to detect the driver's pupils: as requested, or by default if the avatar's shots have them."""
    if gaze is not None:
        return gaze
    return loaded.landmarks is not None and loaded.landmarks.shape[1] == PUPIL_POINTS
