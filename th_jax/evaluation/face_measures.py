"""What dlib sees in frames: landmarks and descriptors of the most prominent face, NaN where it finds none."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.faces.detect import (
    Box,
    OutsideFrameError,
    detect_faces,
    face_descriptor,
    most_prominent,
    predict_landmarks,
)
from th_jax.faces.track import settled_landmarks
from th_jax.topology import IBUG_POINTS

SIDE = 256
"""Smaller frames are enlarged to this many pixels (cubic) before the search: HOG needs faces of about 80 px."""

DESCRIPTOR_WIDTH = 128


class FaceMeasures(NamedTuple):
    """Of each frame: 68 landmarks in [0, 1] (they may pass the frame's edge) and the descriptor of identity."""

    landmarks: Float[np.ndarray, "*frames 68 2"]
    descriptors: Float[np.ndarray, "*frames 128"]
    """All NaN where descriptors were not asked for."""


def measure_faces(frames: UInt8[np.ndarray, "*frames H W 3"], *, descriptors: bool = True) -> FaceMeasures:
    """Landmarks and descriptors, frame by frame; a frame that shows no face to the detector is a row of NaN.

    Real, generated and copied frames must all go through here: the detector's own bias is then the same for each.

    Args:
        frames: RGB.
        descriptors: whether to compute them too; they take several times as long as the rest.

    Raises:
        ImportError, FileNotFoundError: without dlib or its models, which the extra `video` installs.
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
    """Load what `measure_faces` needs, to fail before a run and not at its first evaluation.

    Raises:
        ImportError, FileNotFoundError: as `measure_faces`.
        ValueError: if the landmark model is no 68-point predictor.
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
