"""TFRecord framing, and the index beside each shard with the position and CRC of every record.

The index is built by one pass over the TFRecord headers. Its format is: magic · uint64 size of the shard in bytes ·
uint64 number of records · for each record (uint64 offset of its frame, uint64 length of its data, uint32 masked CRC of
its data) · uint32 CRC32C of everything before. Little-endian.
"""

import os
import struct
from typing import NamedTuple

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt32

from th_jax.storage.files import file_size, read_file, read_range, whole_file

HEADER_BYTES = 12

FOOTER_BYTES = 4

_HEADER = struct.Struct("<QI")

_FOOTER = struct.Struct("<I")


class DamagedRecord(ValueError):
    """The bytes of a record are not those that were written."""


def masked_crc(data: bytes) -> int:
    """Compute the CRC32C of `data`, rotated and offset as in TFRecord files."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def pack(data: bytes) -> bytes:
    """Frame `data` as in a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _FOOTER.pack(masked_crc(length)), data, _FOOTER.pack(masked_crc(data))))


def read_length(header: bytes) -> int:
    """Return the length in bytes of the data that follow these 12 bytes.

    Raises:
        DamagedRecord: if the length does not match its CRC.
    """
    length, crc = _HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise DamagedRecord(f"the header's length ({length} bytes) does not match its CRC")
    return length


def read_footer(footer: bytes) -> int:
    """Return the masked CRC of the data that precede these 4 bytes."""
    return _FOOTER.unpack(footer)[0]


def unpack(framed: bytes, *, length: int, crc: int) -> bytes:
    """Extract the data of one framed record, verified against its own frame and the index.

    Raises:
        DamagedRecord: if a part does not match; names it.
    """
    if len(framed) != HEADER_BYTES + length + FOOTER_BYTES:
        raise DamagedRecord(f"the file ends within the record: only {len(framed)} of {length + 16} bytes exist")
    in_header = read_length(framed[:HEADER_BYTES])
    if in_header != length:
        raise DamagedRecord(f"the header says {in_header} bytes of data, but the index says {length}")
    if read_footer(framed[-FOOTER_BYTES:]) != crc:
        raise DamagedRecord("the CRC after the data differs from the one in the index")
    data = framed[HEADER_BYTES:-FOOTER_BYTES]
    if masked_crc(data) != crc:
        raise DamagedRecord(f"the {length} bytes of data do not match their CRC")
    return data


INDEX_SUFFIX = ".index"

MAX_RECORD_BYTES = 2**30
"""Maximum size of a record, far above that of any video: records are read whole, and protobuf cannot read 2 GiB."""

MAX_INDEX_BYTES = 2**30
"""Maximum size of an index in bytes: fifty million records."""

_MAGIC = b"THJXIDX1"

_START = struct.Struct("<8sQQ")

_ROW = np.dtype([("offset", "<u8"), ("length", "<u8"), ("crc", "<u4")])


class DamagedIndex(ValueError):
    """An index file is damaged, or does not belong to its shard."""


class ShardIndex(NamedTuple):
    """Positions of the R records of a shard."""

    shard_bytes: int
    offsets: Int64[np.ndarray, " R"]
    """First byte of each record's frame."""
    lengths: Int64[np.ndarray, " R"]
    """Length of each record's data in bytes, without its frame."""
    crcs: UInt32[np.ndarray, " R"]
    """Masked CRC32C of each record's data."""


def scan(shard: str, *, check_data: bool = False) -> ShardIndex:
    """Index a shard by reading its record headers, 16 bytes per record; `check_data` reads and checks all data.

    Raises:
        DamagedRecord: if a record's frame (or data) is damaged; names shard and record.
        FileNotFoundError: if the shard does not exist.
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
                raise DamagedRecord("the file ends within a header")
            length = read_length(header)
            end = offset + HEADER_BYTES + length
            if end + FOOTER_BYTES > size:
                raise DamagedRecord(f"the file ends within the record: it is too short for {length} bytes of data")
            if length > MAX_RECORD_BYTES:
                raise DamagedRecord(f"{length} bytes of data exceed the limit of {MAX_RECORD_BYTES}")
            # One read gets this record's footer and the next one's header.
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
    """Check every byte of a finished local shard, and write its index beside it.

    Raises:
        DamagedRecord: if the shard is damaged; no index is written in that case.
        FileNotFoundError: if the shard does not exist.
        OSError: if the index cannot be written; no partial file is left behind.
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
    """Load the index beside a shard; if there is none, read the shard's headers instead.

    Raises:
        DamagedIndex: if the index is damaged, or the shard has another size than when it was indexed.
        DamagedRecord: if there is no index, and a header of the shard is damaged.
        FileNotFoundError: if the shard does not exist.
        ValueError: if the shard is not a regular file.
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
            f"{shard} has {size} bytes, but its index was made for {index.shard_bytes}: one of them was truncated "
            "or replaced; copy both again from the source"
        )
    return index


def _parse(content: bytes, path: str) -> ShardIndex:
    body, stored = content[:-4], content[-4:]
    advice = "delete it to read the shard's headers instead, or copy it again"
    if len(content) < _START.size + 4 or google_crc32c.value(body) != struct.unpack("<I", stored)[0]:
        raise DamagedIndex(f"the index {path} is damaged (it does not match its checksum): {advice}")
    magic, shard_bytes, count = _START.unpack_from(body)
    if magic != _MAGIC or len(body) != _START.size + count * _ROW.itemsize:
        raise DamagedIndex(f"{path} is not an index of this version (it starts with {magic!r}): {advice}")
    rows = np.frombuffer(body, _ROW, offset=_START.size)
    # A valid checksum does not make an index trustworthy: positions that cannot hold a record are rejected before
    # reading.
    frame = HEADER_BYTES + FOOTER_BYTES
    if shard_bytes >= 2**63 or (rows["length"] > MAX_RECORD_BYTES).any():
        raise DamagedIndex(f"the index {path} has records over the limit of {MAX_RECORD_BYTES} bytes: {advice}")
    if (rows["offset"] >= shard_bytes).any() or (rows["offset"] + rows["length"] + frame > shard_bytes).any():
        raise DamagedIndex(f"the index {path} has records beyond the end of its shard: {advice}")
    return ShardIndex(
        shard_bytes, rows["offset"].astype(np.int64), rows["length"].astype(np.int64), rows["crc"].astype(np.uint32)
    )
