"""The staging folder: keeps each finished video as a file until all are done, so that an interrupted run can continue.

A staged file uses TFRecord's framing. Its first record is a header with the video's lines of the drop report and the
fingerprint of its inputs; the second is the video's record, if it has one. The file is written atomically, and its checksums
and its content are checked when it is read, because the process that wrote it has decoded an untrusted video.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.build.sources import SourceVideo
from th_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, DamagedRecord, ShardIndex, pack, scan, unpack
from th_jax.data.video_list import row_key
from th_jax.storage.files import read_range, whole_file
from th_jax.storage.strict_json import parse_json, read_json

ASSEMBLY = "assembly"
"""Name of the subfolder in which the data set is assembled; a continued run starts the assembly over."""

_PREPARATION, _VIDEOS, _LOCK = "settings.json", "videos", "lock"


class Outcome(NamedTuple):
    """The result of preparing a video."""

    lines: tuple[str, ...]
    """The video's lines of the drop report."""
    record: bytes | None
    """The serialized record; None if the video cannot be used."""


class Staged(NamedTuple):
    """The place of a video's outcome."""

    path: Path
    input_fingerprint: str
    """Digest of the preparation and of the video's files, which the stored outcome must match."""


def staging_folder(out: Path) -> Path:
    """Return the folder of finished videos beside a new data set."""
    return out.with_name(f".{out.name}.staging")


@contextlib.contextmanager
def open_staging(folder: Path, preparation: Mapping[str, Any]) -> Iterator[None]:
    """Create the folder, or continue in it, and lock it against other runs.

    `preparation` has everything that determines the content of records, as plain JSON.

    Raises:
        ValueError: if the folder's videos were prepared differently; the message names the first difference.
        RuntimeError: if another run is using the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        _acquire(lock.fileno(), folder)
        shutil.rmtree(folder / ASSEMBLY, ignore_errors=True)
        for abandoned in folder.glob(f"{_VIDEOS}/*/.*.partial"):
            abandoned.unlink()
        _check_preparation(folder / _PREPARATION, preparation)
        yield


def remove_staging(folder: Path) -> None:
    """Delete the folder, itself last, so that a kill leaves a folder that the next run finds."""
    shutil.rmtree(folder / ASSEMBLY, ignore_errors=True)
    shutil.rmtree(folder)


def staged(folder: Path, source: Path, video: SourceVideo, preparation_digest: str) -> Staged:
    """Return the place of a video's outcome.

    The fingerprint identifies files by name, size, mode and modification time, as build tools do: hashing terabytes to
    detect changes would take longer than most restarts are worth.
    """
    key = row_key(video.video_id)
    files = [_status(source / name) for name in video.files]
    inputs = json.dumps([preparation_digest, video, files])
    return Staged(folder / _VIDEOS / key[:2] / key, hashlib.sha256(inputs.encode()).hexdigest())


MAX_HEAD_BYTES = 2**28
"""Maximum size of the lines that are stored with a video, in bytes."""


def digest(preparation: Mapping[str, Any]) -> str:
    """Compute the SHA-256 digest of a preparation."""
    return hashlib.sha256(json.dumps(preparation, sort_keys=True).encode()).hexdigest()


def write_outcome(to: Staged, outcome: Outcome) -> None:
    """Store the outcome of a video atomically.

    Raises:
        OSError: if the file cannot be written.
    """
    head = {"fingerprint": to.input_fingerprint, "lines": outcome.lines, "usable": outcome.record is not None}
    to.path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(to.path) as file:
        file.write(pack(json.dumps(head).encode()))
        if outcome.record is not None:
            file.write(pack(outcome.record))


def read_outcome(place: Staged) -> Outcome | None:
    """Read the outcome of a video, all checksums verified; None if there is none, or only one of other inputs."""
    found = _head(place)
    if found is None:
        return None
    index, lines = found
    try:
        return Outcome(lines, read_framed(place.path, index, 1) if len(index.offsets) > 1 else None)
    except (OSError, DamagedRecord):
        return None


def has_record(place: Staged) -> bool | None:
    """Return whether a video has a record, without reading it; None as in `read_outcome`."""
    found = _head(place)
    return None if found is None else len(found[0].offsets) > 1


def read_lines(place: Staged) -> tuple[str, ...] | None:
    """Read a video's lines of the drop report, without its record; None as in `read_outcome`."""
    found = _head(place)
    return None if found is None else found[1]


def _head(place: Staged) -> tuple[ShardIndex, tuple[str, ...]] | None:
    try:
        index = scan(str(place.path))
        head = parse_json(read_framed(place.path, index, 0), max_bytes=MAX_HEAD_BYTES) if len(index.offsets) else None
    except (OSError, ValueError):
        return None
    match head:
        case {"fingerprint": place.input_fingerprint, "usable": bool(usable), "lines": list(lines)}:
            valid = len(index.offsets) == 1 + usable and all(isinstance(line, str) for line in lines)
            return (index, tuple(lines)) if valid else None
    return None


def read_framed(path: Path, index: ShardIndex, number: int) -> bytes:
    """Read a record of a file in TFRecord's framing, and verify its checksums.

    Raises:
        DamagedRecord: if a checksum does not match (a ValueError).
        OSError: if the file cannot be read.
    """
    offset, length, crc = (int(column[number]) for column in (index.offsets, index.lengths, index.crcs))
    framed = read_range(str(path), offset, HEADER_BYTES + length + FOOTER_BYTES)
    return unpack(framed, length=length, crc=crc)


def _status(path: Path) -> Sequence[object]:
    try:
        status = path.stat()
    except OSError as error:
        return [path.name, error.errno]
    return [path.name, status.st_size, status.st_mtime_ns, status.st_mode]


def _acquire(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(f"another run is using {folder}: wait until it ends, or stop it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network file systems have no locks
            raise


def _check_preparation(path: Path, preparation: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(preparation))
    try:
        found = read_json(path)
    except (FileNotFoundError, ValueError):  # a new folder, or an interrupted first write
        found = None
    if not isinstance(found, dict):
        with whole_file(path) as file:
            file.write(json.dumps(wanted, indent=1).encode())
        return
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            if name == "preparation_version":
                raise ValueError(
                    f"{path.parent} holds videos that another version of this program prepared "
                    f"({name} {found.get(name, 'unknown')}; this one has {wanted[name]}): delete that folder to start over"
                )
            raise ValueError(
                f"{path.parent} holds videos that were prepared with {name} {found.get(name)}, but this run has "
                f"{wanted.get(name)}: use the previous settings, or delete that folder to start over"
            )
