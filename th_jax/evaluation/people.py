"""Selects held-out people and frames for evaluation: sources to learn a person from, and disjoint target frames."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.episodes import decode_frame
from th_jax.data.records import VideoRecords
from th_jax.data.schema import VideoRecord
from th_jax.types import AnyArray

SOURCES = 8
TARGETS = 4

LANDMARKS = ("true", "detected")


class HeldOut(NamedTuple):
    """I people with K source and S target frames each, which are disjoint. Landmarks in [0, 1], NaN where unknown."""

    source_frames: UInt8[AnyArray, "I K H W 3"]
    source_landmarks: Float[AnyArray, "I K P 2"]
    target_frames: UInt8[AnyArray, "I S H W 3"]
    target_landmarks: Float[AnyArray, "I S P 2"]


class ChosenFrames(NamedTuple):
    """Frames selected from one video, sufficient to score another system on the same frames."""

    record: int
    """Number of the record in its split."""
    video_id: str
    identity: str
    sources: tuple[int, ...]
    targets: tuple[int, ...]


def choose_frames(
    records: VideoRecords, *, people: int | None = None, sources: int = SOURCES, targets: int = TARGETS, seed: int = 0
) -> tuple[ChosenFrames, ...]:
    """Select targets evenly over each video's frames, and random sources from the rest; reads no records.

    Args:
        records: opened split of a data set.
        people: number of videos, from the start of the split; all by default.
        sources: number of source frames per person.
        targets: number of target frames per person.
        seed: random seed of the sources. A person's sources do not depend on the number of people.

    Raises:
        ValueError: if the split has no or too few videos, a number is below 1, or a video has too few frames.
    """
    if min(sources, targets) < 1 or (people is not None and people < 1):
        raise ValueError(f"people, sources and targets must be 1 or more, got {people}, {sources} and {targets}")
    if len(records) == 0:
        raise ValueError(f"{records!r} is empty: there are no people to evaluate on")
    wanted = len(records) if people is None else people
    if wanted > len(records):
        raise ValueError(f"expected {wanted} people, but {records!r} has {len(records)}")
    return tuple(_choose(records, number, sources, targets, seed) for number in range(wanted))


def load_heldout(
    records: VideoRecords,
    *,
    image_size: int,
    people: int | None = None,
    sources: int = SOURCES,
    targets: int = TARGETS,
    landmarks: str = "true",
    seed: int = 0,
) -> HeldOut:
    """Load the frames of `choose_frames`, decoded and reduced to `image_size` pixels.

    Landmarks are "true" for the exact points of rendered heads, or "detected" for the detector's.

    Raises:
        ValueError: as `choose_frames`; or if the kind of landmarks is unknown or missing in the data set, or
            `image_size` is below 1 or larger than the stored frames.
        DamagedRecord: if a record is damaged; names shard and record.
    """
    if landmarks not in LANDMARKS:
        raise ValueError(f'landmarks must be "true" or "detected", got {landmarks!r}')
    videos = records.videos
    if landmarks == "true" and not videos.true_landmarks:
        raise ValueError(f'data set {videos.name!r} has no true landmarks; use landmarks="detected"')
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 px, got {image_size}")
    if image_size > videos.frame_size:
        raise ValueError(
            f"image_size must be at most the stored {videos.frame_size} px of {videos.name!r}, got {image_size}"
        )
    chosen = choose_frames(records, people=people, sources=sources, targets=targets, seed=seed)
    loaded = [_decode(records.read(one.record), one, image_size, landmarks) for one in chosen]
    return HeldOut(*(np.stack(parts) for parts in zip(*loaded, strict=True)))


def _choose(records: VideoRecords, number: int, sources: int, targets: int, seed: int) -> ChosenFrames:
    entry = records.entry(number)
    if entry.frames < sources + targets:
        raise ValueError(
            f"video {entry.video_id!r} has {entry.frames} frames, too few for {sources} sources and {targets} "
            "other targets"
        )
    target_numbers = [int((i + 0.5) * entry.frames / targets) for i in range(targets)]
    rest = np.setdiff1d(np.arange(entry.frames), target_numbers)
    rng = np.random.default_rng([seed, int(entry.row_key[:8], 16)])
    drawn = np.sort(rng.choice(rest, sources, replace=False))
    return ChosenFrames(number, str(entry.video_id), str(entry.identity), tuple(drawn.tolist()), tuple(target_numbers))


def _decode(record: VideoRecord, chosen: ChosenFrames, size: int, landmarks: str) -> tuple[np.ndarray, ...]:
    points = record.true_landmarks if landmarks == "true" else record.landmarks
    assert points is not None, "the list said that all records have true landmarks"
    parts = []
    for numbers in (chosen.sources, chosen.targets):
        parts += [np.stack([decode_frame(record.frames[t], size=size) for t in numbers]), points[list(numbers)]]
    return tuple(parts)
