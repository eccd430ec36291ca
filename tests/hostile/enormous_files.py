"""Files whose headers promise terabytes, a million things or no end of depth, by the entry point that they are for.

As a program, it opens them all with little memory to spare, and prints what went wrong: one line each, none if all is well.
"""

import hashlib
import io
import json
import resource
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c

from tests.hostile.entry_points import ENTRY_POINTS, clear_error
from th_jax.data.tfrecord import masked_crc, pack, write_index

TERABYTE = 2**40
SPARE = 2**30
"""Bytes of addresses beyond those that the program has when it starts to read."""


def png(content: bytes) -> bytes:
    header = b"IHDR" + struct.pack(">II", 2**31 - 1, 2**31 - 1) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def jpeg(content: bytes) -> bytes:
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :]


def mp4_samples(content: bytes) -> bytes:
    place = content.index(b"stsz") + 12
    return content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :]


def mp4_sound_samples(content: bytes) -> bytes:
    place = content.rindex(b"stsz") + 12
    return content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :]


def mp4_boxes(content: bytes) -> bytes:
    """The data's box says that it has a terabyte."""
    place = content.index(b"mdat") - 4
    return content[:place] + struct.pack(">I4sQ", 1, b"mdat", TERABYTE) + content[place + 8 :]


def tensors_header(content: bytes) -> bytes:
    return struct.pack("<Q", TERABYTE) + content[8:]


def tensors_shape(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    size = {"F64": 8, "F32": 4, "F16": 2}[header[last]["dtype"]]
    start = header[last]["data_offsets"][0]
    header[last] |= {"shape": [TERABYTE // size], "data_offsets": [start, start + TERABYTE]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def record_length(content: bytes) -> bytes:
    length = struct.pack("<Q", TERABYTE)
    return length + struct.pack("<I", masked_crc(length)) + content[12:]


def record_field(_: bytes) -> bytes:
    """A whole record, agreed with every CRC, whose first field says that it has a terabyte."""
    return pack(b"\x0a" + b"\x80\x80\x80\x80\x80\x20" + bytes(100)) * 2


def index_count(content: bytes) -> bytes:
    return _sealed(content[:16] + struct.pack("<Q", TERABYTE) + content[24:-4])


def index_length(content: bytes) -> bytes:
    return _sealed(content[:32] + struct.pack("<Q", TERABYTE) + content[40:-4])


def index_offset(content: bytes) -> bytes:
    return _sealed(content[:24] + struct.pack("<Q", 2**64 - 2**10) + content[32:-4])


def list_shards(content: bytes) -> bytes:
    body = content.split(b"\n", 1)[1].replace(b'{"train": 1}', b'{"train": 1000000000000}')
    assert b"1000000000000" in body
    return f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode() + body


def npy_shape(_: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({TERABYTE}, 68, 2)}}".encode()
    return _zipped(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100))


def npz_member(content: bytes) -> bytes:
    """The list of members says that one unpacks to 4 GiB."""
    place = content.index(b"PK\x01\x02") + 24
    return content[:place] + b"\xfe\xff\xff\xff" + content[place + 4 :]


def deep(_: bytes) -> bytes:
    return b"[" * 60_000


def deep_objects(_: bytes) -> bytes:
    return b'{"a":' * 60_000


def long_number(_: bytes) -> bytes:
    return b"9" * 60_000


def _zipped(array: bytes) -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("landmarks.npy", array)
        return buffer.getvalue()


def _sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", google_crc32c.value(body))


ENORMOUS: dict[str, tuple[Callable[[bytes], bytes], ...]] = {
    "image, PNG": (png,),
    "image, JPEG": (jpeg,),
    "video": (mp4_samples, mp4_boxes),
    "sound of a video": (mp4_sound_samples, mp4_boxes),
    "avatar": (tensors_header, tensors_shape),
    "avatar, description": (tensors_header, tensors_shape),
    "meta weights": (tensors_header, tensors_shape),
    "perceptual weights": (tensors_header, tensors_shape),
    "consent record": (deep, deep_objects, long_number),
    "provenance record": (deep, deep_objects, long_number),
    "shard": (record_length, record_field),
    "shard without index": (record_length, record_field),
    "index of a shard": (index_count, index_length, index_offset),
    "list of videos": (list_shards, deep),
    "landmarks by hand, text": (long_number,),
    "landmarks by hand, JSON": (deep, deep_objects, long_number),
    "driving landmarks": (npy_shape, npz_member),
    "people": (long_number,),
    "list of films": (long_number,),
    "fine-tuning settings": (deep, deep_objects, long_number),
}


def enormous_files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Each file, by its entry point and its kind; of every entry point also the whole file that goes on for a terabyte."""
    for name, entry in ENTRY_POINTS.items():
        for damage in ENORMOUS.get(name, ()):
            path = entry.make(folder)
            path.write_bytes(damage(path.read_bytes()))
            if damage is record_field and name == "shard":
                write_index(path)
            yield name, damage.__name__, path
        if entry.whole:
            path = entry.make(folder)
            with path.open("r+b") as file:
                file.truncate(TERABYTE)
            yield name, "sparse", path
        for path in folder.glob("*.*"):
            path.unlink()


def main() -> None:
    """Open every one."""
    from tests.hostile.valid_files import TINY_CHANNELS, meta
    from th_jax.perceptual import vgg

    vgg.CHANNELS = TINY_CHANNELS
    meta()
    with tempfile.TemporaryDirectory() as folder:
        for entry in ENTRY_POINTS.values():  # what is loaded on first use is loaded now
            entry.open(entry.make(Path(folder)))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE,) * 2)
    with tempfile.TemporaryDirectory() as folder:
        for name, damage, path in enormous_files(Path(folder)):
            try:
                ENTRY_POINTS[name].open(path)
            except BaseException as error:
                if not clear_error(error, ENTRY_POINTS[name]):
                    print(f"{name}, {damage}: {type(error).__name__}: {error}")
            else:
                print(f"{name}, {damage}: was opened")


if __name__ == "__main__":
    sys.exit(main())
