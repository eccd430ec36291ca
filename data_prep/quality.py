"""Why a frame, a clip or a video is left out of the records: the reasons, their thresholds, and what is measured."""

import enum
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from th_jax.faces import Square, box_around, face_size, to_crop
from th_jax.media import MediaError, MediaFault


class Reason(enum.StrEnum):
    """Why something was dropped; the numbers of the manifest's lines are those named here."""

    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    """Another face of similar score and size is there; of a segment: when it began, so nobody knows who is followed."""
    OTHER_PERSON = "other_person"
    """A segment whose face differs (`distance`) from that of the video's longest one."""
    TOO_SMALL = "too_small"
    TOO_BLURRED = "too_blurred"
    TOO_DARK = "too_dark"
    OUT_OF_FRAME = "out_of_frame"
    LANDMARK_JUMP = "landmark_jump"
    """The landmarks jump when the predictor looks again: it is not sure of them."""
    DUPLICATE_FRAME = "duplicate_frame"
    TOO_SHORT = "too_short"
    """Fewer usable frames than a record needs are left of the video."""
    UNDECODABLE = "undecodable"
    UNSUPPORTED = "unsupported"
    """No kind of file, codec or place in the folder that is read here."""
    OVER_LIMITS = "over_limits"
    TAKEN_DOWN = "taken_down"
    """The person or the video is on a list of those to be left out; its line names nobody."""
    FAILED = "failed"
    """The program failed on it, or its process died: a fault to be reported, whatever the file."""


class Thresholds(NamedTuple):
    """What a frame must reach. The defaults are set between good frames of real clips and spoilt copies of them."""

    face: float = 40.0
    """Least size of the face in the source, in pixels (`th_jax.faces.face_size`)."""
    sharpness: float = 0.2
    """Least `sharpness`: good frames have 0.31 to 0.84; blurred by 4 % of the face's size, 0.07 to 0.24."""
    brightness: float = 50.0
    """Least grey value, of 255, of the face's brightest tenth; 80 to 196 in the same frames."""
    landmark_jump: float = 0.04
    """Greatest mean distance, in face sizes, of two looks at the same face; median 0.004, at most 0.022 in a talk."""
    points_outside: int = 4
    """Most of the 68 points that may lie outside of the frame or the crop; they are recorded as unknown."""
    duplicate: float = 0.5
    """Least mean difference of two `face_patch`es, of 255; 0.77 between frames of a man who hardly moves."""
    same_person: float = 0.6
    """L2 distance of two face descriptors below which they are taken for one person's."""
    frames: int = 9
    """Least frames of a record: 8 sources and a target."""


class Measured(NamedTuple):
    """What a face in a frame was found to be: see `Thresholds` for the units."""

    size: float
    sharpness: float
    brightness: float
    landmark_jump: float


_PATCH = 64


def face_patch(
    frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]
) -> Float32[np.ndarray, "64 64"] | None:
    """The face's box in grey, 0..255, at a fixed size; None if no pixel of it lies in the frame."""
    left, top, right, bottom = (round(edge) for edge in box_around(landmarks))
    inside = frame[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if not inside.size:
        return None
    grey = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA).astype(np.float32)


def sharpness(patch: Float32[np.ndarray, "N N"]) -> float:
    """Deviation of the Laplacian as a share of the patch's own: fine detail, whatever the light and the size."""
    return float(cv2.Laplacian(patch, cv2.CV_32F).std() / (patch.std() + 1.0))


def measure(
    landmarks: Float[np.ndarray, "68 2"], *, before: Float[np.ndarray, "68 2"], patch: Float32[np.ndarray, "N N"]
) -> Measured:
    """The measures of a face from its landmarks in pixels, those of the look `before`, and its `face_patch`."""
    brightness = float(np.percentile(patch, 90))
    return Measured(float(face_size(landmarks)), sharpness(patch), brightness, disagreement(landmarks, before))


def disagreement(landmarks: Float[np.ndarray, "68 2"], before: Float[np.ndarray, "68 2"]) -> float:
    """The mean distance of two looks at the same face, in face sizes."""
    return float(np.linalg.norm(landmarks - before, axis=-1).mean() / face_size(landmarks))


def judge(measured: Measured, thresholds: Thresholds) -> tuple[Reason, dict[str, float]] | None:
    """The first reason against a face, with its numbers; None if there is none."""
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
    """Landmarks in pixels as shares of the square, NaN where they lie outside of it or of the frame."""
    points = to_crop(landmarks, square).astype(np.float32)
    inside = ((points >= 0) & (points <= 1)).all(-1)
    inside &= ((landmarks >= 0) & (landmarks <= (width, height))).all(-1)
    points[~inside] = np.nan
    return points


def reason_of(error: MediaError, path: str) -> tuple[Reason, str]:
    """The reason that stands for a refusal by `th_jax.media`, and its sentence without the machine's own `path`."""
    return _REASONS.get(error.fault, Reason.UNDECODABLE), str(error).replace(path, "it")


_REASONS = {MediaFault.OVER_LIMITS: Reason.OVER_LIMITS, MediaFault.UNSUPPORTED: Reason.UNSUPPORTED}
