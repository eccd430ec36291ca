"""Records are read by index, from any storage, with checksums; damaged ones are named."""

import logging
import pickle
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from th_jax.data.records import VideoRecords, read_videos
from th_jax.data.schema import serialise
from th_jax.data.tfrecord import DamagedIndex, DamagedRecord, pack, write_index
from th_jax.data.video_list import load_video_list, save_video_list


def test_records_round_trip(data_set, make_record):
    records = VideoRecords(data_set)
    assert len(records) == 11
    for number in range(11):
        assert serialise(records[number]) == serialise(make_record(number))
    assert [record.video_id for _, record in read_videos(data_set, "heldout")] == ["video20", "video21", "video22"]


def test_memory_and_local_give_the_same(data_set):
    memory = fsspec.filesystem("memory")
    memory.put(str(data_set), "/a bucket/set", recursive=True)
    remote, local = VideoRecords("memory://a bucket/set/"), VideoRecords(data_set)
    for number in range(len(local)):
        assert remote.read_bytes(number) == local.read_bytes(number)
    memory.rm("/a bucket", recursive=True)


def test_flipped_bytes_are_found_and_named(data_set):
    """At random positions in all shards: lengths, their CRCs, data, the CRCs of the data."""
    rng = np.random.default_rng(0)
    records = VideoRecords(data_set)
    frames = [(0, 8, "length"), (8, 12, "its CRC"), (12, -4, "data"), (-4, None, "CRC of the data")]
    for turn in range(200):
        number = int(rng.integers(len(records)))
        entry = records.entry(number)
        path = data_set / f"test-train.tfrecord-{entry.shard:05d}-of-00004"
        whole = path.read_bytes()
        index = records._indices[entry.shard]
        length = int(index.lengths[entry.record]) + 16
        start, stop, _ = frames[turn % 4]
        place = int(index.offsets[entry.record]) + int(rng.choice(np.arange(length)[start:stop]))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(
            DamagedRecord, match=rf"record {entry.record} of .*{path.name} \(video '{entry.video_id}'\)"
        ):
            records[number]
        others = [other for other in range(len(records)) if other != number]
        assert all(records[other] is not None for other in others[:: len(others) // 3])
        path.write_bytes(whole)


def test_skipping_counts_each_damaged_record_once(data_set, caplog):
    path = data_set / "test-train.tfrecord-00001-of-00004"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    records = VideoRecords(data_set, on_damage="skip")
    with caplog.at_level(logging.WARNING):
        found = [records[number] for number in range(11)] + [records[3]]
    assert [number for number, record in enumerate(found) if record is None] == [3, 11]
    assert records.damaged == {(str(path), 0)}
    assert len(caplog.messages) == 1
    assert "record 0 of" in caplog.messages[0]
    whole = [index for index, _ in read_videos(data_set, "train", on_damage="skip")]
    assert whole == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_a_shard_cut_while_it_is_read_is_named(data_set):
    records = VideoRecords(data_set)
    path = data_set / "test-train.tfrecord-00003-of-00004"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedRecord, match=r"record 1 of .* is damaged: the file ends within the record"):
        records[10]
    with pytest.raises(DamagedIndex, match="index was made for"):
        VideoRecords(data_set)


def test_a_damaged_index_stops_whatever_the_policy(data_set):
    path = data_set / "test-train.tfrecord-00002-of-00004.index"
    content = bytearray(path.read_bytes())
    content[30] ^= 4
    path.write_bytes(content)
    with pytest.raises(DamagedIndex, match=r"test-train.tfrecord-00002-of-00004.index is damaged"):
        VideoRecords(data_set, on_damage="skip")
    path.unlink()
    assert len(VideoRecords(data_set)) == 11, "without it the headers are read"


def test_a_missing_shard_is_named(data_set):
    (data_set / "test-train.tfrecord-00002-of-00004").unlink()
    with pytest.raises(FileNotFoundError, match=r"test-train.tfrecord-00002-of-00004"):
        VideoRecords(data_set)


def test_a_record_in_anothers_place_is_damage(data_set, make_record):
    path = data_set / "test-train.tfrecord-00000-of-00004"
    path.write_bytes(b"".join(pack(serialise(make_record(number))) for number in (0, 2, 1)))
    write_index(path)
    with pytest.raises(DamagedRecord, match=r"'video2' with 5 frames, .*'video1' with 5"):
        VideoRecords(data_set)[1]


def test_shards_of_another_data_set_are_rejected(data_set, make_record):
    path = data_set / "test-train.tfrecord-00003-of-00004"
    path.write_bytes(pack(serialise(make_record(9))))
    write_index(path)
    with pytest.raises(ValueError, match=r"'video10' .* record 1 of shard 3 of 'train'"):
        VideoRecords(data_set)


def test_invalid_bytes_are_damage(data_set):
    path = data_set / "test-train.tfrecord-00003-of-00004"
    path.write_bytes(pack(b"\xff\xff\xff") * 2)
    write_index(path)
    with pytest.raises(DamagedRecord, match=r"record 0 of .* is damaged: 3 bytes .*tf.train.Example"):
        VideoRecords(data_set)[9]


def test_removed_videos_are_not_read_and_keep_all_rows(data_set):
    save_video_list(load_video_list(data_set).forget(["video1", "video6"]), data_set)
    records = VideoRecords(data_set)
    assert len(records) == 9
    assert records.video_indices == [0, 2, 3, 4, 5, 7, 8, 9, 10]
    for video_index, record in read_videos(data_set, "train"):
        assert record.video_id == f"video{video_index}"


def test_records_go_to_other_processes(data_set):
    records = pickle.loads(pickle.dumps(VideoRecords(data_set)))
    assert records[4].video_id == "video4"


def test_numbers_and_policies_that_do_not_exist(data_set):
    records = VideoRecords(data_set)
    assert records[np.int64(10)].video_id == "video10"
    for number in (11, -1):
        with pytest.raises(IndexError, match=f"0 to 10, got {number}"):
            records[number]
    with pytest.raises(ValueError, match=r"on_damage .* got 'ignore'"):
        VideoRecords(data_set, on_damage="ignore")
    with pytest.raises(ValueError, match="no split 'test'"):
        next(read_videos(data_set, "test"))


def test_reading_needs_no_tensorflow(data_set):
    program = f"""
import sys
import th_jax.data
assert not {{"jax", "grain", "cv2"}} & set(sys.modules), "the package alone loads nothing"
from th_jax.data import schema
assert "jax" not in sys.modules, "preparation workers load the schema without jax"
from th_jax.data import Episodes, VideoRecords
episodes = Episodes(VideoRecords({str(data_set)!r}), image_size=16, batch_size=2, sources=2, seed=0)
assert next(episodes.iterate()).source_frames.shape == (2, 2, 16, 16, 3)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_has_no_other_names():
    import th_jax.data

    assert "VideoRecords" in dir(th_jax.data)
    with pytest.raises(AttributeError, match=r"module 'th_jax.data' has no attribute 'nothing'"):
        th_jax.data.nothing  # noqa: B018
