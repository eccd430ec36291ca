"""Removes videos from a finished data set, their frames and names, without moving other rows.

Shards that contained them are rewritten, with their indices and the metadata. The list of videos keeps a tombstone in each
position, so that rows of the video table and checkpoints stay valid. `forgotten.jsonl` logs the changes without names. If
the program is killed, the next run completes its work; in between, no reader opens the half-changed data set.
"""

import datetime
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.build.drop_report import drop_report_path, parse_drop
from data_prep.build.staging import read_framed
from th_jax.data.schema import shard_name
from th_jax.data.tfrecord import INDEX_SUFFIX, load_index, pack, write_index
from th_jax.data.video_list import VIDEO_LIST_FILE, VideoEntry, VideoList, load_video_list, row_key, save_video_list
from th_jax.storage.files import file_sha256, flush_to_disk
from th_jax.storage.strict_json import read_json

LOG_FILE = "forgotten.jsonl"

WORK_FOLDER = ".forgetting"
"""Name of the working folder in a data set that is being changed, or was when the program was killed."""

_INFO_FILE = "dataset_info.json"  # TFDS's metadata
DATA_SET_FILES = (VIDEO_LIST_FILE, _INFO_FILE)
"""Files by which a folder is recognized as a data set."""

_OLD_LIST = "videos.before.json"


class Forgotten(NamedTuple):
    """The result of a removal."""

    row_keys: tuple[str, ...]
    """Hashes of the video ids."""
    shards: tuple[str, ...]
    """Names of the rewritten files."""
    removed_bytes: int


def forget(folder: Path, names: Collection[str], *, missing_is_error: bool = True) -> Forgotten:
    """Remove all videos of people, or single videos, from the data set in a local folder.

    No other program may read the data set at the same time. A data set without any remaining people has empty shards.

    Raises:
        FileNotFoundError: if the folder is not a data set.
        ValueError: if a name is blank or unknown, or the list of videos or an index is damaged.
        DamagedRecord: if a remaining record is damaged (a ValueError); nothing is changed in that case.
        OSError: if a file cannot be written; the next run completes the work, or starts over.
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
    report = drop_report_path(folder)
    _copy_lines(report, work / report.name, gone)
    row_keys = tuple(sorted(map(row_key, gone)))
    forgotten = Forgotten(row_keys, shards, removed)
    _write(work / LOG_FILE, _log(folder, forgotten, work, kept))
    flush_to_disk(work)
    # From here on, readers reject the old data set, and `_recover` completes the new one.
    os.rename(folder / VIDEO_LIST_FILE, work / _OLD_LIST)
    flush_to_disk(folder)
    _recover(folder)
    return forgotten


def check_names(names: Collection[str]) -> None:
    """Check that no name is blank, as that of an unset shell variable is.

    Raises:
        ValueError: if one is blank.
    """
    if any(not name.strip() for name in names):
        raise ValueError("one of the names is empty: nothing was changed; give names of people or videos")


def can_go_on(folder: Path) -> bool:
    """Return whether `forget(folder, ())` completes an interrupted run in this folder."""
    work = folder / WORK_FOLDER
    known = (folder / VIDEO_LIST_FILE).is_file() or (work / _OLD_LIST).is_file()
    return known and work.is_dir() and not work.is_symlink()


def _recover(folder: Path) -> None:
    """Complete an interrupted run, or discard its incomplete preparations."""
    work = folder / WORK_FOLDER
    if work.is_symlink():
        raise ValueError(f"{work} is a link, which th-jax prepare forget never creates: inspect and remove it")
    if not work.exists():
        return
    if (work / _OLD_LIST).exists() and not (folder / VIDEO_LIST_FILE).exists():
        for path in sorted(work.iterdir()):
            if path.name not in (_OLD_LIST, VIDEO_LIST_FILE):
                os.replace(path, folder / path.name)
        flush_to_disk(folder)
        os.replace(work / VIDEO_LIST_FILE, folder / VIDEO_LIST_FILE)  # last, because it completes the data set
        flush_to_disk(folder)
    shutil.rmtree(work)


def _named(videos: VideoList, names: Collection[str], missing_is_error: bool) -> frozenset[str]:
    """Return the ids of the videos to remove."""
    gone: set[str] = set()
    for name in names:
        of_name = videos.videos_of(name)
        if not of_name and any(entry.video_id == name for entries in videos.splits.values() for entry in entries):
            of_name = [name]
        if not of_name and missing_is_error:
            raise ValueError(
                f"data set {videos.name!r} has no person or video {name!r} (any more): nothing was changed"
            )
        gone.update(of_name)
    return frozenset(gone)


def _without(videos: VideoList, gone: Collection[str]) -> tuple[VideoList, set[tuple[str, int]]]:
    """Return the list with tombstones and renumbered records, and the (split, shard) pairs that change."""
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
    """Rewrite a shard without the removed records, and its index; returns the number of removed bytes."""
    name = shard_name(kept.name, split, shard, kept.shards[split])
    staying = [
        before.record
        for before, after in zip(old.entries(split), kept.entries(split), strict=True)
        if before.shard == shard and not after.forgotten
    ]
    index = load_index(str(folder / name))
    with (work / name).open("wb") as file:
        for number in sorted(staying):
            file.write(pack(read_framed(folder / name, index, number)))
    write_index(work / name)
    flush_to_disk(work / name, work / f"{name}{INDEX_SUFFIX}")
    return index.shard_bytes - (work / name).stat().st_size


def _info(folder: Path, work: Path, shards: Sequence[str], kept: VideoList) -> str:
    """Return TFDS's metadata with the new lengths and sizes."""
    info = read_json(folder / _INFO_FILE)
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
    """Copy the drop report without the lines of the videos."""
    if old.exists():
        with old.open(encoding="utf-8") as lines:
            _write(new, (line for line in lines if parse_drop(line).video_id not in gone))


def _log(folder: Path, forgotten: Forgotten, work: Path, kept: VideoList) -> Iterator[str]:
    log = folder / LOG_FILE
    if log.exists():
        yield log.read_text(encoding="utf-8")
    entry: Mapping[str, Any] = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "row_keys": forgotten.row_keys,
        "removed_bytes": forgotten.removed_bytes,
        "shards": {name: file_sha256(work / name) for name in forgotten.shards},
        "digests": {split: kept.digest(split=split) for split in kept.splits},
    }
    yield json.dumps(entry) + "\n"


def _write(path: Path, text: str | Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
