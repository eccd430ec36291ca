"""One video, or one person's photos, to one record: looked at, judged, cropped, coded; with a line for every drop."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_prep.manifest import Drop
from data_prep.quality import Reason, Thresholds, points_in_crop, reason_of
from data_prep.sample_frames import (
    LOOKS_PER_FRAME,
    Look,
    look_at_photo,
    look_at_video,
    seconds_between_looks,
    spread,
    without_duplicates,
)
from data_prep.sources import SourceVideo
from th_jax.data.schema import FRAMES_PER_VIDEO, MINIMUM_GAP, VideoRecord
from th_jax.faces import Square, crop_segment, segment_square, whole_frame_square
from th_jax.faces.pupils import find_pupils
from th_jax.media import DEFAULT_LIMITS, Limits, MediaError, open_video, read_image


class Settings(NamedTuple):
    """How every video of a data set is prepared."""

    size: int = 256
    """Side of the stored frames, in pixels."""
    frames: int = FRAMES_PER_VIDEO
    """Most frames of a record."""
    gap: float = MINIMUM_GAP
    """Least seconds between two frames of a clip."""
    quality: int = 90
    """Of the JPEGs, 1 to 100."""
    context: float = 1.0
    """Above 1 shows more around the head."""
    pupils: bool = False
    """Whether both pupils follow the 68 points, NaN where an eye is shut or too small."""
    licence: str = "NOASSERTION"
    """SPDX name of the source's licence; this one says that nobody stated it."""
    thresholds: Thresholds = Thresholds()
    limits: Limits = DEFAULT_LIMITS


class Prepared(NamedTuple):
    """The record, if enough is left of the video, and everything that was dropped on the way."""

    record: VideoRecord | None
    drops: tuple[Drop, ...]


class _Placed(NamedTuple):
    """A look that may be used, and where it is cropped."""

    clip: int
    look: Look
    square: Square
    points: Float32[np.ndarray, "P 2"]
    """In [0, 1] of the square, NaN outside of it."""


def prepare_video(folder: Path, video: SourceVideo, settings: Settings) -> Prepared:
    """The record of a video whose files lie below `folder`; the same for equal files and settings.

    Raises:
        ImportError, FileNotFoundError: without the extra `video` or a landmark model.
    """
    drops: list[Drop] = []
    looks = dict(_look(folder, video, settings, drops))
    if not (video.photos or video.cropped):
        looks = _of_one_person(video, looks, settings.thresholds, drops)
    patches: list[np.ndarray] = []
    placed: list[_Placed] = []
    for clip, seen in looks.items():
        seen = without_duplicates(seen, earlier=patches, thresholds=settings.thresholds)
        placed += _place(clip, seen, cropped=video.cropped, settings=settings, video=video, drops=drops)
    chosen = spread([(p.clip, p.look.time) for p in placed], gap=settings.gap, frames=settings.frames)
    frames, used = _crop(folder, video, [placed[index] for index in chosen], settings, drops)
    if len(used) < max(1, settings.thresholds.frames):
        drops.append(_whole_video(video, drops, len(used), settings.thresholds.frames))
        return Prepared(None, tuple(drops))
    return Prepared(_record(folder, video, frames, used, settings), tuple(drops))


def _look(folder: Path, video: SourceVideo, settings: Settings, drops: list[Drop]) -> Iterator[tuple[int, list[Look]]]:
    """What was seen in each clip that can be read; each photo of a person is a clip of its own."""
    total = sum(_durations(folder, video, settings.limits))
    for clip, name in enumerate(video.files):
        path = folder / name
        try:
            if video.photos:
                photo = read_image(path, limits=settings.limits)
                seen, damaged = [look_at_photo(photo, thresholds=settings.thresholds)], 0
            else:
                seen, damaged = _look_at_clip(path, total, settings, descriptors=not video.cropped)
        except MediaError as error:
            reason, detail = reason_of(error, str(path))
            drops.append(Drop("clip", video.video_id, name, reason, detail=detail))
            continue
        if damaged:
            detail = "damaged frames, and those after them up to a keyframe, are left out"
            drops.append(
                Drop("segment", video.video_id, name, Reason.UNDECODABLE, None, {"frames": float(damaged)}, detail)
            )
        yield clip, seen


def _look_at_clip(path: Path, total: float, settings: Settings, *, descriptors: bool) -> tuple[list[Look], int]:
    """What was seen in a clip of a video of `total` seconds, and how many frames of it are lost to damage."""
    with open_video(path, limits=settings.limits) as opened:
        looks = look_at_video(
            opened,
            step=seconds_between_looks(total, fps=float(opened.fps), gap=settings.gap, frames=settings.frames),
            most=LOOKS_PER_FRAME * settings.frames,
            thresholds=settings.thresholds,
            descriptors=descriptors,
        )
        first = next(looks, None)
        # Recordings that begin in mid-stream have nothing to show before their first keyframe: that is no damage.
        before_first = opened.damaged_frames
        seen = [] if first is None else [first, *looks]
        return seen, opened.damaged_frames - before_first


def _durations(folder: Path, video: SourceVideo, limits: Limits) -> Iterator[float]:
    """Seconds of each clip, as far as they are declared."""
    for name in () if video.photos else video.files:
        try:
            with open_video(folder / name, limits=limits) as opened:
                yield opened.duration or (opened.frame_count or 0) / float(opened.fps)
        except MediaError:  # its line is written when it is looked at
            yield 0.0


def _of_one_person(
    video: SourceVideo, looks: dict[int, list[Look]], thresholds: Thresholds, drops: list[Drop]
) -> dict[int, list[Look]]:
    """The looks without the segments that show somebody else than the longest one, or began among several faces."""
    stretches: dict[tuple[int, int], list[Look]] = {}
    for clip, seen in looks.items():
        for look in seen:
            if look.segment >= 0:
                stretches.setdefault((clip, look.segment), []).append(look)
    unsure = {key for key, stretch in stretches.items() if stretch[0].reason is Reason.SEVERAL_FACES}
    good = {key: sum(look.reason is None for look in stretch) for key, stretch in stretches.items()}
    people = {key: look.descriptor for key in stretches for look in stretches[key] if look.descriptor is not None}
    main = max((key for key in people if key not in unsure), key=lambda key: good[key], default=None)
    left_out: dict[tuple[int, int], tuple[Reason, dict[str, float]]] = {}
    for key in stretches:
        if key in unsure:
            left_out[key] = Reason.SEVERAL_FACES, {}
        elif main is not None and key in people:
            distance = float(np.linalg.norm(people[key] - people[main]))
            if distance >= thresholds.same_person:
                left_out[key] = Reason.OTHER_PERSON, {"distance": distance, "most": thresholds.same_person}
    for (clip, segment), (reason, numbers) in left_out.items():
        stretch = stretches[clip, segment]
        numbers = {**numbers, "frames": float(len(stretch))}
        drops.append(Drop("segment", video.video_id, video.files[clip], reason, stretch[0].time, numbers))
    return {clip: [look for look in seen if (clip, look.segment) not in left_out] for clip, seen in looks.items()}


def _place(
    clip: int, seen: Sequence[Look], *, cropped: bool, settings: Settings, video: SourceVideo, drops: list[Drop]
) -> Iterator[_Placed]:
    """The good looks of a clip in the square of their segment; a line for each of the others."""
    squares: dict[int, Square] = {}
    for look in seen:
        if look.reason is None and look.segment not in squares:
            good = (x for x in seen if x.reason is None and x.segment == look.segment)
            together = [x.landmarks for x in good if x.landmarks is not None]
            squares[look.segment] = (
                whole_frame_square(look.height, look.width)
                if cropped
                else segment_square(np.stack(together), height=look.height, width=look.width, context=settings.context)
            )
    for look in seen:
        reason, numbers = look.reason, look.numbers
        if reason is None and look.landmarks is not None:
            square = squares[look.segment]
            points = points_in_crop(look.landmarks, square, height=look.height, width=look.width)
            outside = int(np.isnan(points[:, 0]).sum())
            if outside <= settings.thresholds.points_outside:
                yield _Placed(clip, look, square, points)
                continue
            reason = Reason.OUT_OF_FRAME
            numbers = {"points": float(outside), "most": float(settings.thresholds.points_outside)}
        assert reason is not None
        time = None if np.isnan(look.time) else look.time
        drops.append(Drop("frame", video.video_id, video.files[clip], reason, time, numbers))


def _crop(
    folder: Path, video: SourceVideo, chosen: list[_Placed], settings: Settings, drops: list[Drop]
) -> tuple[list[bytes], list[_Placed]]:
    """The JPEGs of the chosen looks, clip by clip; a clip that cannot be read again is left out whole."""
    frames: list[bytes] = []
    used: list[_Placed] = []
    for clip in sorted({placed.clip for placed in chosen}):
        here = [placed for placed in chosen if placed.clip == clip]
        path = folder / video.files[clip]
        try:
            cropped = [
                (_jpeg(crop, settings.quality), look) for crop, look in _crops(path, here, video.photos, settings)
            ]
        except MediaError as error:
            reason, detail = reason_of(error, str(path))
            drops.append(Drop("clip", video.video_id, video.files[clip], reason, detail=detail))
        else:
            frames += [jpeg for jpeg, _ in cropped]
            used += [placed for _, placed in cropped]
    return frames, used


def _crops(
    path: Path, here: Sequence[_Placed], is_photo: bool, settings: Settings
) -> Iterator[tuple[UInt8[np.ndarray, "N N 3"], _Placed]]:
    """The looks' crops, and the looks with their pupils.

    Frames are decoded a second time, so that hundreds of looks need no memory.
    """
    with ExitStack() as resources:
        if is_photo:
            frames: Iterable[np.ndarray] = [read_image(path, limits=settings.limits)]
        else:
            opened = resources.enter_context(open_video(path, limits=settings.limits))
            frames = (frame for _, frame in opened.frames_at(placed.look.time for placed in here))
        for placed, frame in zip(here, frames, strict=True):
            assert placed.look.landmarks is not None
            landmarks = placed.look.landmarks[None]
            crop = crop_segment([frame], landmarks, size=settings.size, square=placed.square).frames[0]
            yield crop, _with_pupils(placed, frame) if settings.pupils else placed


def _with_pupils(placed: _Placed, frame: UInt8[np.ndarray, "H W 3"]) -> _Placed:
    """Found in the source's own pixels, which are often more than the crop's."""
    assert placed.look.landmarks is not None
    pupils = find_pupils(frame, placed.look.landmarks)
    inside = points_in_crop(pupils, placed.square, height=frame.shape[0], width=frame.shape[1])
    return placed._replace(points=np.concatenate([placed.points, inside]))


def _jpeg(crop: UInt8[np.ndarray, "N N 3"], quality: int) -> bytes:
    pixels = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _whole_video(video: SourceVideo, drops: Sequence[Drop], usable: int, needed: int) -> Drop:
    """The line of a video of which too little is left: what spoilt most of it, if nothing at all is usable."""
    reason = Reason.TOO_SHORT
    if not usable:
        counts = Counter(drop.reason for drop in drops)
        reason = counts.most_common(1)[0][0] if counts else Reason.TOO_SHORT
    numbers = {"frames": float(usable), "needed": float(needed)}
    return Drop("video", video.video_id, video.path, reason, None, numbers)


def _record(
    folder: Path, video: SourceVideo, frames: list[bytes], used: list[_Placed], settings: Settings
) -> VideoRecord:
    return VideoRecord(
        frames=tuple(frames),
        landmarks=np.stack([placed.points for placed in used]),
        true_landmarks=None,
        times=np.array([placed.look.time for placed in used], np.float32),
        clips=np.array([placed.clip for placed in used], np.int64),
        crops=np.array([placed.square for placed in used], np.float32),
        minimum_gap=0.0 if video.photos else settings.gap,
        identity=video.identity,
        video_id=video.video_id,
        source_sha256=_digest([folder / video.files[clip] for clip in sorted({placed.clip for placed in used})]),
        licence=settings.licence,
    )


def _digest(paths: Sequence[Path]) -> str:
    """The file's hash, or that of its files' hashes in order."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
