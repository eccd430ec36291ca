"""Removes videos from a finished data set: their bytes, their names, and nobody else's place.

Shards that held them are written anew, with their indices and the metadata; the list of videos keeps a tombstone in
each place, so that rows of the video table keep their meaning and checkpoints fit. `forgotten.jsonl` says what was done
and names nobody. A run that was killed is completed by the next one; in between no reader opens a half-changed data set.
"""

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.manifest import MANIFEST_FILE, drop_of
from th_jax.data.schema import shard_name
from th_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, INDEX_SUFFIX, load_index, unpack, write_index
from th_jax.data.video_list import (
    VIDEO_LIST_FILE,
    VideoEntry,
    VideoList,
    load_video_list,
    row_key,
    save_video_list,
)
from th_jax.storage.files import read_range

LOG_FILE = "forgotten.jsonl"

WORK_FOLDER = ".forgetting"
"""In a data set that is being changed, or was when a run was killed."""

_INFO_FILE = "dataset_info.json"  # TFDS's metadata
DATA_SET_FILES = (VIDEO_LIST_FILE, _INFO_FILE)
"""By which a folder is known for a data set."""

_OLD_LIST = "videos.before.json"


class Forgotten(NamedTuple):
    """What was removed."""

    row_keys: tuple[str, ...]
    """Hashes of the ids of the videos."""
    shards: tuple[str, ...]
    """Files that were written anew."""
    removed_bytes: int


def forget(folder: Path, names: Collection[str], *, missing_is_error: bool = True) -> Forgotten:
    """Remove all videos of people, or single videos, from the data set in a local folder.

    No run may read the data set meanwhile. A data set from which everybody was removed stays, with empty shards.

    Args:
        folder: of the data set.
        names: people, or ids of videos.
        missing_is_error: whether each name must be in the data set, now or before it was forgotten.

    Raises:
        FileNotFoundError: if the folder holds no data set.
        ValueError: if a name is blank or not in it, or its list or an index is damaged.
        DamagedRecord: if a record that is to stay is damaged (a ValueError); nothing was changed then.
        OSError: if the disk refuses; the next run completes what was begun, or begins anew.
    """
    check_names(names)
    _recover(folder)
    videos = load_video_list(folder)
    gone = _named(videos, names, missing_is_error)
    if not gone:
        return Forgotten((), (), 0)
    kept, changed = _without(videos, gone)
    work = folder / WORK_FOLDER
    work.mkdir()
    removed = sum(_rewrite(folder, work, *which, videos, kept) for which in sorted(changed))
    shards = tuple(shard_name(videos.name, split, shard, videos.shards[split]) for split, shard in sorted(changed))
    save_video_list(kept, work)
    _write(work / _INFO_FILE, _info(folder, work, shards, kept))
    _copy_lines(folder / MANIFEST_FILE, work / MANIFEST_FILE, gone)
    row_keys = tuple(sorted(map(row_key, gone)))
    forgotten = Forgotten(row_keys, shards, removed)
    _write(work / LOG_FILE, _log(folder, forgotten, work, kept))
    _flush(work)
    # From here on the old data set is not there, and `_recover` makes the new one.
    os.rename(folder / VIDEO_LIST_FILE, work / _OLD_LIST)
    _flush(folder)
    _recover(folder)
    return forgotten


def check_names(names: Collection[str]) -> None:
    """A name that is empty, as that of an unset variable is, names nobody.

    Raises:
        ValueError: if one is blank.
    """
    if any(not name.strip() for name in names):
        raise ValueError("one of the names is empty: nothing was changed; give people or videos by their names")


def can_go_on(folder: Path) -> bool:
    """Whether a run that was stopped in this folder is brought to an end by `forget(folder, ())`."""
    work = folder / WORK_FOLDER
    known = (folder / VIDEO_LIST_FILE).is_file() or (work / _OLD_LIST).is_file()
    return known and work.is_dir() and not work.is_symlink()


def _recover(folder: Path) -> None:
    """Complete what an earlier run decided, or undo what it had not decided yet."""
    work = folder / WORK_FOLDER
    if work.is_symlink():
        raise ValueError(f"{work} is a link, which no run of data_prep.forget makes: look at it and remove it")
    if not work.exists():
        return
    if (work / _OLD_LIST).exists() and not (folder / VIDEO_LIST_FILE).exists():
        for path in sorted(work.iterdir()):
            if path.name not in (_OLD_LIST, VIDEO_LIST_FILE):
                os.replace(path, folder / path.name)
        _flush(folder)
        os.replace(work / VIDEO_LIST_FILE, folder / VIDEO_LIST_FILE)  # last: it makes a data set of the folder
        _flush(folder)
    shutil.rmtree(work)


def _named(videos: VideoList, names: Collection[str], missing_is_error: bool) -> frozenset[str]:
    """Ids of the videos that are to go."""
    gone: set[str] = set()
    for name in names:
        of_name = videos.videos_of(name)
        if not of_name and any(entry.video_id == name for entries in videos.splits.values() for entry in entries):
            of_name = [name]
        if not of_name and missing_is_error:
            raise ValueError(
                f"data set {videos.name!r} has neither a person nor a video {name!r}, or forgot it before: nothing "
                "was changed"
            )
        gone.update(of_name)
    return frozenset(gone)


def _without(videos: VideoList, gone: Collection[str]) -> tuple[VideoList, set[tuple[str, int]]]:
    """The list with tombstones, the others' records counted anew; and the shards, by split, that change."""
    changed = {
        (split, entry.shard) for split, entries in videos.splits.items() for entry in entries if entry.video_id in gone
    }
    kept = videos.forget(gone)
    splits: dict[str, tuple[VideoEntry, ...]] = {}
    for split, entries in kept.splits.items():
        staying = sorted((entry.shard, entry.record) for entry in entries if not entry.forgotten)
        places: dict[tuple[int, int], int] = {}
        counts: dict[int, int] = {}
        for shard, record in staying:
            places[shard, record] = counts.get(shard, 0)
            counts[shard] = places[shard, record] + 1
        splits[split] = tuple(
            entry
            if entry.forgotten or (split, entry.shard) not in changed
            else entry._replace(record=places[entry.shard, entry.record])
            for entry in entries
        )
    return kept._replace(splits=splits), changed


def _rewrite(folder: Path, work: Path, split: str, shard: int, old: VideoList, kept: VideoList) -> int:
    """Write a shard without the records of tombstones, and its index; the number of bytes that went."""
    name = shard_name(kept.name, split, shard, kept.shards[split])
    staying = [
        before.record
        for before, after in zip(old.entries(split), kept.entries(split), strict=True)
        if before.shard == shard and not after.forgotten
    ]
    index = load_index(str(folder / name))
    with (work / name).open("wb") as file:
        for number in sorted(staying):
            offset, length, crc = (int(column[number]) for column in (index.offsets, index.lengths, index.crcs))
            framed = read_range(str(folder / name), offset, HEADER_BYTES + length + FOOTER_BYTES)
            unpack(framed, length=length, crc=crc)
            file.write(framed)
    write_index(work / name)
    for written in (work / name, work / f"{name}{INDEX_SUFFIX}"):
        _flush(written)
    return index.shard_bytes - (work / name).stat().st_size


def _info(folder: Path, work: Path, shards: Sequence[str], kept: VideoList) -> str:
    """TFDS's metadata with the new lengths and sizes."""
    info = json.loads((folder / _INFO_FILE).read_text(encoding="utf-8"))
    for described in info["splits"]:
        split = described["name"]
        count = kept.shards[split]
        names = [shard_name(kept.name, split, shard, count) for shard in range(count)]
        sizes = [((work if name in shards else folder) / name).stat().st_size for name in names]
        lengths = [0] * count
        for entry in kept.entries(split):
            if not entry.forgotten:
                lengths[entry.shard] += 1
        described["numBytes"], described["shardLengths"] = str(sum(sizes)), [str(length) for length in lengths]
    return json.dumps(info, indent=2, ensure_ascii=False)


def _copy_lines(old: Path, new: Path, gone: Collection[str]) -> None:
    """The manifest without the lines that name the videos."""
    if old.exists():
        with old.open(encoding="utf-8") as lines:
            _write(new, (line for line in lines if drop_of(line).video_id not in gone))


def _log(folder: Path, forgotten: Forgotten, work: Path, kept: VideoList) -> Iterator[str]:
    log = folder / LOG_FILE
    if log.exists():
        yield log.read_text(encoding="utf-8")
    entry: Mapping[str, Any] = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "row_keys": forgotten.row_keys,
        "removed_bytes": forgotten.removed_bytes,
        "shards": {name: _sha256(work / name) for name in forgotten.shards},
        "digests": {split: kept.digest(split=split) for split in kept.splits},
    }
    yield json.dumps(entry) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str | Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
