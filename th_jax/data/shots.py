"""One person's photos or video to `Shots`: faces found, cropped, and up to 32 of varied poses chosen.

Needs the extra `video`. The crops are those of `th_jax.faces.crop`, as in shards and drivers.
"""

import enum
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from th_jax.faces import (
    Square,
    crop_segment,
    detect_faces,
    face_descriptor,
    face_size,
    most_prominent,
    segment_square,
    segments,
    settled_landmarks,
    track_faces,
)
from th_jax.media import (
    DEFAULT_LIMITS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Limits,
    MediaError,
    Video,
    open_video,
    read_image,
)
from th_jax.types import Shots

SHOT_COUNTS = (1, 8, 32)
"""The sizes to which shots are padded (the paper's T), so that three compiled programs serve every person."""

MIN_FACE = 24.0
"""Pixels of a face's box below which a picture is left out."""

SAMPLES_A_SECOND = 5.0
MAX_SAMPLES = 300
"""Frames of a video that are looked at: this many a second, and no more in all, evenly spread."""

SAME_PERSON = 0.6
"""L2 distance of two face descriptors below which they are taken for one person's."""

_ADVICE = "use pictures that show the face upright, rather from the front, well lit and at least 40 px wide"


class Verdict(enum.StrEnum):
    """What became of a picture."""

    USED = "used"
    SPARE = "spare"
    """Good, but others show more varied poses."""
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    """Another face has at least half the score and 0.6 of the side of the most prominent one."""
    TOO_SMALL = "too small"
    OTHER_PERSON = "other person"
    """A stretch of a video whose face is not that of the longest stretch."""
    UNREADABLE = "unreadable"


class Source(NamedTuple):
    """One picture that was looked at."""

    path: Path
    time: float | None
    """Seconds into a video; None for a photo."""
    verdict: Verdict
    detail: str = ""


class ShotsReport(NamedTuple):
    """The shots, and what became of each picture."""

    shots: Shots
    sources: tuple[Source, ...]


class _Candidate(NamedTuple):
    source: int
    """Its place in the list of sources."""
    landmarks: Float[np.ndarray, "68 2"]
    square: Square


def load_shots(
    path: str | Path,
    *,
    size: int = 256,
    shots: int | None = None,
    context: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
) -> Shots:
    """The pictures of one person from a photo, a folder of photos or a video: the shots of `inspect_shots`.

    Raises:
        ValueError, MediaError, ImportError: as `inspect_shots`.
    """
    return inspect_shots(path, size=size, shots=shots, context=context, limits=limits).shots


def inspect_shots(
    path: str | Path,
    *,
    size: int = 256,
    shots: int | None = None,
    context: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
) -> ShotsReport:
    """Shots of one person and what became of each picture.

    Frames are UInt8 RGB of `size` pixels; landmarks are the 68 points in [0, 1]. Up to `shots` (at most 32) pictures
    are chosen, the most typical pose first and then always the one that differs most from those before, and padded to
    1, 8 or 32 by repetition, with mask 0. Photos are cropped one by one, the stretches of a video each in one fixed
    square. In a video the most prominent face (largest product of score and side) is followed; a photo with a rival is
    left out.

    Raises:
        ValueError: for a size outside of 16 to 4096, for `shots` outside of 1 to 32, for a folder without pictures, and
            if no picture can be used, with the reasons.
        MediaError: if a single photo or a video cannot be read.
        ImportError: without the extra `video`.
    """
    if not 16 <= size <= 4096:
        raise ValueError(f"the size of shots must be 16 to 4096 px, but is {size}")
    wanted = SHOT_COUNTS[-1] if shots is None else shots
    if not 1 <= wanted <= SHOT_COUNTS[-1]:
        raise ValueError(f"shots must be 1 to {SHOT_COUNTS[-1]}, but is {shots}")
    path = Path(path)
    if not path.is_dir() and path.suffix.lower() in VIDEO_SUFFIXES:
        sources, candidates = _from_video(path, context, limits)
    else:
        sources, candidates = _from_photos(path, context, limits)
    if not candidates:
        raise ValueError(_nothing_usable(path, sources))
    chosen = [candidates[i] for i in varied_poses(np.stack([c.landmarks for c in candidates]), count=wanted)]
    sources = [s._replace(verdict=Verdict.SPARE) if s.verdict is Verdict.USED else s for s in sources]
    for candidate in chosen:
        sources[candidate.source] = sources[candidate.source]._replace(verdict=Verdict.USED)
    return ShotsReport(_padded(*_crops(chosen, sources, size, limits)), tuple(sources))


def varied_poses(landmarks: Float[np.ndarray, "S P 2"], *, count: int) -> Int[np.ndarray, " C"]:
    """Indices of up to `count` faces of varied pose and expression: farthest-point selection.

    Distances are those of landmarks freed of position and size. The first is the one nearest to the mean.
    """
    flat = (landmarks - landmarks.mean(1, keepdims=True)) / face_size(landmarks)[:, None, None]
    flat = flat.reshape(len(flat), -1)
    chosen = [int(np.linalg.norm(flat - flat.mean(0), axis=-1).argmin())]
    distance = np.full(len(flat), np.inf)
    while len(chosen) < min(count, len(flat)):
        distance = np.minimum(distance, np.linalg.norm(flat - flat[chosen[-1]], axis=-1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


def _from_photos(path: Path, context: float, limits: Limits) -> tuple[list[Source], list[_Candidate]]:
    photos = [path]
    if path.is_dir():
        photos = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
        if not photos:
            raise ValueError(f"the folder {path} holds no picture ({', '.join(IMAGE_SUFFIXES)}); name a video itself")
    sources, candidates = [], []
    for photo in photos:
        try:
            frame = read_image(photo, limits=limits)
        except MediaError as error:
            if not path.is_dir():
                raise
            sources.append(Source(photo, None, Verdict.UNREADABLE, str(error)))
            continue
        verdict, detail, landmarks = _face_of(frame)
        if landmarks is not None:
            height, width = frame.shape[:2]
            square = segment_square(landmarks[None], height=height, width=width, context=context)
            candidates.append(_Candidate(len(sources), landmarks, square))
        sources.append(Source(photo, None, verdict, detail))
    return sources, candidates


def _face_of(frame: UInt8[np.ndarray, "H W 3"]) -> tuple[Verdict, str, Float[np.ndarray, "68 2"] | None]:
    faces = detect_faces(frame)
    if not faces:
        return Verdict.NO_FACE, "", None
    face, rivals = most_prominent(faces)
    if rivals:
        return Verdict.SEVERAL_FACES, f"{rivals + 1} of similar score and size: crop it to one person", None
    if face.box.side < MIN_FACE:
        return Verdict.TOO_SMALL, f"the face is {face.box.side:.0f} px wide, {MIN_FACE:.0f} are needed", None
    return Verdict.USED, f"score {face.score:.2f}, face {face.box.side:.0f} px", settled_landmarks(frame, face.box)


def _from_video(path: Path, context: float, limits: Limits) -> tuple[list[Source], list[_Candidate]]:
    times: list[float] = []

    def frames(video: Video) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for time, frame in _samples(video):
            times.append(time)
            yield frame

    with open_video(path, limits=limits) as video:
        track = track_faces(frames(video), detect_every=1)
        sources = [Source(path, time, Verdict.NO_FACE) for time in times]
        stretches, (width, height) = segments(track), video.size
        others = _other_people(video, stretches, track.landmarks, times)
    candidates = []
    for number, stretch in enumerate(stretches):
        square = segment_square(track.landmarks[stretch], height=height, width=width, context=context)
        for i in range(stretch.start, stretch.stop):
            side = float(face_size(track.landmarks[i]))
            if np.isnan(side):
                continue
            verdict = Verdict.OTHER_PERSON if number in others else Verdict.USED
            verdict = Verdict.TOO_SMALL if side < MIN_FACE else verdict
            sources[i] = sources[i]._replace(verdict=verdict, detail=f"face {side:.0f} px")
            if verdict is Verdict.USED:
                candidates.append(_Candidate(i, track.landmarks[i], square))
    return sources, candidates


def _samples(video: Video) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    """Frames spread over the video, each once."""
    if video.duration is None:
        pairs = video.frames()
        step = 1 / SAMPLES_A_SECOND
    else:
        count = int(np.clip(video.duration * SAMPLES_A_SECOND, 1, MAX_SAMPLES))
        pairs = video.frames_at(np.arange(count) * (video.duration / count))
        step = 0.0
    last = -np.inf
    for time, frame in pairs:
        if time > last and time >= last + step:
            last = time
            yield time, frame


def _other_people(
    video: Video, stretches: list[slice], landmarks: Float[np.ndarray, "S 68 2"], times: list[float]
) -> set[int]:
    """Numbers of the stretches that show somebody else than the longest one."""
    if len(stretches) < 2:
        return set()
    firsts = [stretch.start for stretch in stretches]  # a segment begins with a found face
    frames = video.frames_at(times[i] for i in firsts)
    people = [face_descriptor(frame, landmarks[i]) for i, (_, frame) in zip(firsts, frames, strict=True)]
    main = people[int(np.argmax([s.stop - s.start for s in stretches]))]
    return {n for n, person in enumerate(people) if np.linalg.norm(person - main) >= SAME_PERSON}


def _crops(
    chosen: list[_Candidate], sources: list[Source], size: int, limits: Limits
) -> tuple[UInt8[np.ndarray, "C N N 3"], Float[np.ndarray, "C 68 2"]]:
    """The chosen pictures, read a second time: so that thousands of candidates need no memory."""
    first = sources[chosen[0].source]
    if first.time is None:
        frames = [read_image(sources[c.source].path, limits=limits) for c in chosen]
        crops = [
            crop_segment([f], c.landmarks[None], size=size, square=c.square)
            for c, f in zip(chosen, frames, strict=True)
        ]
        return np.concatenate([c.frames for c in crops]), np.concatenate([c.landmarks for c in crops])
    in_time = sorted(range(len(chosen)), key=lambda n: chosen[n].source)
    pictures = np.zeros((len(chosen), size, size, 3), np.uint8)
    landmarks = np.zeros((len(chosen), *chosen[0].landmarks.shape), np.float32)
    with open_video(first.path, limits=limits) as video:
        times = [sources[chosen[n].source].time or 0.0 for n in in_time]
        for n, (_, frame) in zip(in_time, video.frames_at(times), strict=True):
            crop = crop_segment([frame], chosen[n].landmarks[None], size=size, square=chosen[n].square)
            pictures[n], landmarks[n] = crop.frames[0], crop.landmarks[0]
    return pictures, landmarks


def _padded(frames: UInt8[np.ndarray, "C N N 3"], landmarks: Float[np.ndarray, "C 68 2"]) -> Shots:
    total = next(count for count in SHOT_COUNTS if count >= len(frames))
    repeated = np.arange(total) % len(frames)
    mask = (np.arange(total) < len(frames)).astype(np.float32)
    return Shots(frames[repeated], landmarks[repeated].astype(np.float32), mask)


def _nothing_usable(path: Path, sources: list[Source]) -> str:
    counts = Counter(source.verdict for source in sources)
    if set(counts) <= {Verdict.NO_FACE}:
        return f"no face was found in {path}: {_ADVICE}"
    reasons = ", ".join(f"{verdict.value}: {number}" for verdict, number in counts.most_common())
    details = next((s.detail for s in sources if s.detail), "")
    return f"no picture of {path} can be used ({reasons}{'; ' + details if details else ''}): {_ADVICE}"
