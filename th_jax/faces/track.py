"""Tracks one face through a video, in segments that end where the shot changes or the face is lost.

The predictor runs in a box derived from the previous frame's landmarks, which is more stable and ten times faster than
detection. The detector confirms the face at intervals, and at once where the image inside the box changes abruptly.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from th_jax.faces.crop import face_size
from th_jax.faces.detect import (
    Box,
    Face,
    OutsideFrameError,
    detect_faces,
    detect_in_region,
    landmarks_in_box,
    most_prominent,
)

CUT_DIFFERENCE = 30.0
"""Mean difference of two 32 px gray thumbnails, of 255, above which the shot has changed unless they are similar."""

SAME_SHOT = 0.8
"""Correlation of the thumbnails above which only the light has changed: a flash, a lamp, the camera's exposure."""

FLASH_SECONDS = 0.3
"""Maximum duration in seconds of an interruption after which the same shot continues."""

MAX_JUMP = 0.35
"""Maximum motion of a face between two frames, in face sizes, before the detector is run."""

MAX_RESIZE = 1.25
"""Maximum factor by which a face grows or shrinks between two frames before the detector is run."""

MIN_LIKENESS = 0.5
"""Minimum correlation of the image in the box with that of the last frame before the detector is run."""

DRIFT = 0.03
"""Mean distance from the detector's landmarks, in face sizes, above which the predicted ones have drifted."""

_THUMBNAIL = 32
_NEAR = 0.6
"""Maximum distance of the centers of two boxes of the same face, in face sizes."""


class TrackedFrame(NamedTuple):
    """Tracking result of one frame."""

    landmarks: Float[np.ndarray, "68 2"]
    """Landmarks in frame pixels; NaN if no face was found."""
    segment: int
    """Segment number; -1 if no face was found."""
    rivals: int
    """Number of other faces with similar score and size if the whole frame was searched; 0 otherwise."""


class Track(NamedTuple):
    """One face tracked through S frames: the fields of `TrackedFrame`, stacked."""

    landmarks: Float[np.ndarray, "S 68 2"]
    segment: Int[np.ndarray, " S"]
    rivals: Int[np.ndarray, " S"]


@runtime_checkable
class FaceChooser(Protocol):
    """Chooses one person's face among those detected in a frame (`th_jax.faces.people.PersonChooser`)."""

    def choose(self, frame: UInt8[np.ndarray, "H W 3"], faces: Sequence[Face]) -> Face | None:
        """Return the person's face, or None."""

    def is_other(self, frame: UInt8[np.ndarray, "H W 3"], face: Face) -> bool:
        """Return whether a face is another known person's."""


def track_faces(
    frames: Iterable[UInt8[np.ndarray, "_ _ 3"]],
    *,
    detect_every: int = 8,
    max_gap: int = 5,
    choose: FaceChooser | None = None,
    model: str | Path | None = None,
) -> Track:
    """Track the most prominent face through a stream of RGB frames, which are not kept; see `follow_face`.

    Raises:
        ValueError, ImportError, FileNotFoundError: as `follow_face`.
    """
    tracked = list(follow_face(frames, detect_every=detect_every, max_gap=max_gap, choose=choose, model=model))
    landmarks = [frame.landmarks for frame in tracked] or np.zeros((0, 68, 2), np.float32)
    return Track(
        np.asarray(landmarks, np.float32),
        np.array([frame.segment for frame in tracked], np.int64),
        np.array([frame.rivals for frame in tracked], np.int64),
    )


def segments(track: Track, *, min_frames: int = 1) -> list[slice]:
    """Return the slices of segments with at least `min_frames` detected faces, in order; short gaps inside are NaN."""
    found: list[slice] = []
    for number in range(int(track.segment.max(initial=-1)) + 1):
        indices = np.flatnonzero(track.segment == number)
        if len(indices) >= max(1, min_frames):
            found.append(slice(int(indices[0]), int(indices[-1]) + 1))
    return found


def follow_face(
    frames: Iterable[UInt8[np.ndarray, "_ _ 3"]],
    *,
    detect_every: int = 8,
    max_gap: int = 5,
    max_flash: int = 0,
    choose: FaceChooser | None = None,
    model: str | Path | None = None,
) -> Iterator[TrackedFrame]:
    """Yield the face of each frame as soon as the frame arrives, in constant memory.

    The detector confirms the face every `detect_every` frames. A face that it does not confirm, such as a profile, is
    tracked for as many frames again. A face that is found again in its place after at most `max_gap` frames keeps its
    segment. A shot that returns after at most `max_flash` frames of anything else continues its segment; the segment of
    a face found in between lies within it. Frames that are 0.2 s or more apart need `detect_every=1`, because a head
    moves further between them than predictions can follow. `choose` selects among the faces whenever the whole frame is
    searched; by default, the most prominent one is tracked.

    Raises:
        ValueError: if `detect_every` is below 1, or `max_gap` or `max_flash` below 0.
        ImportError, FileNotFoundError, ValueError: as `predict_landmarks`, for the landmark model.
    """
    if detect_every < 1 or min(max_gap, max_flash) < 0:
        raise ValueError(
            f"detect_every must be at least 1, max_gap and max_flash at least 0, got {detect_every}, {max_gap} and "
            f"{max_flash}"
        )
    return _Follower(detect_every, max_gap, max_flash, choose, model).follow(frames)


def box_around(landmarks: Float[np.ndarray, "68 2"]) -> Box:
    """Compute the box that dlib's detector would draw around these landmarks (fitted to 162 frames of four people)."""
    size = float(face_size(landmarks))
    x, y = landmarks.mean(0) - (0.0, 0.063 * size)
    return Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def settled_landmarks(
    frame: UInt8[np.ndarray, "H W 3"], box: Box, *, model: str | Path | None = None
) -> Float[np.ndarray, "68 2"]:
    """Predict the landmarks of a face in a detector's box, in pixels, and again in `box_around` the first ones.

    The detector's boxes lie on a coarse grid. The second prediction removes their jumps, so that single images and
    videos agree.

    Raises:
        OutsideFrameError: a ValueError, if the face lies outside the frame.
        ImportError, FileNotFoundError, ValueError: as `predict_landmarks`, for the landmark model.
    """
    return landmarks_in_box(frame, box_around(landmarks_in_box(frame, box, model=model)), model=model)


class _Shot(NamedTuple):
    """Tracking state before the shot changed."""

    age: int
    """Number of frames since then."""
    thumbnail: np.ndarray
    last: np.ndarray | None
    segment: int


class _Follower:
    """Tracking state between two frames."""

    def __init__(
        self, detect_every: int, max_gap: int, max_flash: int, choose: FaceChooser | None, model: str | Path | None
    ) -> None:
        self._detect_every, self._max_gap, self._max_flash, self._model = detect_every, max_gap, max_flash, model
        self._choose = choose
        self._segment = self._newest = -1
        self._before: _Shot | None = None
        self._last: np.ndarray | None = None  # last landmarks found
        self._gap = 0  # number of frames since then
        self._unconfirmed = 0  # number of frames since the detector confirmed the face
        self._shape: tuple[int, ...] = ()
        self._thumbnail = self._face = np.zeros((_THUMBNAIL, _THUMBNAIL), np.float32)

    def follow(self, frames: Iterable[np.ndarray]) -> Iterator[TrackedFrame]:
        for frame in frames:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            thumbnail = _shrink(grey)
            self._look_for_cut(frame, thumbnail)
            self._shape, self._thumbnail = frame.shape, thumbnail
            landmarks, rivals = self._find(frame, grey)
            if landmarks is None:
                self._gap += 1
                if self._gap > self._max_gap:
                    self._last = None
                yield TrackedFrame(np.full((68, 2), np.nan, np.float32), -1, rivals)
            else:
                self._last, self._gap, self._face = landmarks, 0, _patch(grey, landmarks)
                yield TrackedFrame(landmarks, self._segment, rivals)

    def _look_for_cut(self, frame: np.ndarray, thumbnail: np.ndarray) -> None:
        """Drop the last face at a shot change, and restore it when the previous shot returns."""
        before = self._before
        if before is not None:
            self._before = before = before._replace(age=before.age + 1) if before.age < self._max_flash else None
        if frame.shape != self._shape:
            self._last = self._before = None
        elif before is not None and not _is_cut(before.thumbnail, thumbnail):
            self._last, self._segment, self._before = before.last, before.segment, None
            self._gap = 1  # triggers a search for the face
        elif _is_cut(self._thumbnail, thumbnail):
            self._before = before or _Shot(0, self._thumbnail, self._last, self._segment)
            self._last = None

    def _find(self, frame: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray | None, int]:
        if self._last is not None and self._gap == 0:
            landmarks = self._continued(frame, grey, self._last)
            if landmarks is not None:
                return landmarks, 0
        return self._searched(frame)

    def _continued(self, frame: np.ndarray, grey: np.ndarray, last: np.ndarray) -> np.ndarray | None:
        """Predict landmarks from the last ones; None if motion, appearance or the detector contradict them."""
        landmarks = self._predicted(frame, box_around(last))
        if landmarks is None:
            return None
        self._unconfirmed += 1
        size, jump = face_size(last), np.linalg.norm(landmarks.mean(0) - last.mean(0))
        steady = jump < MAX_JUMP * size and abs(np.log(face_size(landmarks) / size)) < np.log(MAX_RESIZE)
        alike = _likeness(_patch(grey, landmarks), self._face) > MIN_LIKENESS
        if steady and alike and self._unconfirmed < self._detect_every:
            return landmarks
        near = self._detected(frame, landmarks)
        if near is not None and self._choose is not None and self._choose.is_other(frame, near):
            return None
        detected = None if near is None else self._predicted(frame, near.box, settle=True)
        if detected is not None:
            self._unconfirmed = 0
            return landmarks if _distance(landmarks, detected) < DRIFT else detected
        return landmarks if steady and alike and self._unconfirmed < 2 * self._detect_every else None

    def _detected(self, frame: np.ndarray, landmarks: np.ndarray) -> Face | None:
        """Return the detected face at the predicted one; None if the detector does not find it."""
        box = box_around(landmarks)
        margin = box.side / 2
        region = Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)
        return next((face for face in detect_in_region(frame, region) if _near(face, box)), None)

    def _searched(self, frame: np.ndarray) -> tuple[np.ndarray | None, int]:
        """Search for the last face in its place, or else for the most prominent one, which starts a new segment."""
        faces = detect_faces(frame)
        if not faces:
            return None, 0
        if self._choose is None:
            chosen, rivals = most_prominent(faces)
        else:
            found, rivals = self._choose.choose(frame, faces), 0
            if found is None:
                return None, 0
            chosen, faces = found, [found]
        same = [] if self._last is None else [face for face in faces if _near(face, box_around(self._last))]
        landmarks = self._predicted(frame, (same[0] if same else chosen).box, settle=True)
        if landmarks is not None:
            if not same:
                self._segment = self._newest = self._newest + 1
            self._unconfirmed = 0
        return landmarks, rivals

    def _predicted(self, frame: np.ndarray, box: Box, *, settle: bool = False) -> np.ndarray | None:
        try:
            landmarks = (settled_landmarks if settle else landmarks_in_box)(frame, box, model=self._model)
        except OutsideFrameError:  # the face has left the frame
            return None
        return landmarks


def _is_cut(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two thumbnails show different shots."""
    return bool(np.abs(one - other).mean() > CUT_DIFFERENCE and _likeness(one, other) < SAME_SHOT)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the mean distance of two sets of landmarks of one face, in face sizes."""
    return float(np.linalg.norm(one - other, axis=-1).mean() / face_size(other))


def _near(face: Face, box: Box) -> bool:
    size = max(box.side, 1.0)
    close = np.linalg.norm(face.box.center - box.center) < _NEAR * size
    return bool(close and 0.5 < face.box.side / size < 2.0)


def _shrink(grey: np.ndarray) -> np.ndarray:
    return cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)


def _patch(grey: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    box = box_around(landmarks)
    left, top = max(0, int(box.left)), max(0, int(box.top))
    inside = grey[top : max(top, int(box.bottom)), left : max(left, int(box.right))]
    return _shrink(inside) if inside.size else np.zeros((_THUMBNAIL, _THUMBNAIL), np.float32)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the correlation of two patches, from -1 to 1; 0 if one is constant."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / scale if scale > 1e-6 else 0.0
