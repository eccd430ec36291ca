"""The index lists every record of a shard, and any changed byte of shard or index is detected."""

import struct

import google_crc32c
import numpy as np
import pytest

from th_jax.data import tfrecord as index
from th_jax.data.tfrecord import (
    DamagedIndex,
    DamagedRecord,
    load_index,
    masked_crc,
    pack,
    read_length,
    scan,
    unpack,
    write_index,
)


@pytest.fixture
def shard(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x-train.tfrecord-00000-of-00001"
    path.write_bytes(b"".join(pack(rng.bytes(length)) for length in (100, 0, 57, 300)))
    write_index(path)
    return path


def flip(path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_crc_is_the_castagnoli_polynomial_masked_as_tensorflow_does():
    assert google_crc32c.implementation == "c", "the pure Python one is a thousand times slower"
    assert google_crc32c.value(b"123456789") == 0xE3069283
    # What tf.io.TFRecordWriter writes for these 12 bytes.
    assert pack(b"talking head").hex() == "0c00000000000000f4c8fe0a" + b"talking head".hex() + "08d81ed4"


def test_index_is_what_was_written(shard):
    found = load_index(str(shard))
    assert found.shard_bytes == shard.stat().st_size
    np.testing.assert_array_equal(found.lengths, [100, 0, 57, 300])
    np.testing.assert_array_equal(found.offsets, [0, 116, 132, 205])
    for a, b in zip(found, scan(str(shard), check_data=True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_an_index_the_headers_are_walked(shard):
    with_index = load_index(str(shard))
    shard.with_name(shard.name + ".index").unlink()
    for a, b in zip(load_index(str(shard)), with_index, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_empty_shard_has_an_empty_index(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    write_index(path)
    assert load_index(str(path)).offsets.shape == (0,)


def test_every_flipped_byte_of_an_index_is_found(shard):
    path = shard.with_name(shard.name + ".index")
    whole = path.read_bytes()
    for place in range(len(whole)):
        flip(path, place, place % 8)
        with pytest.raises(DamagedIndex, match=r"x-train.tfrecord-00000-of-00001\.index is damaged"):
            load_index(str(shard))
        path.write_bytes(whole)
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedIndex, match="delete it"):
        load_index(str(shard))


def test_every_flipped_byte_of_a_shard_is_found_by_its_record(shard):
    offsets = [*load_index(str(shard)).offsets, shard.stat().st_size]
    whole = shard.read_bytes()
    for place in range(len(whole)):
        flip(shard, place, place % 8)
        record = np.searchsorted(offsets, place, side="right") - 1
        with pytest.raises(DamagedRecord, match=f"record {record} of .*x-train.tfrecord-00000-of-00001 is damaged"):
            scan(str(shard), check_data=True)
        shard.write_bytes(whole)


def test_a_shard_of_another_size_is_found_at_once(shard):
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DamagedIndex, match=f"has {len(whole) - 1} bytes, but its index was made for {len(whole)}"):
        load_index(str(shard))
    with pytest.raises(DamagedRecord, match=r"record 3 of .* is damaged: the file ends within the record"):
        scan(str(shard))
    shard.write_bytes(whole + b"12345")
    with pytest.raises(DamagedRecord, match=r"record 4 of .* is damaged: the file ends within a header"):
        scan(str(shard))


def test_a_damaged_shard_gets_no_index(shard):
    shard.with_name(shard.name + ".index").unlink()
    flip(shard, 150, 0)
    with pytest.raises(DamagedRecord, match="record 2 of"):
        write_index(shard)
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]


def test_a_lying_length_is_never_allocated(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    path = tmp_path / "liar"
    path.write_bytes(length + struct.pack("<I", masked_crc(length)) + bytes(100))
    with pytest.raises(DamagedRecord, match=f"too short for {1 << 60} bytes"):
        scan(str(path))


def test_an_index_of_another_version_is_rejected(shard):
    path = shard.with_name(shard.name + ".index")
    body = b"THJXIDX9" + path.read_bytes()[8:-4]
    path.write_bytes(body + struct.pack("<I", google_crc32c.value(body)))
    with pytest.raises(DamagedIndex, match="not an index of this version"):
        load_index(str(shard))


def test_a_frame_must_agree_with_the_index():
    framed = pack(b"data")
    assert unpack(framed, length=4, crc=masked_crc(b"data")) == b"data"
    assert read_length(framed[:12]) == 4
    with pytest.raises(DamagedRecord, match=r"header says 4 bytes .* index says 3"):
        unpack(framed[:-1], length=3, crc=0)
    with pytest.raises(DamagedRecord, match="differs from the one in the index"):
        unpack(framed, length=4, crc=0)


def test_the_index_stands_beside_its_shard(shard):
    assert sorted(path.name for path in shard.parent.iterdir()) == [shard.name, shard.name + index.INDEX_SUFFIX]
