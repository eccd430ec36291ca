"""Loads one person's photos or video as `Shots`: detects and crops faces, and selects up to 32 of varied poses.

Requires the extra `video`. Crops are computed by `th_jax.faces.crop`, as for shards and drivers.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from th_jax.data.people import is_video
from th_jax.data.shot_selection import (
    MIN_FACE,
    Candidate,
    Crop,
    Look,
    Source,
    Verdict,
    candidates_of_photos,
    candidates_of_video,
    crop_shot,
    look_at_photo,
)
from th_jax.faces import NEEDED_IN_VIDEO, face_size
from th_jax.media import DEFAULT_LIMITS, Limits, open_video
from th_jax.text import escape_control_chars
from th_jax.types import Shots

__all__ = [
    "SHOT_COUNTS",
    "ImageOutcomes",
    "LeftOut",
    "ShotsReport",
    "Source",
    "Verdict",
    "inspect_shots",
    "is_video",
    "load_shots",
    "shots_and_outcomes",
    "varied_poses",
]

SHOT_COUNTS = (1, 8, 32)
"""Padded numbers of shots (the paper's T), so that three compiled programs serve all people."""

_ADVICE = "use images that show the face upright, roughly frontal, well lit and"
_IN_PHOTO = f"at least {MIN_FACE:.0f} px wide"
_NAMED = 10
"""Maximum number of photos that the error message names if none can be used."""
_BY_HAND = (
    "mark the 68 points of one photo by hand and pass --landmarks FILE (landmarks= in Python): a text file with "
    'one line "x y" in pixels per point, JSON or .pts; docs/shots.md shows their order'
)


_CHOOSE = (
    "; or choose one of the faces with --face N (face= in Python), where th-jax faces FILE --out faces.png draws them with "
    "their numbers"
)


class ShotsReport(NamedTuple):
    """The shots, and the outcome for each image."""

    shots: Shots
    sources: tuple[Source, ...]


class LeftOut(NamedTuple):
    """Images that are not among the shots because they are unusable."""

    file: str
    """File name, with unprintable characters escaped."""
    why: str


class ImageOutcomes(NamedTuple):
    """Outcomes for one person's images, in plain numbers and text."""

    looked_at: int = 0
    """Number of photos opened, or of video frames examined."""
    spare: int = 0
    """Number of usable images that were not needed, because others show more varied poses."""
    left_out: tuple[LeftOut, ...] = ()
    """The other images: each photo, and the frames of a video by reason."""


def load_shots(
    path: str | Path,
    *,
    size: int = 256,
    shots: int | None = None,
    context: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
    landmarks: str | Path | None = None,
    face: int | None = None,
    pupils: bool = False,
) -> Shots:
    """Load the images of one person from a photo, a folder of photos or a video.

    Args:
        path: photo, folder of photos, or video.
        size: side of the frames, in pixels.
        shots: maximum number of shots; 32 by default.
        context: scale of the square around the head (`segment_square`).
        limits: limits on the files.
        landmarks: file of hand-marked landmarks for a single photo.
        face: number of the face in a photo or video of several people, as for `inspect_shots`.
        pupils: whether to find the pupils, too: for weights that were trained with them (`MetaModel.pupils`).

    Returns:
        The shots of `inspect_shots`.

    Raises:
        ValueError, MediaError, ImportError: as `inspect_shots`.
    """
    return inspect_shots(
        path, size=size, shots=shots, context=context, limits=limits, landmarks=landmarks, face=face, pupils=pupils
    ).shots


def inspect_shots(
    path: str | Path,
    *,
    size: int = 256,
    shots: int | None = None,
    context: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
    landmarks: str | Path | None = None,
    face: int | None = None,
    pupils: bool = False,
    look: Callable[..., Look] = look_at_photo,
) -> ShotsReport:
    """Load the shots of one person, and report the outcome for each image.

    Frames are UInt8 RGB of `size` pixels. Landmarks are 68 points in [0, 1], or 70 with `pupils` or if a landmark file
    contains them. Up to `shots` (at most 32) images are selected: first the most typical pose, and then always the one that
    differs most from those before. They are padded to 1, 8 or 32 by repetition, with mask 0. Photos are cropped one by
    one, and each segment of a video in one fixed square. In a video, the most prominent face (largest product of score
    and side) is tracked; a photo with a rival face is left out. A photo in which no face is detected is searched on
    copies, and turned by quarters if its face is lying (`th_jax.data.shot_selection`); `Source.detail` says so.

    Args:
        path: photo, folder of photos, or video.
        size: side of the frames, in pixels.
        shots: maximum number of shots; 32 by default.
        context: scale of the square around the head (`segment_square`).
        limits: limits on the files.
        landmarks: file of hand-marked landmarks for a single photo (`th_jax.data.landmark_file`), for paintings and
            statues in which no face is detected. Detection is skipped then, and dlib is not needed.
        face: number of the face in a single photo or a video, from 1 on, the most prominent person first
            (`th-jax faces` draws them); by default, a video's most prominent face, and an error for a photo in which
            another face is as prominent.
        pupils: whether to find the pupils, too; NaN where an eye shows none (`th_jax.faces.pupils`).
        look: function that examines and crops a photo, with the arguments of
            `th_jax.data.shot_selection.look_at_photo`.

    Returns:
        The shots, and the outcome for each image.

    Raises:
        ValueError: if `size` is outside 16 to 4096 or `shots` outside 1 to 32, if a folder has no images, if landmarks
            are invalid or given with a folder or a video, if `face` is given with a folder or landmarks or there is no
            such face, or if no image is usable; the message gives the reasons.
        MediaError: if a single photo or a video cannot be read.
        ImportError: if the extra `video` is not installed.
    """
    if not 16 <= size <= 4096:
        raise ValueError(f"the size of shots must be 16 to 4096 px, got {size}")
    wanted = SHOT_COUNTS[-1] if shots is None else shots
    if not 1 <= wanted <= SHOT_COUNTS[-1]:
        raise ValueError(f"shots must be 1 to {SHOT_COUNTS[-1]}, got {shots}")
    path = Path(path)
    if landmarks is not None and (path.is_dir() or is_video(path)):
        kind, instead = (
            ("a folder", "give the photo itself") if path.is_dir() else ("a video", "save one of its frames")
        )
        raise ValueError(f"hand-marked landmarks are for a single photo, but {path} is {kind}: {instead}")
    if face is not None and (path.is_dir() or landmarks is not None):
        with_what = "hand-marked landmarks" if landmarks is not None else f"the folder {path}"
        raise ValueError(f"a face is chosen in one photo or video, not with {with_what}: name a file, or omit face")
    look = functools.partial(
        look, size=size, context=context, limits=limits, landmarks=landmarks, face=face, pupils=pupils
    )
    if is_video(path):
        sources, candidates = candidates_of_video(path, context=context, limits=limits, face=face)
    else:
        sources, candidates = candidates_of_photos(path, look=look, wanted=wanted)
    if not candidates:
        raise ValueError(_nothing_usable(path, sources))
    indices = varied_poses(np.stack([c.landmarks for c in candidates]), count=wanted)
    chosen = [candidates[i] for i in indices]
    sources = [s._replace(verdict=Verdict.SPARE) if s.verdict is Verdict.USED else s for s in sources]
    for candidate in chosen:
        sources[candidate.source] = sources[candidate.source]._replace(verdict=Verdict.USED)
    if is_video(path):
        crops: list[Any] = _crops_of_video(path, chosen, sources, size=size, limits=limits, pupils=pupils)
    else:
        crops = [
            c.crop or look(sources[c.source].path, copies=bool(i < wanted)).crop
            for i, c in zip(indices, chosen, strict=True)
        ]
    return ShotsReport(_padded(crops), tuple(sources))


def shots_and_outcomes(path: str | Path, **options: Any) -> tuple[Shots, ImageOutcomes]:
    """Return the shots of `inspect_shots`, with its options, and the outcomes as plain values that a process can send.

    Raises:
        ValueError, MediaError, ImportError: as `inspect_shots`.
    """
    report = inspect_shots(path, **options)
    counts = Counter(source.verdict for source in report.sources)
    looked_at = len(report.sources) - counts[Verdict.NOT_LOOKED_AT]
    return report.shots, ImageOutcomes(looked_at, counts[Verdict.SPARE], _left_out(report.sources))


def varied_poses(landmarks: Float[np.ndarray, "S P 2"], *, count: int) -> Int[np.ndarray, " C"]:
    """Select the indices of up to `count` faces of varied pose and expression by farthest-point selection.

    Distances are those of landmarks normalized for position and size. The first face is the one closest to the mean.
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


def _crops_of_video(
    path: Path, chosen: list[Candidate], sources: list[Source], *, size: int, limits: Limits, pupils: bool
) -> list[Crop]:
    """Crop the selected frames, reading the video again: their square is that of a whole segment."""
    crops: dict[int, Crop] = {}
    times = [sources[candidate.source].time or 0.0 for candidate in chosen]
    in_time = sorted(range(len(chosen)), key=times.__getitem__)
    with open_video(path, limits=limits) as video:
        for n, (_, frame) in zip(in_time, video.frames_at(times[n] for n in in_time), strict=True):
            crops[n] = crop_shot(frame, chosen[n].landmarks, size=size, square=chosen[n].square, pupils=pupils)
    return [crops[n] for n in range(len(chosen))]


def _padded(crops: Sequence[Crop]) -> Shots:
    total = next(count for count in SHOT_COUNTS if count >= len(crops))
    repeated = [crops[i % len(crops)] for i in range(total)]
    mask = (np.arange(total) < len(crops)).astype(np.float32)
    frames, landmarks = (np.stack(parts) for parts in zip(*repeated, strict=True))
    return Shots(frames, landmarks.astype(np.float32), mask)


def _left_out(sources: Sequence[Source]) -> tuple[LeftOut, ...]:
    bad = [source for source in sources if source.verdict not in (Verdict.USED, Verdict.SPARE)]
    photos = [LeftOut(escape_control_chars(s.path.name), escape_control_chars(_why(s))) for s in bad if s.time is None]
    frames = Counter((s.path.name, s.verdict) for s in bad if s.time is not None)
    of_video = [
        LeftOut(escape_control_chars(n), f"{v.value} in {count} frames") for (n, v), count in frames.most_common()
    ]
    return (*photos, *of_video)


def _why(source: Source) -> str:
    """Return the reason without the photo's name, which precedes it in the message."""
    detail = source.detail.removeprefix(f"{source.path} ")
    if source.verdict in (Verdict.UNREADABLE, Verdict.NOT_LOOKED_AT):
        return detail
    return f"{source.verdict.value}: {detail}" if detail else source.verdict.value


def _nothing_usable(path: Path, sources: list[Source]) -> str:
    counts = Counter(source.verdict for source in sources)
    if set(counts) <= {Verdict.NO_FACE} and sources[0].time is None:
        copies = "contrast-stretched, enlarged or rotated copies"
        return f"no face was found in {path} or in {copies}: {_ADVICE} {_IN_PHOTO}, or {_BY_HAND}"
    if set(counts) <= {Verdict.NO_FACE}:
        return f"no face was found in {path}: {_ADVICE} {NEEDED_IN_VIDEO}"
    reasons = ", ".join(f"{verdict.value}: {number}" for verdict, number in counts.most_common())
    needed = _IN_PHOTO if sources[0].time is None else NEEDED_IN_VIDEO
    details = [next((s.detail for s in sources if s.detail), "")]
    if path.is_dir():
        left = _left_out(sources)
        details = [f"{file}: {why}" for file, why in left[:_NAMED]]
        details += [f"and {len(left) - _NAMED} more"] if len(left) > _NAMED else []
    needed += _CHOOSE if not path.is_dir() and set(counts) == {Verdict.SEVERAL_FACES} else ""
    return f"no usable image in {path} ({'; '.join([reasons, *filter(None, details)])}): {_ADVICE} {needed}"
