"""Prepares one record from a video or from a person's photos: detects, checks, crops and encodes frames."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_prep.build.drop_report import Drop
from data_prep.build.quality import Reason, Thresholds, points_in_crop, reason_of
from data_prep.build.sample_frames import (
    LOOKS_PER_FRAME,
    Look,
    look_at_photo,
    look_at_video,
    seconds_between_looks,
    spread,
    without_duplicates,
)
from data_prep.build.sources import SourceVideo
from th_jax.data.schema import FRAMES_PER_VIDEO, MINIMUM_GAP, VideoRecord
from th_jax.faces import Square, crop_segment, segment_square, whole_frame_square
from th_jax.faces.pupils import find_pupils
from th_jax.media import DEFAULT_LIMITS, Limits, MediaError, open_video, read_image
from th_jax.storage.files import file_sha256

PREPARATION_VERSION = 1
"""Raised by hand with every change of `data_prep.build`, `th_jax.faces` or `th_jax.media` that changes the content of records.

Interrupted runs of another version are not continued: their videos may not be mixed with those of this one.
"""


class Settings(NamedTuple):
    """Settings of the preparation."""

    size: int = 256
    """Side of the stored frames in pixels."""
    frames: int = FRAMES_PER_VIDEO
    """Maximum number of frames of a record."""
    gap: float = MINIMUM_GAP
    """Minimum time between two frames of a clip, in seconds."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    context: float = 1.0
    """Size of the crop relative to the default; values above 1 show more around the head."""
    pupils: bool = False
    """Whether to add both pupils to the 68 points, NaN where an eye is shut or too small."""
    licence: str = "NOASSERTION"
    """SPDX name of the source's license; the default means that none was given."""
    thresholds: Thresholds = Thresholds()
    limits: Limits = DEFAULT_LIMITS


class Prepared(NamedTuple):
    """The record, if the video has enough usable frames, and all drops."""

    record: VideoRecord | None
    drops: tuple[Drop, ...]


class _Placed(NamedTuple):
    """A usable look and its crop."""

    clip: int
    look: Look
    square: Square
    points: Float32[np.ndarray, "P 2"]
    """Landmarks in [0, 1] of the square, NaN outside."""


def prepare_video(folder: Path, video: SourceVideo, settings: Settings) -> Prepared:
    """Prepare the record of a video; the same for equal files and settings.

    Its files are relative to the source folder.

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
    """Yield the looks at each readable clip; each photo of a person is a separate clip."""
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
    """Return the looks at a clip of a video of `total` seconds, and its number of damaged frames."""
    with open_video(path, limits=settings.limits) as opened:
        looks = look_at_video(
            opened,
            step=seconds_between_looks(total, fps=float(opened.fps), gap=settings.gap, frames=settings.frames),
            most=LOOKS_PER_FRAME * settings.frames,
            thresholds=settings.thresholds,
            descriptors=descriptors,
        )
        first = next(looks, None)
        # Recordings that begin in mid-stream have no frames before their first keyframe, which is not damage.
        before_first = opened.damaged_frames
        seen = [] if first is None else [first, *looks]
        return seen, opened.damaged_frames - before_first


def _durations(folder: Path, video: SourceVideo, limits: Limits) -> Iterator[float]:
    """Yield the declared duration of each clip in seconds."""
    for name in () if video.photos else video.files:
        try:
            with open_video(folder / name, limits=limits) as opened:
                yield opened.duration or (opened.frame_count or 0) / float(opened.fps)
        except MediaError:  # reported when the clip is read
            yield 0.0


def _of_one_person(
    video: SourceVideo, looks: dict[int, list[Look]], thresholds: Thresholds, drops: list[Drop]
) -> dict[int, list[Look]]:
    """Remove segments that show another person than the longest one, or that began with several faces."""
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
    """Yield the usable looks of a clip with the square of their segment; the others are added to the drops."""
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
    """Return the JPEGs of the chosen looks; a clip that cannot be read again is dropped entirely."""
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
    """Yield the crop of each look, and the look with its pupils.

    Frames are decoded a second time, so that hundreds of looks need not be kept in memory.
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
    """Add the pupils, detected at the source's resolution, which is often higher than the crop's."""
    assert placed.look.landmarks is not None
    pupils = find_pupils(frame, placed.look.landmarks)
    inside = points_in_crop(pupils, placed.square, height=frame.shape[0], width=frame.shape[1])
    return placed._replace(points=np.concatenate([placed.points, inside]))


def _jpeg(crop: UInt8[np.ndarray, "N N 3"], quality: int) -> bytes:
    pixels = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _whole_video(video: SourceVideo, drops: Sequence[Drop], usable: int, needed: int) -> Drop:
    """Return the drop of a video with too few usable frames; without any, its reason is the most frequent one."""
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
    """Return the digest of the file, or of several files' digests in order."""
    digests = [file_sha256(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
