"""From tracked landmarks to those that drive: on the target's face, smoothed, one set for each frame of the output."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import Float, Float32, Int

from th_jax.avatars import LoadedAvatar
from th_jax.rendering.landmark_source import Driving
from th_jax.rendering.smoothing import LandmarkFilter, OneEuro
from th_jax.retargeting import FaceShape, Retargeting, face_shape, retarget
from th_jax.topology import PUPIL_POINTS

_SHAPE_SAMPLES = 2000
"""Frames from which a driver's mean shape is made; a longer clip is sampled evenly."""


def driving_poses(
    driving: Driving,
    shown: Int[np.ndarray, " F"],
    *,
    fps: Fraction,
    smoothing: OneEuro | None = None,
    target: FaceShape | None = None,
) -> Iterator[Float32[np.ndarray, "P 2"]]:
    """The landmarks of each output frame, with constant memory.

    A frame without a face repeats the last pose; before the first face, that of the first face. The filter begins anew with
    each segment, whose squares are others.

    Args:
        driving: as `track_driver` and `read_landmarks` give it.
        shown: the decoded frame of each output frame (`frames_on_screen`).
        fps: frames of the output a second.
        smoothing: settings of the filter; none by default.
        target: the face to move the motion to (`th_jax.retargeting`); by default landmarks stay the driver's.

    Raises:
        ValueError: if the driver's shape is needed and no frame has all 68 points.
    """
    driver = None if target is None else driver_shape(driving)

    def adapted(index: int) -> Float32[np.ndarray, "P 2"]:
        points = np.array(driving.landmarks[index], np.float32)
        if driver is None or target is None:
            return points
        return retarget(points[None], driver=driver, target=target)[0]

    smooth = None if smoothing is None else LandmarkFilter(smoothing)
    pose = adapted(int(np.flatnonzero(driving.segment >= 0)[0]))
    segment = -1
    for tick, index in enumerate(shown.tolist()):
        number = int(driving.segment[index])
        if number >= 0:
            if smooth is not None and number != segment:
                smooth.reset()
            segment = number
            pose = adapted(index) if smooth is None else smooth(adapted(index), time=tick / float(fps))
        yield pose


def driver_shape(driving: Driving) -> FaceShape:
    """The driver's mean shape, from up to 2,000 frames spread over the clip.

    Raises:
        ValueError: if no frame has all 68 points.
    """
    faces = np.flatnonzero(driving.segment >= 0)
    sample = faces[:: max(1, len(faces) // _SHAPE_SAMPLES)]
    landmarks: Float[np.ndarray, "S P 2"] = np.array(driving.landmarks[sample])
    return face_shape(landmarks)


def target_shape(loaded: LoadedAvatar, retargeting: Retargeting) -> FaceShape | None:
    """The face that the motion moves to: that of the avatar's shots, or None to leave landmarks as they are.

    Raises:
        ValueError: for another setting, and for an avatar without landmarks.
    """
    if retargeting not in ("none", "shape"):
        raise ValueError(f'retargeting is "none" or "shape", but {retargeting!r} came')
    if retargeting == "none":
        return None
    if loaded.landmarks is None:
        raise ValueError('this avatar was saved without the landmarks of its shots, which retargeting "shape" needs')
    return face_shape(loaded.landmarks)


def wants_pupils(loaded: LoadedAvatar, gaze: bool | None) -> bool:
    """Whether to look for the driver's pupils: as told, or if the avatar's shots had them."""
    if gaze is not None:
        return gaze
    return loaded.landmarks is not None and loaded.landmarks.shape[1] == PUPIL_POINTS
