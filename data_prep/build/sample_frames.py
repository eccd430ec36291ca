"""Samples a clip at sparse times, checks the face in each frame, and chooses frames that are spread in time.

Only a few frames per second are examined. The tracker follows a face and detects cuts, but it searches only around the face,
so the detector also checks the whole frame of every look for other people.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from data_prep.build.quality import Reason, Thresholds, face_patch, judge, measure
from th_jax.faces import (
    Box,
    Face,
    TrackedFrame,
    box_around,
    detect_faces,
    face_descriptor,
    follow_face,
    landmarks_in_box,
    most_prominent,
    settled_landmarks,
)
from th_jax.media import Video

LOOKS_PER_FRAME = 4
"""Maximum number of looks per frame of the record, so that a video of hours costs no more than one of minutes."""


class Look(NamedTuple):
    """An examined frame of a clip."""

    time: float
    """Seconds from the start of the clip; NaN for a photo."""
    height: int
    width: int
    segment: int = -1
    """Index of the part of the clip in which this face is tracked; -1 without a face."""
    landmarks: Float[np.ndarray, "68 2"] | None = None
    """Landmarks in pixels of the frame."""
    patch: Float32[np.ndarray, "64 64"] | None = None
    descriptor: Float32[np.ndarray, "128"] | None = None
    """Face descriptor, for the first usable look of each segment, if requested."""
    reason: Reason | None = None
    """Reason to drop this look; None if it is usable."""
    numbers: Mapping[str, float] = {}


def seconds_between_looks(duration: float, *, fps: float, gap: float, frames: int) -> float:
    """Compute the seconds between two looks: half the gap, so that a bad look costs little, or more for a long video.

    A frame's time is up to one frame before the requested time, and the gap must be kept nevertheless.
    """
    return max((gap + 1.01 / fps) / 2, duration / (LOOKS_PER_FRAME * frames))


def look_at_video(video: Video, *, step: float, most: int, thresholds: Thresholds, descriptors: bool) -> Iterator[Look]:
    """Yield a look every `step` seconds, at most `most`, each frame once, in constant memory.

    Raises:
        MediaError: if the video exceeds a limit while it is decoded.
        ImportError, FileNotFoundError: without the extra `video` or a landmark model.
    """
    current: list[tuple[float, np.ndarray]] = []  # the last frame of the tracker

    def frames() -> Iterator[np.ndarray]:
        for time, frame in _frames_each(video, step, most):
            current[:] = [(time, frame)]
            yield frame

    described: set[int] = set()
    for tracked in follow_face(frames(), detect_every=1):
        time, frame = current[0]
        look = _judged(frame, tracked, thresholds)._replace(time=time)
        if descriptors and look.reason is None and look.landmarks is not None and look.segment not in described:
            described.add(look.segment)
            look = look._replace(descriptor=face_descriptor(frame, look.landmarks))
        yield look


def look_at_photo(photo: UInt8[np.ndarray, "H W 3"], *, thresholds: Thresholds) -> Look:
    """Examine a photo.

    Raises:
        ImportError, FileNotFoundError: without the extra `video` or a landmark model.
    """
    tracked = next(iter(follow_face([photo], detect_every=1)))
    return _judged(photo, tracked, thresholds)


def spread(looks: Sequence[tuple[int, float]], *, gap: float, frames: int) -> Int[np.ndarray, " C"]:
    """Return the indices of up to `frames` (clip, seconds) pairs, evenly spread over those at least `gap` apart.

    Pairs are sorted by clip and time; NaN is apart from every time.
    """
    apart: list[int] = []
    for index, (clip, time) in enumerate(looks):
        # In float32, as the record stores and checks them.
        near = apart and looks[apart[-1]][0] == clip and np.float32(time) - np.float32(looks[apart[-1]][1]) < gap
        if not near:
            apart.append(index)
    count = min(frames, len(apart))
    return np.array(apart, np.int64)[((np.arange(count) + 0.5) * len(apart) / max(count, 1)).astype(np.int64)]


def without_duplicates(looks: Sequence[Look], *, earlier: list[np.ndarray], thresholds: Thresholds) -> list[Look]:
    """Mark the looks that repeat an earlier one as dropped; the patches of the others are added to `earlier`."""
    marked = []
    for look in looks:
        if look.reason is None and look.patch is not None:
            own = look.patch
            difference = min((float(np.abs(own - patch).mean()) for patch in earlier), default=np.inf)
            if difference < thresholds.duplicate:
                numbers = {"difference": difference, "least": thresholds.duplicate}
                look = look._replace(reason=Reason.DUPLICATE_FRAME, numbers=numbers)
            else:
                earlier.append(own)
        marked.append(look)
    return marked


def _frames_each(video: Video, step: float, most: int) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    if video.duration is None:
        pairs, least = video.frames(), step - 0.5 / float(video.fps)
    else:
        pairs, least = video.frames_at(np.arange(0.0, video.duration, step)[:most]), 0.0
    last, given = -np.inf, 0
    for time, frame in pairs:
        # Frames repeat for times after the end, and between the frames of a video with a low frame rate.
        if time > last and time >= last + least:
            yield time, frame
            last, given = time, given + 1
            if given == most:
                return


def _judged(frame: UInt8[np.ndarray, "H W 3"], tracked: TrackedFrame, thresholds: Thresholds) -> Look:
    look = Look(np.nan, frame.shape[0], frame.shape[1], tracked.segment)
    faces = detect_faces(frame) if tracked.segment >= 0 else []
    followed = [face for face in faces if _near(face, box_around(tracked.landmarks))]
    if not followed:
        return look._replace(segment=-1, reason=Reason.NO_FACE)
    best, rivals = most_prominent(faces)
    if rivals or best not in followed:
        return look._replace(reason=Reason.SEVERAL_FACES, numbers={"rivals": float(max(rivals, 1))})
    try:
        before = settled_landmarks(frame, best.box)
        landmarks = landmarks_in_box(frame, box_around(before))
    except ValueError:  # the face is outside the frame
        return look._replace(reason=Reason.OUT_OF_FRAME)
    patch = face_patch(frame, landmarks)
    if patch is None:
        return look._replace(reason=Reason.OUT_OF_FRAME)
    found = judge(measure(landmarks, before=before, patch=patch), thresholds)
    look = look._replace(landmarks=landmarks, patch=patch)
    return look if found is None else look._replace(reason=found[0], numbers=found[1])


def _near(face: Face, box: Box) -> bool:
    """Return whether a detected face may be the one that was tracked to about this box."""
    distance = float(np.linalg.norm(face.box.center - box.center))
    return distance < max(face.box.side, box.side) and 0.5 < face.box.side / max(box.side, 1.0) < 2.0
