"""Quality checks of frames: the reasons to drop a frame, clip or video, their thresholds, and the measurements."""

import enum
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from th_jax.faces import Square, box_around, face_size, to_crop
from th_jax.media import MediaError, MediaFault


class Reason(enum.StrEnum):
    """Reason of a drop; the drop report contains the numbers that are named here."""

    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    """There is another face of similar score and size; for a segment: at its start, so the tracked person is unknown."""
    OTHER_PERSON = "other_person"
    """The face of a segment differs (`distance`) from that of the video's longest segment."""
    TOO_SMALL = "too_small"
    TOO_BLURRED = "too_blurred"
    TOO_DARK = "too_dark"
    OUT_OF_FRAME = "out_of_frame"
    LANDMARK_JUMP = "landmark_jump"
    """The landmarks change when the predictor runs again, so they are unreliable."""
    DUPLICATE_FRAME = "duplicate_frame"
    TOO_SHORT = "too_short"
    """The video has fewer usable frames than a record needs."""
    UNDECODABLE = "undecodable"
    UNSUPPORTED = "unsupported"
    """The file type, the codec or the place in the folder is not supported."""
    OVER_LIMITS = "over_limits"
    TAKEN_DOWN = "taken_down"
    """The person or the video is on the takedown list; the line contains no name."""
    FAILED = "failed"
    """The program failed, or its process died: a bug to report, whatever the file."""


class Thresholds(NamedTuple):
    """Thresholds of a usable frame. The defaults separate good frames of real clips from degraded copies of them."""

    face: float = 40.0
    """Minimum size of the face in the source, in pixels (`th_jax.faces.face_size`)."""
    sharpness: float = 0.2
    """Minimum `sharpness`: good frames have 0.31 to 0.84; blurred by 4 % of the face's size, 0.07 to 0.24."""
    brightness: float = 50.0
    """Minimum gray value (0 to 255) of the face's brightest tenth; 80 to 196 in the same frames."""
    landmark_jump: float = 0.04
    """Maximum mean distance, in face sizes, between two runs of the predictor; median 0.004, at most 0.022 in a talk."""
    points_outside: int = 4
    """Maximum number of the 68 points outside the frame or the crop; they are recorded as unknown."""
    duplicate: float = 0.5
    """Minimum mean difference of two `face_patch`es (0 to 255); 0.77 between frames of a man who hardly moves."""
    same_person: float = 0.6
    """L2 distance between two face descriptors below which they count as the same person."""
    frames: int = 9
    """Minimum number of frames of a record: 8 sources and a target."""


class Measured(NamedTuple):
    """Measurements of a face in a frame; the units are those of `Thresholds`."""

    size: float
    sharpness: float
    brightness: float
    landmark_jump: float


_PATCH = 64


def face_patch(
    frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]
) -> Float32[np.ndarray, "64 64"] | None:
    """Crop the face's box in gray, 0 to 255, to a fixed size; None if it lies outside the frame."""
    left, top, right, bottom = (round(edge) for edge in box_around(landmarks))
    inside = frame[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if not inside.size:
        return None
    gray = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA).astype(np.float32)


def sharpness(patch: Float32[np.ndarray, "N N"]) -> float:
    """Compute the deviation of the Laplacian relative to the patch's own: fine detail, for any light and size."""
    return float(cv2.Laplacian(patch, cv2.CV_32F).std() / (patch.std() + 1.0))


def measure(
    landmarks: Float[np.ndarray, "68 2"], *, before: Float[np.ndarray, "68 2"], patch: Float32[np.ndarray, "N N"]
) -> Measured:
    """Measure a face from its landmarks in pixels, those of a run `before`, and its `face_patch`."""
    brightness = float(np.percentile(patch, 90))
    return Measured(float(face_size(landmarks)), sharpness(patch), brightness, disagreement(landmarks, before))


def disagreement(landmarks: Float[np.ndarray, "68 2"], before: Float[np.ndarray, "68 2"]) -> float:
    """Compute the mean distance between two sets of landmarks of the same face, in face sizes."""
    return float(np.linalg.norm(landmarks - before, axis=-1).mean() / face_size(landmarks))


def judge(measured: Measured, thresholds: Thresholds) -> tuple[Reason, dict[str, float]] | None:
    """Return the first reason to drop a face, with its numbers; None for a usable face."""
    for reason, name, value, least in (
        (Reason.TOO_SMALL, "face", measured.size, thresholds.face),
        (Reason.TOO_DARK, "brightness", measured.brightness, thresholds.brightness),
        (Reason.TOO_BLURRED, "sharpness", measured.sharpness, thresholds.sharpness),
    ):
        if value < least:
            return reason, {name: value, "least": least}
    if measured.landmark_jump > thresholds.landmark_jump:
        return Reason.LANDMARK_JUMP, {"jump": measured.landmark_jump, "most": thresholds.landmark_jump}
    return None


def points_in_crop(
    landmarks: Float[np.ndarray, "P 2"], square: Square, *, height: int, width: int
) -> Float32[np.ndarray, "P 2"]:
    """Convert landmarks from pixels to [0, 1] of the square, NaN outside the square or the frame."""
    points = to_crop(landmarks, square).astype(np.float32)
    inside = ((points >= 0) & (points <= 1)).all(-1)
    inside &= ((landmarks >= 0) & (landmarks <= (width, height))).all(-1)
    points[~inside] = np.nan
    return points


def reason_of(error: MediaError, path: str) -> tuple[Reason, str]:
    """Convert an error of `th_jax.media` to a reason, and its message without the local `path`."""
    return _REASONS.get(error.fault, Reason.UNDECODABLE), str(error).replace(path, "it")


_REASONS = {MediaFault.OVER_LIMITS: Reason.OVER_LIMITS, MediaFault.UNSUPPORTED: Reason.UNSUPPORTED}
