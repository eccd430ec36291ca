"""Face detection, 68 landmarks and identity descriptors, with dlib's models or `heads`; no other module imports dlib.

Coordinates are pixels from the left and top edge of the frame: the center of the first pixel is at 0.5. The 68-point
model in the package face-recognition-models was trained on iBUG 300-W, whose terms exclude commercial use. An argument
or the environment variable TH_JAX_LANDMARK_MODEL selects another one: `heads` (`th_jax.faces.landmark_cascade`), or the
file of a dlib predictor of the same 68 points.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.faces.landmark_cascade import CASCADE_FILE, cascade_landmarks
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.optional import EXTRA_HINT
from th_jax.storage.files import file_sha256

LANDMARK_MODEL_VARIABLE = "TH_JAX_LANDMARK_MODEL"

DLIB, HEADS = "dlib", "heads"
"""Names of landmark models: dlib's own, the default, and this project's, learned from rendered heads."""

LANDMARK_MODEL_HELP = (
    f"model of the 68 landmarks: {DLIB} (for non-commercial use), {HEADS} (this project's), or the file of a dlib predictor; "
    f"default: {LANDMARK_MODEL_VARIABLE}, or {DLIB}"
)

MODELS_PACKAGE = "face-recognition-models"
_LANDMARK_FILE = "shape_predictor_68_face_landmarks.dat"
_IDENTITY_FILE = "dlib_face_recognition_resnet_model_v1.dat"

SEARCH_SIDE = 1280
"""Larger frames are first searched on a reduced copy: HOG finds faces from 80 px on, and takes 0.1 s per million pixels."""

NEEDED_IN_VIDEO = f"at least 80 px and 1/{SEARCH_SIDE // 80} of the longer side wide"
"""Description of the minimum size of a face in a video; in photos, enlarged copies show smaller ones."""

ENLARGED_SIDE = 1024
"""Maximum longer side of an enlarged copy, so that only small images are enlarged."""

LANDMARK_SIDE = 300.0
"""Boxes below this side in pixels are enlarged before prediction, because the predictor returns whole pixels of its input.

When a portrait is moved by fractions of a pixel, the points of an 88 px face jump by 0.51 px (root mean square) without
enlargement, 0.31 px at 200 and 0.25 px at 300; those of a 31 px face by 0.42, 0.10 and 0.09 px.
"""


_ONE_AT_A_TIME = threading.Lock()
"""dlib releases the GIL while it works, but its models have state: two threads at once crash or mix up their images."""


class Box(NamedTuple):
    """A rectangle in pixels, edges included; it may extend beyond the frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def side(self) -> float:
        """Geometric mean of width and height, in pixels."""
        return float(np.sqrt(max(self.right - self.left, 0.0) * max(self.bottom - self.top, 0.0)))

    @property
    def center(self) -> Float[np.ndarray, "2"]:
        """x and y of the center, in pixels."""
        return np.array([(self.left + self.right) / 2, (self.top + self.bottom) / 2])


class OutsideFrameError(ValueError):
    """A box contains no pixel of the frame."""


class Face(NamedTuple):
    """A detected face with the detector's score: 0 at the detector's own threshold, above 1 for clear faces."""

    box: Box
    score: float


def detect_faces(frame: UInt8[np.ndarray, "H W 3"], *, min_score: float = 0.0) -> list[Face]:
    """Detect faces in an RGB frame with dlib's HOG detector, sorted by descending score.

    The frame is searched at its own size (reduced to SEARCH_SIDE). Only if nothing is found and the image is small, it
    is enlarged two and then four times, which finds faces from 20 px on.

    Raises:
        ImportError: if the extra `video` is not installed.
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


def detect_in_region(frame: UInt8[np.ndarray, "H W 3"], region: Box) -> list[Face]:
    """Detect faces in a region that should contain a face of about half its side; faster than a whole search.

    Raises:
        ImportError: if the extra `video` is not installed.
    """
    left, top, part = _cut(frame, region)
    if part.size == 0:
        return []
    faces = _detect_scaled(part, _REGION_FACE / max(region.side / 2, 1.0), -0.5)
    return [Face(Box(b.left + left, b.top + top, b.right + left, b.bottom + top), score) for b, score in faces]


_REGION_FACE = 110.0
"""Size in pixels to which the expected face is resized for a search in a region, slightly above HOG's minimum."""


def most_prominent(faces: Sequence[Face]) -> tuple[Face, int]:
    """Return the face with the largest product of score and box side, and the number of its rivals.

    A rival has at least half its score and 0.6 of its side: another person in the image, but neither someone in the
    background nor a false detection, which have low scores.

    Raises:
        ValueError: if there are no faces.
    """
    if not faces:
        raise ValueError("the list of faces is empty")
    best = max(faces, key=lambda face: face.score * face.box.side)
    rivals = [f for f in faces if f.score >= 0.5 * best.score and f.box.side >= 0.6 * best.box.side and f is not best]
    return best, len(rivals)


def predict_landmarks(
    frame: UInt8[np.ndarray, "H W 3"], box: Box, *, model: str | Path | None = None
) -> Float[np.ndarray, "68 2"]:
    """Predict the 68 landmarks of the face in a box, in pixels; dlib's predictor rounds them to pixel centers.

    The box need not contain a face: the model always returns the shape of one.

    Args:
        frame: RGB frame.
        box: box of the face.
        model: `heads`, `dlib`, or the file of a dlib predictor; by default, the environment's choice, or else `dlib`.

    Raises:
        ImportError: if the extra `video` is not installed.
        FileNotFoundError: if no landmark model is installed, or the given one does not exist.
        ValueError: if the model is not a 68-point predictor.
    """
    path = landmark_model_file(model=model)
    if path == CASCADE_FILE:
        return cascade_landmarks(frame, box.center, box.side)[:IBUG_POINTS].astype(np.float32)
    dlib, predictor = _dlib(), _landmark_predictor(str(path))
    # dlib's rectangles include their last pixel.
    rectangle = dlib.rectangle(round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1)
    with _ONE_AT_A_TIME:
        shape = predictor(np.ascontiguousarray(frame), rectangle)
    if shape.num_parts != 68:
        raise ValueError(
            f"the landmark model predicts {shape.num_parts} points, but one for the 68 iBUG points is required"
        )
    return np.array([(point.x + 0.5, point.y + 0.5) for point in shape.parts()], np.float32)


def landmarks_in_box(
    frame: UInt8[np.ndarray, "H W 3"], box: Box, *, min_side: float = LANDMARK_SIDE, model: str | Path | None = None
) -> Float[np.ndarray, "68 2"]:
    """Predict the 68 landmarks of the face in a box with subpixel accuracy: for dlib, small boxes are enlarged to `min_side`.

    Raises:
        OutsideFrameError: a ValueError, if the box lies outside the frame.
        ImportError, FileNotFoundError, ValueError: as `predict_landmarks`.
    """
    margin = box.side / 2
    around = Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)
    left, top, part = _cut(frame, around)
    if part.size == 0 or box.side < 1:
        raise OutsideFrameError(
            f"the box {tuple(round(float(edge), 1) for edge in box)} lies outside the frame of shape {frame.shape[:2]}"
        )
    if landmark_model_file(model=model) == CASCADE_FILE:
        return predict_landmarks(frame, box, model=model)
    scale = max(1.0, min_side / box.side)
    enlarged = _resize(part, scale)
    edges = ((box.left - left), (box.top - top), (box.right - left), (box.bottom - top))
    points = predict_landmarks(enlarged, Box(*(edge * scale for edge in edges)), model=model)
    factors = np.array([enlarged.shape[1] / part.shape[1], enlarged.shape[0] / part.shape[0]])
    return (points / factors + (left, top)).astype(np.float32)


def face_descriptor(
    frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]
) -> Float[np.ndarray, "128"]:
    """Compute an identity descriptor of a face.

    The L2 distance of two descriptors is about 0.2 to 0.4 for the same person, and 0.65 or more for different people.

    Raises:
        ImportError: if the extra `video` is not installed.
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
    """Cut out the part of the frame inside a box, in whole pixels, and return its left and top edge with it."""
    left, top = max(0, int(np.floor(box.left))), max(0, int(np.floor(box.top)))
    return left, top, frame[top : max(top, int(np.ceil(box.bottom))), left : max(left, int(np.ceil(box.right)))]


def _dlib() -> ModuleType:
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise ImportError(f"face detection requires dlib: {EXTRA_HINT}") from error


@functools.cache
def _model_path(name: str) -> Path:
    # Only the package's files are used: its __init__ imports pkg_resources, which new installations lack.
    try:
        files = importlib.metadata.files(MODELS_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name and (path := Path(str(file.locate()))).is_file():
            return path
    raise FileNotFoundError(f"{name} is not installed: {EXTRA_HINT} installs the package {MODELS_PACKAGE}")


def landmark_model_file(*, model: str | Path | None = None) -> Path:
    """Return the file of a landmark model.

    Args:
        model: `heads`, `dlib`, or the file of a dlib predictor; by default, the environment's choice, or else `dlib`.

    Raises:
        FileNotFoundError: if it does not exist, or dlib's is not installed.
    """
    named = str(model or os.environ.get(LANDMARK_MODEL_VARIABLE) or DLIB)
    if named == DLIB:
        return _model_path(_LANDMARK_FILE)
    if named == HEADS:
        return CASCADE_FILE
    if not Path(named).is_file():
        raise FileNotFoundError(
            f"the landmark model {named} does not exist: name {HEADS}, {DLIB} or the file of a 68-point dlib predictor, "
            f"or unset {LANDMARK_MODEL_VARIABLE} to use {DLIB}, the one of {MODELS_PACKAGE}"
        )
    return Path(named)


def landmark_model_digest() -> str | None:
    """Return the SHA-256 of the landmark model that the environment chooses; None for dlib's own.

    Raises:
        FileNotFoundError: if the model does not exist, or cannot be read.
    """
    if os.environ.get(LANDMARK_MODEL_VARIABLE, "") in ("", DLIB):
        return None
    path = landmark_model_file()
    try:
        return _file_digest(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise FileNotFoundError(f"the landmark model {path} cannot be read: {error}") from error


@functools.cache
def _file_digest(path: Path, changed: int) -> str:
    """Return the SHA-256 of a file that was last changed at this time: a run asks for it once a person."""
    return file_sha256(path)


@contextlib.contextmanager
def using_landmark_model(model: str | Path | None) -> Iterator[None]:
    """Context manager that chooses the landmark model of this process, and of those that it starts; None changes nothing.

    Raises:
        FileNotFoundError: if the model does not exist.
    """
    if model is None:
        yield
        return
    landmark_model_file(model=model)
    before = os.environ.get(LANDMARK_MODEL_VARIABLE)
    os.environ[LANDMARK_MODEL_VARIABLE] = str(model)
    try:
        yield
    finally:
        if before is None:
            del os.environ[LANDMARK_MODEL_VARIABLE]
        else:
            os.environ[LANDMARK_MODEL_VARIABLE] = before


@functools.cache
def _detector() -> Any:
    return _dlib().get_frontal_face_detector()


@functools.cache
def _landmark_predictor(path: str) -> Any:
    dlib = _dlib()
    try:
        return dlib.shape_predictor(path)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a dlib shape predictor: {error}") from error


@functools.cache
def _identity_network() -> Any:
    return _dlib().face_recognition_model_v1(str(_model_path(_IDENTITY_FILE)))
