"""Keeps each finished video as a file of its own until all are done, so that a run that was killed can go on.

A staged file has TFRecord's framing: first the manifest's lines of the video with the fingerprint of what it was made
from, then its record, if it got one. It is written under another name, flushed and renamed, and its checksums are
checked when it is read: nothing half-written is ever taken for an outcome.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.sources import SourceVideo
from th_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, DamagedRecord, ShardIndex, pack, scan, unpack
from th_jax.data.video_list import row_key
from th_jax.storage.files import read_range, whole_file

ASSEMBLY = "assembly"
"""Name of the subfolder in which the data set is put together; a run that goes on begins it anew."""

_DECISIVE, _VIDEOS, _LOCK = "settings.json", "videos", "lock"


class Outcome(NamedTuple):
    """What became of a video."""

    lines: tuple[str, ...]
    """Of the manifest."""
    record: bytes | None
    """Serialised; None if the video cannot be used."""


class Staged(NamedTuple):
    """Where the outcome of a video is kept, and what it must have been made from."""

    path: Path
    fingerprint: str


def staging_folder(out: Path) -> Path:
    """The folder of finished videos beside a data set that is being made."""
    return out.with_name(f".{out.name}.staging")


@contextlib.contextmanager
def open_staging(folder: Path, decisive: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder, or go on in it; meanwhile no other run can.

    Args:
        folder: of the finished videos.
        decisive: all settings that decide what a record holds, as plain JSON.

    Raises:
        ValueError: if the videos in it were prepared in another way, naming the first difference.
        RuntimeError: if another run is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        _take(lock.fileno(), folder)
        shutil.rmtree(folder / ASSEMBLY, ignore_errors=True)
        for abandoned in folder.glob(f"{_VIDEOS}/*/*.partial"):
            abandoned.unlink()
        _agree(folder / _DECISIVE, decisive)
        yield


def remove_staging(folder: Path) -> None:
    """Delete the folder; itself last, so that a kill leaves something to be found."""
    shutil.rmtree(folder / ASSEMBLY, ignore_errors=True)
    shutil.rmtree(folder)


def staged(folder: Path, source: Path, video: SourceVideo, decisive: str) -> Staged:
    """The place of a video's outcome.

    The fingerprint knows the files by name, size, mode and time of change, as build tools do: hashing terabytes to find
    out that nothing changed would take longer than most restarts are worth.

    Args:
        folder: of the staging.
        source: the folder of the video's files.
        video: whose outcome.
        decisive: digest of the settings.
    """
    key = row_key(video.video_id)
    files = [_status(source / name) for name in video.files]
    made_from = json.dumps([decisive, video, files])
    return Staged(folder / _VIDEOS / key[:2] / key, hashlib.sha256(made_from.encode()).hexdigest())


def digest(decisive: Mapping[str, Any]) -> str:
    """SHA-256 of settings."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def write_outcome(to: Staged, outcome: Outcome) -> None:
    """Keep what became of a video.

    Raises:
        OSError: if the disk refuses.
    """
    head = {"fingerprint": to.fingerprint, "lines": outcome.lines, "usable": outcome.record is not None}
    to.path.parent.mkdir(parents=True, exist_ok=True)
    partial = to.path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(pack(json.dumps(head).encode()))
            if outcome.record is not None:
                file.write(pack(outcome.record))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(to.path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_outcome(place: Staged) -> Outcome | None:
    """What became of a video, every byte checked; None if that is not known, or was made from something else."""
    found = _head(place)
    if found is None:
        return None
    index, lines = found
    try:
        return Outcome(lines, _data(place.path, index, 1) if len(index.offsets) > 1 else None)
    except (OSError, DamagedRecord):
        return None


def has_record(place: Staged) -> bool | None:
    """Whether a video got a record, without reading that; None as `read_outcome`."""
    found = _head(place)
    return None if found is None else len(found[0].offsets) > 1


def read_lines(place: Staged) -> tuple[str, ...] | None:
    """The manifest's lines of a video, without reading its record; None as `read_outcome`."""
    found = _head(place)
    return None if found is None else found[1]


def _head(place: Staged) -> tuple[ShardIndex, tuple[str, ...]] | None:
    try:
        index = scan(str(place.path))
        head = json.loads(_data(place.path, index, 0)) if len(index.offsets) else {}
    except (OSError, DamagedRecord):
        return None
    if head.get("fingerprint") != place.fingerprint or len(index.offsets) != 1 + head["usable"]:
        return None
    return index, tuple(head["lines"])


def _data(path: Path, index: ShardIndex, number: int) -> bytes:
    offset, length, crc = (int(column[number]) for column in (index.offsets, index.lengths, index.crcs))
    framed = read_range(str(path), offset, HEADER_BYTES + length + FOOTER_BYTES)
    return unpack(framed, length=length, crc=crc)


def _status(path: Path) -> Sequence[object]:
    try:
        status = path.stat()
    except OSError as error:
        return [path.name, error.errno]
    return [path.name, status.st_size, status.st_mtime_ns, status.st_mode]


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(f"another run is at work in {folder}: wait for it, or end it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network file systems know no locks
            raise


def _agree(path: Path, decisive: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(decisive))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a new folder, or one whose first write was cut off
        with whole_file(path) as file:
            file.write(json.dumps(wanted, indent=1).encode())
        return
    for name in {**found, **wanted}:
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path.parent} holds videos that were prepared with {name} {found.get(name)}, this run wants "
                f"{wanted.get(name)}: run with the settings of before, or delete that folder to begin anew"
            )
