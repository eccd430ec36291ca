"""The index beside each shard: where every record lies and its CRC, made by one walk over the TFRecord headers.

File: magic · uint64 bytes of the shard · uint64 records · for each record (uint64 offset of its frame, uint64 length of
its data, uint32 masked CRC of its data) · uint32 CRC32C of everything before. Little-endian.
"""

import os
import struct
from typing import NamedTuple

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt32

from th_jax.data.framing import FOOTER_BYTES, HEADER_BYTES, DamagedRecord, read_footer, read_length, unpack
from th_jax.data.read_range import file_size, read_file, read_range
from th_jax.whole_file import whole_file

INDEX_SUFFIX = ".index"

MAX_RECORD_BYTES = 2**30
"""Of one video, far above any: records are read whole, and protobuf reads none of 2 GiB."""

MAX_INDEX_BYTES = 2**30
"""Fifty million records."""

_MAGIC = b"THJXIDX1"
_START = struct.Struct("<8sQQ")
_ROW = np.dtype([("offset", "<u8"), ("length", "<u8"), ("crc", "<u4")])


class DamagedIndex(ValueError):
    """An index file is not the one that was written, or does not belong to its shard."""


class ShardIndex(NamedTuple):
    """Where the R records of a shard lie."""

    shard_bytes: int
    offsets: Int64[np.ndarray, " R"]
    """First byte of each record's frame."""
    lengths: Int64[np.ndarray, " R"]
    """Bytes of each record's data, without its frame."""
    crcs: UInt32[np.ndarray, " R"]
    """Masked CRC32C of each record's data."""


def scan(shard: str, *, check_data: bool = False) -> ShardIndex:
    """Index of a shard by walking over its record headers, 16 bytes a record; `check_data` reads and checks all of it.

    Raises:
        DamagedRecord: naming the shard and the record whose frame (or data) is damaged.
        FileNotFoundError: if there is no such shard.
    """
    size = file_size(shard)
    offsets: list[int] = []
    lengths: list[int] = []
    crcs: list[int] = []
    offset = 0
    header = read_range(shard, 0, min(size, HEADER_BYTES))
    while offset < size:
        try:
            if len(header) < HEADER_BYTES:
                raise DamagedRecord("the file ends inside a header")
            length = read_length(header)
            end = offset + HEADER_BYTES + length
            if end + FOOTER_BYTES > size:
                raise DamagedRecord(f"the file ends inside the record: {length} bytes of data cannot be there")
            if length > MAX_RECORD_BYTES:
                raise DamagedRecord(f"{length} bytes of data are over the limit of {MAX_RECORD_BYTES}")
            # One read brings this record's footer and the next one's header.
            tail = read_range(shard, end, FOOTER_BYTES + HEADER_BYTES)
            crc = read_footer(tail[:FOOTER_BYTES])
            if check_data:
                framed = read_range(shard, offset, HEADER_BYTES + length + FOOTER_BYTES)
                unpack(framed, length=length, crc=crc)
        except DamagedRecord as damage:
            raise DamagedRecord(f"record {len(offsets)} of {shard} is damaged: {damage}") from None
        offsets.append(offset)
        lengths.append(length)
        crcs.append(crc)
        offset, header = end + FOOTER_BYTES, tail[FOOTER_BYTES:]
    return ShardIndex(size, np.array(offsets, np.int64), np.array(lengths, np.int64), np.array(crcs, np.uint32))


def write_index(shard: str | os.PathLike[str]) -> ShardIndex:
    """Check every byte of a finished local shard and write its index beside it.

    Raises:
        DamagedRecord: if the shard is damaged; no index is written then.
        FileNotFoundError: if there is no such shard.
        OSError: if the disk refuses; nothing is left behind.
    """
    shard = os.fspath(shard)
    index = scan(shard, check_data=True)
    rows = np.empty(len(index.offsets), _ROW)
    rows["offset"], rows["length"], rows["crc"] = index.offsets, index.lengths, index.crcs
    body = _START.pack(_MAGIC, index.shard_bytes, len(rows)) + rows.tobytes()
    with whole_file(shard + INDEX_SUFFIX) as file:
        file.write(body + struct.pack("<I", google_crc32c.value(body)))
    return index


def load_index(shard: str) -> ShardIndex:
    """The index beside a shard; where none is, the shard's headers are walked instead.

    Raises:
        DamagedIndex: if the index is damaged, or the shard's size is not the one it was made for.
        DamagedRecord: if there is no index and a header of the shard is damaged.
        FileNotFoundError: if there is no such shard.
        ValueError: if the shard is no regular file.
    """
    path = shard + INDEX_SUFFIX
    try:
        content = read_file(path, most=MAX_INDEX_BYTES)
    except FileNotFoundError:
        return scan(shard)
    except ValueError as error:
        raise DamagedIndex(str(error)) from error
    index = _parse(content, path)
    size = file_size(shard)
    if size != index.shard_bytes:
        raise DamagedIndex(
            f"{shard} has {size} bytes, but its index was made for {index.shard_bytes}: one of the two was cut short "
            "or exchanged; copy both again from where they were written"
        )
    return index


def _parse(content: bytes, path: str) -> ShardIndex:
    body, stored = content[:-4], content[-4:]
    advice = "delete it to have the shard's headers read instead, or copy it again"
    if len(content) < _START.size + 4 or google_crc32c.value(body) != struct.unpack("<I", stored)[0]:
        raise DamagedIndex(f"the index {path} is damaged (its bytes do not agree with its checksum): {advice}")
    magic, shard_bytes, count = _START.unpack_from(body)
    if magic != _MAGIC or len(body) != _START.size + count * _ROW.itemsize:
        raise DamagedIndex(f"{path} is no index of this version (it begins with {magic!r}): {advice}")
    rows = np.frombuffer(body, _ROW, offset=_START.size)
    # Whoever wrote it could also compute its checksum: nothing is read where no record can be.
    frame = HEADER_BYTES + FOOTER_BYTES
    if shard_bytes >= 2**63 or (rows["length"] > MAX_RECORD_BYTES).any():
        raise DamagedIndex(f"the index {path} promises records over the limit of {MAX_RECORD_BYTES} bytes: {advice}")
    if (rows["offset"] >= shard_bytes).any() or (rows["offset"] + rows["length"] + frame > shard_bytes).any():
        raise DamagedIndex(f"the index {path} promises records behind the end of its shard: {advice}")
    return ShardIndex(
        shard_bytes, rows["offset"].astype(np.int64), rows["length"].astype(np.int64), rows["crc"].astype(np.uint32)
    )
