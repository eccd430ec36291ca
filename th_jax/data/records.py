"""Random access to the checksummed records of a split, as a data source for Grain, and the paths of the bundled data set."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import SupportsIndex

from th_jax.data.schema import VideoRecord, parse, shard_name
from th_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, DamagedRecord, ShardIndex, load_index, unpack
from th_jax.data.video_list import VIDEO_LIST_FILE, VideoEntry, VideoList, load_video_list
from th_jax.storage.files import join, read_range

logger = logging.getLogger(__name__)

_INDICES_AT_ONCE = 16


class VideoRecords:
    """The videos of a split that were not forgotten, by number; implements Grain's RandomAccessDataSource of VideoRecords.

    Reading is thread-safe, and objects can be sent to worker processes.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "train", *, on_damage: str = "stop") -> None:
        """Open a data set by reading its video list and the indices of its shards, but no records.

        Args:
            folder: local path, address supported by fsspec (gs://, memory://), or "bundled" for the bundled people.
            split: name of the split.
            on_damage: policy for damaged records: "stop" raises an error; "skip" returns None in their place, logs each
                once, and counts them in `damaged`. A damaged list or index is always an error.

        Raises:
            FileNotFoundError: if the folder has no data set, or a shard is missing.
            ValueError: if the split or policy is unknown, the list is damaged, or it refers to records beyond a shard's
                end.
            DamagedIndex: a ValueError, if an index is damaged or its shard has another size.
        """
        if on_damage not in ("stop", "skip"):
            raise ValueError(f'on_damage must be "stop" or "skip", got {on_damage!r}')
        folder = data_folder(os.fspath(folder))
        self.videos: VideoList = load_video_list(folder)
        self.split = split
        self.on_damage = on_damage
        self.damaged: set[tuple[str, int]] = set()
        """Shard and record number of each damaged record found so far by this process."""
        entries = self.videos.entries(split)
        self.video_indices = [index for index, entry in enumerate(entries) if not entry.forgotten]
        """Dense video index of each record."""
        self._entries = [entries[index] for index in self.video_indices]
        shards = self.videos.shards[split]
        self._shards = [join(folder, shard_name(self.videos.name, split, shard, shards)) for shard in range(shards)]
        with ThreadPoolExecutor(_INDICES_AT_ONCE) as pool:
            self._indices: list[ShardIndex] = list(pool.map(load_index, self._shards))
        for entry in self._entries:
            if not (0 <= entry.shard < shards and 0 <= entry.record < len(self._indices[entry.shard].offsets)):
                raise ValueError(
                    f"video {entry.video_id!r} should be record {entry.record} of shard {entry.shard} of "
                    f"{split!r}, which does not exist: the video list and the shards are not from the same data "
                    "set"
                )

    def __len__(self) -> int:
        """Return the number of videos that were not forgotten."""
        return len(self._entries)

    def __repr__(self) -> str:
        """Return the data set's name, split and size, which Grain includes in its messages."""
        return f"VideoRecords({self.videos.name!r}, {self.split!r}, {len(self)} videos)"

    def __getitem__(self, number: SupportsIndex) -> VideoRecord | None:
        """Return a record; None if it is damaged and the policy is "skip".

        Raises:
            DamagedRecord: if it is damaged and the policy is "stop"; names shard and record.
            IndexError: if there is no such record.
        """
        try:
            return self.read(number)
        except DamagedRecord as damage:
            self.stop_or_count(number, damage)
            return None

    def entry(self, number: SupportsIndex) -> VideoEntry:
        """Return the entry of a record in the video list.

        Raises:
            IndexError: if there is no such record.
        """
        index = number.__index__()
        if not 0 <= index < len(self._entries):
            raise IndexError(f"a record index must be 0 to {len(self._entries) - 1}, got {index}")
        return self._entries[index]

    def crc(self, number: SupportsIndex) -> int:
        """Return the masked CRC32C of a record from the index, to recognize changed content without reading the record.

        Raises:
            IndexError: if there is no such record.
        """
        entry = self.entry(number)
        return int(self._indices[entry.shard].crcs[entry.record])

    def read_bytes(self, number: SupportsIndex) -> bytes:
        """Read a serialized record and verify it against its frame and the index.

        Raises:
            DamagedRecord: if it is damaged; names shard and record.
            IndexError: if there is no such record.
        """
        entry = self.entry(number)
        index = self._indices[entry.shard]
        length, crc = int(index.lengths[entry.record]), int(index.crcs[entry.record])
        framed = read_range(
            self._shards[entry.shard], int(index.offsets[entry.record]), HEADER_BYTES + length + FOOTER_BYTES
        )
        try:
            return unpack(framed, length=length, crc=crc)
        except DamagedRecord as damage:
            raise self.damage(number, str(damage)) from None

    def read(self, number: SupportsIndex) -> VideoRecord:
        """Read a record, whatever the policy.

        Raises:
            DamagedRecord: if it is damaged, or is another video than the list says; names shard and record.
            IndexError: if there is no such record.
        """
        data = self.read_bytes(number)
        try:
            record = parse(data)
        except ValueError as error:
            raise self.damage(number, str(error)) from error
        entry = self.entry(number)
        if record.video_id != entry.video_id or len(record.frames) != entry.frames:
            raise self.damage(
                number,
                f"it is video {record.video_id!r} with {len(record.frames)} frames, but the list has "
                f"{entry.video_id!r} with {entry.frames}",
            )
        return record

    def damage(self, number: SupportsIndex, reason: str) -> DamagedRecord:
        """Make an error that names this record's location, for `stop_or_count`."""
        entry = self.entry(number)
        return DamagedRecord(
            f"record {entry.record} of {self._shards[entry.shard]} (video {entry.video_id!r}) is damaged: {reason}; "
            'copy the shard again, or read with on_damage="skip"'
        )

    def stop_or_count(self, number: SupportsIndex, damage: DamagedRecord) -> None:
        """Handle a damaged record according to the policy.

        Raises:
            DamagedRecord: the given error, if the policy is "stop".
        """
        if self.on_damage == "stop":
            raise damage
        entry = self.entry(number)
        place = (self._shards[entry.shard], entry.record)
        if place not in self.damaged:
            self.damaged.add(place)
            logger.warning("skipped: %s", damage)


def read_videos(
    folder: str | os.PathLike[str], split: str, *, on_damage: str = "stop"
) -> Iterator[tuple[int, VideoRecord]]:
    """Yield each video of a split with its dense index, in the list's order, for evaluation and inspection.

    Damaged records are left out if `on_damage` is "skip".

    Raises:
        FileNotFoundError, ValueError: as VideoRecords, at the first video.
        DamagedRecord: if a record is damaged and `on_damage` is "stop"; names shard and record.
    """
    records = VideoRecords(folder, split, on_damage=on_damage)
    for number, video_index in enumerate(records.video_indices):
        record = records[number]
        if record is not None:
            yield video_index, record


HEADS_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "heads" / "shards"

TRAIN_PEOPLE, TRAIN_FRAMES = 192, 16

HELDOUT_PEOPLE, HELDOUT_FRAMES = 24, 64

FRAME_SIZE = 128
"""Side of the stored frames, in pixels."""


def bundled_heads() -> Path:
    """Return the folder of the bundled data set, with the splits "train" and "heldout"; no person is in both.

    Its records have 70 landmarks: the detected ones lack pupils, the true ones have them.

    Raises:
        FileNotFoundError: if the installation lacks it.
    """
    if not (HEADS_FOLDER / VIDEO_LIST_FILE).is_file():
        raise FileNotFoundError(
            f"the bundled heads are missing from {HEADS_FOLDER}: reinstall th_jax, or render them as described in "
            f"{HEADS_FOLDER.parent.name}/LICENSE-shards.md"
        )
    return HEADS_FOLDER


def data_folder(folder: str) -> str:
    """Resolve a data set location: "bundled" is the bundled data set, anything else is returned unchanged.

    Raises:
        FileNotFoundError: if the installation lacks the bundled data set.
    """
    return str(bundled_heads()) if folder == "bundled" else folder
