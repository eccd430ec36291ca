"""The frame that TFRecord files put around each record: its length, and masked CRC32C of the length and of the data.

uint64 length · uint32 masked CRC of the length · data · uint32 masked CRC of the data       (little-endian)
"""

import struct

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class DamagedRecord(ValueError):
    """Bytes of a record are not those that were written."""


def masked_crc(data: bytes) -> int:
    """CRC32C of `data`, rotated and offset as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def pack(data: bytes) -> bytes:
    """`data` in its frame, as it stands in a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _FOOTER.pack(masked_crc(length)), data, _FOOTER.pack(masked_crc(data))))


def read_length(header: bytes) -> int:
    """Length in bytes of the data that follow these 12 bytes.

    Raises:
        DamagedRecord: if the length does not agree with its CRC.
    """
    length, crc = _HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise DamagedRecord(f"the header's length ({length} bytes) does not agree with its CRC")
    return length


def read_footer(footer: bytes) -> int:
    """The masked CRC of the data that came before these 4 bytes."""
    return _FOOTER.unpack(footer)[0]


def unpack(framed: bytes, *, length: int, crc: int) -> bytes:
    """The data of one framed record, checked against its own frame and against the index.

    Args:
        framed: header, data and footer.
        length: bytes of data that the index promises.
        crc: masked CRC of the data that the index promises.

    Raises:
        DamagedRecord: naming the part that does not agree.
    """
    if len(framed) != HEADER_BYTES + length + FOOTER_BYTES:
        raise DamagedRecord(f"the file ends inside the record: {len(framed)} of {length + 16} bytes are there")
    in_header = read_length(framed[:HEADER_BYTES])
    if in_header != length:
        raise DamagedRecord(f"the header says {in_header} bytes of data, the index {length}")
    if read_footer(framed[-FOOTER_BYTES:]) != crc:
        raise DamagedRecord("the CRC stored behind the data is not the one in the index")
    data = framed[HEADER_BYTES:-FOOTER_BYTES]
    if masked_crc(data) != crc:
        raise DamagedRecord(f"the {length} bytes of data do not agree with their CRC")
    return data
