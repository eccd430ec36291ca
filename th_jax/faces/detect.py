"""Finds faces, their 68 landmarks and a descriptor of identity with dlib's models; nothing else imports dlib.

Coordinates are pixels from the left and the top edge of the frame: the centre of the first pixel is at 0.5. The
68-point model that the package face-recognition-models carries was trained on iBUG 300-W, whose terms exclude
commercial use; another predictor of the same 68 points is named by an argument or by the environment variable
TH_JAX_LANDMARK_MODEL.
"""

import functools
import importlib
import importlib.metadata
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

LANDMARK_MODEL_VARIABLE = "TH_JAX_LANDMARK_MODEL"

MODELS_PACKAGE = "face-recognition-models"
_LANDMARK_FILE = "shape_predictor_68_face_landmarks.dat"
_IDENTITY_FILE = "dlib_face_recognition_resnet_model_v1.dat"
_EXTRA_HINT = "pip install 'th_jax[video]'"

SEARCH_SIDE = 1280
"""Longer frames are searched on a reduced copy first: HOG finds faces from 80 px, and costs 0.1 s a million pixels."""

NEEDED_IN_FILM = f"at least 80 px and 1/{SEARCH_SIDE // 80} of the longer side wide"
"""How large a face must be to be found in a film, in words; in photos, enlarged copies show smaller ones."""

ENLARGED_SIDE = 1024
"""No enlarged copy is searched whose longer side would be above this, so only small pictures are enlarged."""

LANDMARK_SIDE = 300.0
"""Boxes below this many pixels are enlarged before the predictor runs: it answers in whole pixels of what it sees.

A portrait moved by parts of a pixel makes the points of an 88 px face jump by 0.51 px (root mean square) without
enlargement, by 0.31 px at 200 and 0.25 px at 300; of a 31 px face by 0.42, 0.10 and 0.09 px.
"""


_ONE_AT_A_TIME = threading.Lock()
"""dlib lets other threads run while it works, but its models keep state: two threads at once crash or mix their pictures."""


class Box(NamedTuple):
    """A rectangle in pixels, edges included; it may reach beyond the frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def side(self) -> float:
        """The geometric mean of width and height, in pixels."""
        return float(np.sqrt(max(self.right - self.left, 0.0) * max(self.bottom - self.top, 0.0)))

    @property
    def center(self) -> Float[np.ndarray, "2"]:
        """x and y of the middle, in pixels."""
        return np.array([(self.left + self.right) / 2, (self.top + self.bottom) / 2])


class OutsideFrameError(ValueError):
    """A box holds no pixel of the frame."""


class Face(NamedTuple):
    """A detected face and the detector's score: 0 at the detector's own threshold, above 1 for clear faces."""

    box: Box
    score: float


def detect_faces(frame: UInt8[np.ndarray, "H W 3"], *, min_score: float = 0.0) -> list[Face]:
    """Faces of an RGB frame by dlib's HOG detector, the highest score first.

    The frame is searched at its own size (reduced to SEARCH_SIDE). Only if that finds nothing and the picture is
    small, a copy of twice and then of four times the size is searched, which finds faces from 20 px.

    Raises:
        ImportError: without the extra `video`.
    """
    height, width = frame.shape[:2]
    scale = min(1.0, SEARCH_SIDE / max(height, width))
    for enlargement in (1, 2, 4):
        if enlargement > 1 and enlargement * max(height, width) > ENLARGED_SIDE:
            break
        faces = _detect_scaled(frame, scale * enlargement, min_score)
        if faces:
            return faces
    return []


def detect_in_region(frame: UInt8[np.ndarray, "H W 3"], region: Box, *, min_score: float = -0.5) -> list[Face]:
    """Faces within a part of the frame that should hold one of about half its side; cheaper than a whole search.

    Raises:
        ImportError: without the extra `video`.
    """
    left, top, part = _cut(frame, region)
    if part.size == 0:
        return []
    faces = _detect_scaled(part, _REGION_FACE / max(region.side / 2, 1.0), min_score)
    return [Face(Box(b.left + left, b.top + top, b.right + left, b.bottom + top), score) for b, score in faces]


_REGION_FACE = 110.0
"""Pixels to which an expected face is resized for a search in a region: a little above the smallest that HOG finds."""


def most_prominent(faces: Sequence[Face]) -> tuple[Face, int]:
    """The face with the largest product of score and box side, and how many rivals it has.

    A rival has at least half its score and at least 0.6 of its side: somebody else in the picture, not in the
    background, and no false alarm of the detector, whose scores are low.

    Raises:
        ValueError: if there is no face.
    """
    if not faces:
        raise ValueError("there is no face to choose from")
    best = max(faces, key=lambda face: face.score * face.box.side)
    rivals = [f for f in faces if f.score >= 0.5 * best.score and f.box.side >= 0.6 * best.box.side and f is not best]
    return best, len(rivals)


def predict_landmarks(
    frame: UInt8[np.ndarray, "H W 3"], box: Box, *, model: str | Path | None = None
) -> Float[np.ndarray, "68 2"]:
    """The 68 landmarks of the face in a box, in pixels, rounded to pixel centres as dlib's predictor answers.

    A face is not needed: the predictor always answers with the shape of one.

    Raises:
        ImportError: without the extra `video`.
        FileNotFoundError: if no landmark model is installed or the named one does not exist.
        ValueError: if the model is no 68-point predictor.
    """
    dlib, predictor = _dlib(), _landmark_predictor(_landmark_model_path(model))
    # dlib counts pixels, its rectangles include their last one.
    rectangle = dlib.rectangle(round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1)
    with _ONE_AT_A_TIME:
        shape = predictor(np.ascontiguousarray(frame), rectangle)
    if shape.num_parts != 68:
        raise ValueError(
            f"the landmark model gives {shape.num_parts} points: a predictor of the 68 iBUG points is needed"
        )
    return np.array([(point.x + 0.5, point.y + 0.5) for point in shape.parts()], np.float32)


def landmarks_in_box(
    frame: UInt8[np.ndarray, "H W 3"], box: Box, *, min_side: float = LANDMARK_SIDE, model: str | Path | None = None
) -> Float[np.ndarray, "68 2"]:
    """The 68 landmarks of the face in a known box, finer than a pixel: small boxes are enlarged to `min_side`.

    Raises:
        OutsideFrameError: a ValueError, for a box outside of the frame.
        ImportError, FileNotFoundError, ValueError: as `predict_landmarks`.
    """
    margin = box.side / 2
    around = Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)
    left, top, part = _cut(frame, around)
    if part.size == 0 or box.side < 1:
        raise OutsideFrameError(
            f"the box {tuple(round(float(edge), 1) for edge in box)} holds no pixel of the frame {frame.shape[:2]}"
        )
    scale = max(1.0, min_side / box.side)
    enlarged = _resize(part, scale)
    edges = ((box.left - left), (box.top - top), (box.right - left), (box.bottom - top))
    points = predict_landmarks(enlarged, Box(*(edge * scale for edge in edges)), model=model)
    factors = np.array([enlarged.shape[1] / part.shape[1], enlarged.shape[0] / part.shape[0]])
    return (points / factors + (left, top)).astype(np.float32)


def face_descriptor(
    frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]
) -> Float[np.ndarray, "128"]:
    """A descriptor of the person: two of them are about 0.2 to 0.4 apart (L2) for one person, 0.65 and more for two.

    Raises:
        ImportError: without the extra `video`.
        FileNotFoundError: if the package of models is not installed.
    """
    dlib, network = _dlib(), _identity_network()
    points = [dlib.point(int(x), int(y)) for x, y in np.floor(landmarks)]
    (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
    face = dlib.full_object_detection(dlib.rectangle(int(left), int(top), int(right), int(bottom)), points)
    with _ONE_AT_A_TIME:
        return np.array(network.compute_face_descriptor(np.ascontiguousarray(frame), face), np.float32)


def _detect_scaled(frame: np.ndarray, scale: float, min_score: float) -> list[Face]:
    resized = _resize(frame, scale)
    across, down = frame.shape[1] / resized.shape[1], frame.shape[0] / resized.shape[0]
    with _ONE_AT_A_TIME:
        rectangles, scores, _ = _detector().run(resized, 0, min_score)
    faces = [
        Face(Box(r.left() * across, r.top() * down, (r.right() + 1) * across, (r.bottom() + 1) * down), float(score))
        for r, score in zip(rectangles, scores, strict=True)
    ]
    return sorted(faces, key=lambda face: -face.score)


def _resize(frame: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return np.ascontiguousarray(frame)
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def _cut(frame: np.ndarray, box: Box) -> tuple[int, int, np.ndarray]:
    """The part of the frame inside a box, whole pixels, with its left and top edge."""
    left, top = max(0, int(np.floor(box.left))), max(0, int(np.floor(box.top)))
    return left, top, frame[top : max(top, int(np.ceil(box.bottom))), left : max(left, int(np.ceil(box.right)))]


def _dlib() -> ModuleType:
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise ImportError(f"finding faces needs dlib: {_EXTRA_HINT}") from error


@functools.cache
def _model_path(name: str) -> Path:
    # The package's own __init__ imports pkg_resources, which new installations lack: only its files are used.
    try:
        files = importlib.metadata.files(MODELS_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name and (path := Path(str(file.locate()))).is_file():
            return path
    raise FileNotFoundError(f"{name} is not installed: {_EXTRA_HINT} brings the package {MODELS_PACKAGE}")


def _landmark_model_path(model: str | Path | None) -> str:
    named = model or os.environ.get(LANDMARK_MODEL_VARIABLE)
    if not named:
        return str(_model_path(_LANDMARK_FILE))
    if not Path(named).is_file():
        raise FileNotFoundError(
            f"the landmark model {named} does not exist: name a dlib predictor of 68 points, or unset "
            f"{LANDMARK_MODEL_VARIABLE} to use the one of {MODELS_PACKAGE}"
        )
    return str(named)


@functools.cache
def _detector() -> Any:
    return _dlib().get_frontal_face_detector()


@functools.cache
def _landmark_predictor(path: str) -> Any:
    dlib = _dlib()
    try:
        return dlib.shape_predictor(path)
    except RuntimeError as error:
        raise ValueError(f"{path} is no dlib shape predictor: {error}") from error


@functools.cache
def _identity_network() -> Any:
    return _dlib().face_recognition_model_v1(str(_model_path(_IDENTITY_FILE)))
