"""The ordered list of a data set's videos, which defines `video_index` and the rows of the video table.

A video's dense index is its permanent position in its split's list. `forget` leaves a tombstone in that position, so
that no other index changes. A tombstone keeps only the hash of the video id, not the name. `digest` thus remains what
checkpoints have stored, and a forgotten video is recognized if it is added again.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from th_jax.storage.files import join, read_file, whole_file
from th_jax.storage.strict_json import parse_json

VIDEO_LIST_FILE = "videos.json"
LIST_VERSION = 1

MAX_LIST_BYTES = 2**30
"""Maximum size of a list in bytes: four million videos."""

_KEY = re.compile("[0-9a-f]{64}")


class VideoEntry(NamedTuple):
    """One video of a split, or its tombstone, which only has `row_key`."""

    row_key: str
    """SHA-256 digest of the video id."""
    video_id: str | None = None
    identity: str | None = None
    frames: int = 0
    shard: int = -1
    """Number of the shard that contains its record."""
    record: int = -1
    """Number of its record in that shard."""

    @property
    def forgotten(self) -> bool:
        """Whether this is a tombstone."""
        return self.video_id is None


class VideoList(NamedTuple):
    """All videos of a data set by split, in the order of their dense indices."""

    name: str
    points: int
    """Number of landmarks per frame: 68, or 70 with pupils."""
    frame_size: int
    """Side of the stored frames, in pixels."""
    true_landmarks: bool
    """Whether every record also has true landmarks."""
    shards: Mapping[str, int]
    """Number of shards of each split."""
    splits: Mapping[str, tuple[VideoEntry, ...]]

    def entries(self, split: str) -> tuple[VideoEntry, ...]:
        """Return the split's videos and tombstones, in order.

        Raises:
            ValueError: if the split does not exist; lists the existing ones.
        """
        if split not in self.splits:
            raise ValueError(f"data set {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split]

    def digest(self, *, split: str = "train") -> str:
        """Compute the SHA-256 digest of the order of a split's videos; equal digests give every index the same meaning.

        Forgetting does not change it.

        Raises:
            ValueError: if the split does not exist.
        """
        return hashlib.sha256("\n".join(entry.row_key for entry in self.entries(split)).encode()).hexdigest()

    def videos_of(self, identity: str) -> list[str]:
        """Return the ids of all videos of one person, over all splits."""
        return [str(e.video_id) for entries in self.splits.values() for e in entries if e.identity == identity]

    def forget(self, video_ids: Collection[str]) -> "VideoList":
        """Return the list with tombstones in place of these videos; existing tombstones are kept.

        Raises:
            ValueError: if a video is not in the list.
        """
        keys = {row_key(video_id): video_id for video_id in video_ids}
        missing = keys.keys() - {entry.row_key for entries in self.splits.values() for entry in entries}
        if missing:
            names = ", ".join(sorted(repr(keys[key]) for key in missing))
            raise ValueError(f"data set {self.name!r} has no video {names}: nothing was removed")
        return self._replace(
            splits={
                split: tuple(VideoEntry(entry.row_key) if entry.row_key in keys else entry for entry in entries)
                for split, entries in self.splits.items()
            }
        )


def row_key(video_id: str) -> str:
    """Compute the SHA-256 digest of a video id, in hexadecimal."""
    return hashlib.sha256(video_id.encode()).hexdigest()


def load_video_list(folder: str | os.PathLike[str]) -> VideoList:
    """Load the video list of a data set from a path or an address supported by fsspec.

    Raises:
        FileNotFoundError: if the folder has no data set.
        ValueError: if the list is damaged, was modified, or has another version.
    """
    path = join(folder, VIDEO_LIST_FILE)
    try:
        content = read_file(path, most=MAX_LIST_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{os.fspath(folder)} is not a data set: {VIDEO_LIST_FILE} is missing; create one with `th-jax prepare "
            "build`"
        ) from None
    head, _, body = content.partition(b"\n")
    if head != _head(body):
        raise ValueError(f"the video list {path} is damaged: it does not match its checksum; copy it again")
    try:
        document = parse_json(content, name="it", max_bytes=MAX_LIST_BYTES)
        if document["version"] != LIST_VERSION:
            raise ValueError(f"it has version {document['version']}, but expected {LIST_VERSION}")
        splits = {split: tuple(map(_entry, rows)) for split, rows in document["splits"].items()}
        fields = {field: document[field] for field in VideoList._fields if field != "splits"}
        _check_fields(fields, splits)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a valid video list: {error}") from error
    return VideoList(splits=splits, **fields)


def save_video_list(videos: VideoList, folder: str | os.PathLike[str]) -> None:
    """Write the list to a local data set's folder, replacing the old one atomically.

    Raises:
        ValueError: if a video id occurs twice.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    seen = set()
    for entry in (entry for entries in videos.splits.values() for entry in entries):
        if entry.row_key in seen:
            raise ValueError(f"video IDs must be unique in a data set, but {entry.video_id!r} occurs twice")
        seen.add(entry.row_key)
    path = join(folder, VIDEO_LIST_FILE)
    fields = {
        "version": LIST_VERSION,
        **videos._asdict(),
        "digests": {s: videos.digest(split=s) for s in videos.splits},
    }
    del fields["splits"]
    # One video per line: lists of 150,000 stay readable, and so do diffs.
    splits = ",\n".join(
        f"{json.dumps(split)}: [\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
        for split, entries in videos.splits.items()
    )
    lines = [f"{json.dumps(field)}: {json.dumps(value)}" for field, value in fields.items()]
    body = (",\n".join([*lines, f'"splits": {{\n{splits}\n}}']) + "\n}\n").encode()
    with whole_file(path) as file:
        file.write(_head(body) + b"\n" + body)


def _entry(row: Any) -> VideoEntry:
    """Validate an entry: lists are untrusted, even with a valid checksum."""
    entry = VideoEntry(*row)
    numbers = (entry.frames, entry.shard, entry.record)
    names = (entry.video_id, entry.identity)
    if not isinstance(entry.row_key, str) or not _KEY.fullmatch(entry.row_key):
        raise ValueError(f"an entry's row key must be 64 hexadecimal digits, got {str(entry.row_key)[:80]!r}")
    if not all(type(number) is int for number in numbers):
        raise ValueError(f"an entry's numbers must be integers, got {str(numbers)[:80]}")
    if not all(name is None for name in names) and not all(isinstance(name, str) for name in names):
        raise ValueError(f"an entry's names must be strings, got {str(names)[:80]}")
    return entry


def _check_fields(fields: Mapping[str, Any], splits: Mapping[str, tuple[VideoEntry, ...]]) -> None:
    whole = all(type(fields[name]) is int and fields[name] > 0 for name in ("points", "frame_size"))
    if not whole or not isinstance(fields["name"], str) or type(fields["true_landmarks"]) is not bool:
        raise ValueError("its name, points, frame_size or true_landmarks are invalid")
    shards = fields["shards"]
    if not isinstance(shards, dict) or set(shards) != set(splits):
        raise ValueError("its splits do not match the numbers of their shards")
    for split, count in shards.items():
        # No shard is empty when written, and tombstones remain.
        if type(count) is not int or not 0 <= count <= max(1, len(splits[split])):
            raise ValueError(f"{split!r} with {len(splits[split])} videos cannot have {count} shards")


def _head(body: bytes) -> bytes:
    """Return the first line of the file: the hash of all other lines."""
    return f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",'.encode()
