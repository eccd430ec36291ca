"""A video to candidates for shots: frames spread over it, one face followed, one square a stretch, other people left out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.shot_candidates import MIN_FACE, Candidate, Source, Verdict
from th_jax.faces import face_descriptor, face_size, segment_square, segments, track_faces
from th_jax.media import Limits, Video, open_video

SAMPLES_A_SECOND = 5.0
MAX_SAMPLES = 300
"""Frames of a video that are looked at: this many a second, and no more in all, evenly spread."""

SAME_PERSON = 0.6
"""L2 distance of two face descriptors below which they are taken for one person's."""


def candidates_of_video(path: Path, *, context: float, limits: Limits) -> tuple[list[Source], list[Candidate]]:
    """Every frame that was looked at, and those that can be used.

    Args:
        path: a local video.
        context: of `segment_square`.
        limits: of the video.

    Raises:
        MediaError: if the video cannot be read.
        ValueError: for a context that is not positive.
        ImportError: without the extra `video`.
    """
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
                candidates.append(Candidate(i, track.landmarks[i], square))
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
