"""Random access to the records of a split, every byte of them checked: the source that Grain reads from."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import SupportsIndex

from th_jax.data.framing import FOOTER_BYTES, HEADER_BYTES, DamagedRecord, unpack
from th_jax.data.index import ShardIndex, load_index
from th_jax.data.read_range import join, read_range
from th_jax.data.schema import VideoRecord, parse, shard_name
from th_jax.data.video_list import VideoEntry, VideoList, load_video_list

logger = logging.getLogger(__name__)

_INDICES_AT_ONCE = 16


class VideoRecords:
    """The videos of a split that were not forgotten, by number: grain's RandomAccessDataSource of VideoRecords.

    Reading is safe from many threads, and the object goes to worker processes.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "train", *, on_damage: str = "stop") -> None:
        """Open a data set: reads its list and the indices of its shards, no records.

        Args:
            folder: a local path, or an address that fsspec knows (gs://, memory://).
            split: which of its splits.
            on_damage: what a damaged record does: "stop" raises; "skip" gives None in its place, logs it once and
                counts it in `damaged`. A damaged list or index stops always.

        Raises:
            FileNotFoundError: if the folder holds no data set, or a shard is missing.
            ValueError: if there is no such split or policy, the list is damaged, or it points behind a shard's end.
            DamagedIndex: if an index is damaged or its shard has another size (a ValueError).
        """
        if on_damage not in ("stop", "skip"):
            raise ValueError(f'on_damage must be "stop" or "skip", but {on_damage!r} came')
        self.videos: VideoList = load_video_list(folder)
        self.split = split
        self.on_damage = on_damage
        self.damaged: set[tuple[str, int]] = set()
        """Shard and record number of each damaged record met so far, in this process."""
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
                    f"video {entry.video_id!r} should be record {entry.record} of shard {entry.shard} of {split!r}, "
                    "which is not there: list and shards are not from the same data set"
                )

    def __len__(self) -> int:
        """Number of videos that were not forgotten."""
        return len(self._entries)

    def __repr__(self) -> str:
        """Name of the data set, split and size: Grain writes it into its messages."""
        return f"VideoRecords({self.videos.name!r}, {self.split!r}, {len(self)} videos)"

    def __getitem__(self, number: SupportsIndex) -> VideoRecord | None:
        """The record; None if it is damaged and the policy is "skip".

        Raises:
            DamagedRecord: naming shard and record, if the policy is "stop".
            IndexError: if there is no such record.
        """
        try:
            return self.read(number)
        except DamagedRecord as damage:
            self.stop_or_count(number, damage)
            return None

    def entry(self, number: SupportsIndex) -> VideoEntry:
        """What the list says of the record.

        Raises:
            IndexError: if there is no such record.
        """
        index = number.__index__()
        if not 0 <= index < len(self._entries):
            raise IndexError(f"records are numbered from 0 to {len(self._entries) - 1}, but {index} was asked for")
        return self._entries[index]

    def crc(self, number: SupportsIndex) -> int:
        """Masked CRC32C of the record, by the index: another value is another content. Nothing of the record is read.

        Raises:
            IndexError: if there is no such record.
        """
        entry = self.entry(number)
        return int(self._indices[entry.shard].crcs[entry.record])

    def read_bytes(self, number: SupportsIndex) -> bytes:
        """The serialised record, agreed with its frame and its index.

        Raises:
            DamagedRecord: naming shard and record.
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
        """The record, whatever the policy.

        Raises:
            DamagedRecord: naming shard and record; also if it is another video than the list says.
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
                f"it is video {record.video_id!r} with {len(record.frames)} frames, "
                f"the list says {entry.video_id!r} with {entry.frames}",
            )
        return record

    def damage(self, number: SupportsIndex, reason: str) -> DamagedRecord:
        """The error that names this record's place, for `stop_or_count`."""
        entry = self.entry(number)
        return DamagedRecord(
            f"record {entry.record} of {self._shards[entry.shard]} (video {entry.video_id!r}) is damaged: {reason}; "
            'copy the shard again, or read with on_damage="skip"'
        )

    def stop_or_count(self, number: SupportsIndex, damage: DamagedRecord) -> None:
        """Do with a damaged record what the policy says.

        Raises:
            DamagedRecord: the one given, if the policy is "stop".
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
    """Each video of a split with its dense index, in the list's order: for evaluation and for looking at a data set.

    Damaged records are left out if `on_damage` is "skip".

    Raises:
        FileNotFoundError, ValueError: as VideoRecords does, at the first video.
        DamagedRecord: naming shard and record, if `on_damage` is "stop".
    """
    records = VideoRecords(folder, split, on_damage=on_damage)
    for number, video_index in enumerate(records.video_indices):
        record = records[number]
        if record is not None:
            yield video_index, record
