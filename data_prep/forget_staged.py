"""Finds what a stopped preparation of a data set keeps of somebody, by names and hashes."""

import hashlib
import json
import mmap
import re
from collections.abc import Collection
from pathlib import Path

from data_prep.forget_tree import STAGING_SUFFIX
from data_prep.manifest import drop_of
from th_jax.data.schema import parse
from th_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES, ShardIndex, scan, unpack
from th_jax.storage.files import read_range

_KEPT = ("settings.json", "lock")
"""Of a staging folder itself: without them a run that goes on would take what is left for another's."""

_NAME_BYTE = rb"[A-Za-z0-9_.\-\x80-\xff]"


def find_staged(files: Collection[Path], names: Collection[str], digests: Collection[str]) -> set[Path]:
    """The files of videos that were prepared and not yet written, of people or videos of these names, or of these shots.

    A file that can be read says whose it is. Of one that cannot, and of a data set that is being put together, the bytes are
    searched for whole names; found by chance, a cache is lost that the run makes again.

    Args:
        files: in staging folders.
        names: people, or ids of videos.
        digests: SHA-256 of files that videos were made of.

    Raises:
        OSError: if one cannot be read.
    """
    wanted = frozenset(names) | frozenset(digests)
    if not wanted:  # or the pattern would be found everywhere
        return set()
    keys = {hashlib.sha256(_bytes(name)).hexdigest() for name in names}  # as `row_key`, which files are called by
    pattern = re.compile(b"|".join(map(_whole, sorted(wanted))))
    found = set()
    for path in files:
        if path.name in _KEPT and path.absolute().parent.name.endswith(STAGING_SUFFIX):
            continue
        called = _called(path)
        if path.name[:64] in keys or (_holds(path, pattern) if called is None else called & wanted):
            found.add(path)
    return found


def _called(path: Path) -> set[str] | None:
    """All names and hashes that a staged file goes by; None if it is none that can be read."""
    try:
        index = scan(str(path))
        head = json.loads(_data(path, index, 0))
        drops = [drop_of(line) for line in head["lines"]]
        record = parse(_data(path, index, 1)) if head["usable"] else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    called = {name for drop in drops for name in _names_in(drop.path if drop.video_id is None else drop.video_id)}
    if record is not None:
        called |= {record.identity, record.source_sha256, *_names_in(record.video_id)}
    return called


def _names_in(video_id: str) -> set[str]:
    """A video's id and its person, as data_prep.sources makes ids."""
    person, slash, _ = str(video_id).partition("/")
    return {str(video_id), person if slash else Path(person).stem}


def _data(path: Path, index: ShardIndex, number: int) -> bytes:
    offset, length, crc = (int(column[number]) for column in (index.offsets, index.lengths, index.crcs))
    framed = read_range(str(path), offset, HEADER_BYTES + length + FOOTER_BYTES)
    return unpack(framed, length=length, crc=crc)


def _whole(name: str) -> bytes:
    """A pattern of the name where it stands alone, plain or in JSON in JSON, or behind its length as protobuf writes it."""
    plain = _bytes(name)
    in_json = json.dumps(name)[1:-1]
    ways = {plain, in_json.encode(), json.dumps(in_json)[1:-1].encode()}
    alone = b"|".join(re.escape(way) for way in sorted(ways))
    counted = re.escape(_varint(len(plain)) + plain)
    return b"(?<!" + _NAME_BYTE + b")(?:" + alone + b")(?!" + _NAME_BYTE + b")|" + counted


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + _varint(number // 128)


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return pattern.search(content) is not None
