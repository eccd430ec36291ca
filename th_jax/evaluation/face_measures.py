"""Landmarks and identity descriptors of the most prominent face in each frame, by dlib; NaN where no face is detected."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.faces.detect import Box, OutsideFrameError, detect_faces, face_descriptor, most_prominent, predict_landmarks
from th_jax.faces.track import settled_landmarks
from th_jax.landmarks.scheme import IBUG_POINTS

SIDE = 256
"""Side in pixels to which smaller frames are enlarged (cubic) before detection: HOG needs faces of about 80 px."""

DESCRIPTOR_WIDTH = 128


class FaceMeasures(NamedTuple):
    """Measures of each frame: 68 landmarks in [0, 1] (possibly outside the frame), and the identity descriptor."""

    landmarks: Float[np.ndarray, "*frames 68 2"]
    descriptors: Float[np.ndarray, "*frames 128"]
    """All NaN if descriptors were not requested."""


def measure_faces(frames: UInt8[np.ndarray, "*frames H W 3"], *, descriptors: bool = True) -> FaceMeasures:
    """Measure landmarks and descriptors, frame by frame; a frame without a detected face is a row of NaN.

    Real, generated and copied frames must all be measured by this function, so that the detector's bias is the same for
    each. `descriptors` take several times as long as the rest.

    Raises:
        ImportError, FileNotFoundError: if dlib or its models, installed by the extra `video`, are missing.
    """
    batch = frames.shape[:-3]
    flat = frames.reshape((-1, *frames.shape[-3:]))
    landmarks = np.full((len(flat), IBUG_POINTS, 2), np.nan, np.float32)
    found = np.full((len(flat), DESCRIPTOR_WIDTH), np.nan, np.float32)
    for number, frame in enumerate(flat):
        enlarged = _enlarged(frame)
        points = _landmarks(enlarged)
        if points is None:
            continue
        landmarks[number] = points / (enlarged.shape[1], enlarged.shape[0])
        if descriptors:
            found[number] = face_descriptor(enlarged, points)
    return FaceMeasures(landmarks.reshape((*batch, IBUG_POINTS, 2)), found.reshape((*batch, DESCRIPTOR_WIDTH)))


def check_face_models() -> None:
    """Load what `measure_faces` needs, so that problems are found before a run and not at its first evaluation.

    Raises:
        ImportError, FileNotFoundError: as `measure_faces`.
        ValueError: if the landmark model is not a 68-point predictor.
    """
    blank = np.zeros((SIDE, SIDE, 3), np.uint8)  # neither model needs a face
    face_descriptor(blank, predict_landmarks(blank, Box(0.25 * SIDE, 0.25 * SIDE, 0.75 * SIDE, 0.75 * SIDE)))


def _enlarged(frame: np.ndarray) -> np.ndarray:
    shortest = min(frame.shape[:2])
    if shortest >= SIDE:
        return np.ascontiguousarray(frame)
    scale = SIDE / shortest
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC))


def _landmarks(frame: np.ndarray) -> np.ndarray | None:
    faces = detect_faces(frame)
    if not faces:
        return None
    try:
        return settled_landmarks(frame, most_prominent(faces)[0].box)
    except OutsideFrameError:
        return None
