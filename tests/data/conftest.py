"""Small data sets for the tests of the reader, written without TensorFlow."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from th_jax.data.schema import VideoRecord, serialise, shard_name
from th_jax.data.tfrecord import pack, write_index
from th_jax.data.video_list import VideoEntry, VideoList, row_key, save_video_list


def jpeg_of(frame: np.ndarray, *, quality: int = 90) -> bytes:
    """An RGB frame as JPEG bytes."""
    encoded, jpeg = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return jpeg.tobytes()


def record_of(
    number: int, *, frames: int = 5, points: int = 70, size: int = 24, true_landmarks: bool = True
) -> VideoRecord:
    """A valid record with different images in all frames, determined by its number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (frames, 3, 3, 3), dtype=np.uint8)
    landmarks = rng.random((frames, points, 2), np.float32)
    truth = rng.random((frames, points, 2), np.float32)
    landmarks[0, 7] = np.nan
    return VideoRecord(
        frames=tuple(jpeg_of(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)) for image in coarse),
        landmarks=landmarks,
        true_landmarks=truth if true_landmarks else None,
        times=np.arange(frames, dtype=np.float32) * 1.5,
        clips=np.zeros(frames, np.int64),
        crops=np.tile(np.array([-3, 4, size], np.float32), (frames, 1)),
        minimum_gap=1.0,
        identity=f"person{number // 2}",
        video_id=f"video{number}",
        source_sha256=hashlib.sha256(bytes([number])).hexdigest(),
        licence="CC0-1.0",
    )


def write_records(
    folder: Path, splits: dict[str, list[VideoRecord]], *, records_per_shard: int = 3, size: int = 24
) -> Path:
    """A data set of these records in the layout of the shard writer, without TFDS metadata."""
    folder.mkdir(parents=True)
    lists, counts = {}, {}
    for split, records in splits.items():
        shards = [records[i : i + records_per_shard] for i in range(0, len(records), records_per_shard)]
        entries = []
        for shard, here in enumerate(shards):
            path = folder / shard_name("test", split, shard, len(shards))
            path.write_bytes(b"".join(pack(serialise(record)) for record in here))
            write_index(path)
            for number, record in enumerate(here):
                key = row_key(record.video_id)
                entries.append(VideoEntry(key, record.video_id, record.identity, len(record.frames), shard, number))
        lists[split], counts[split] = tuple(entries), len(shards)
    everything = [record for records in splits.values() for record in records]
    points = everything[0].landmarks.shape[1]
    true = all(record.true_landmarks is not None for record in everything)
    save_video_list(VideoList("test", points, size, true, counts, lists), folder)
    return folder


@pytest.fixture
def make_record():
    return record_of


@pytest.fixture
def make_jpeg():
    return jpeg_of


@pytest.fixture
def make_data_set(tmp_path):
    def make(splits: dict[str, list[VideoRecord]], **settings) -> Path:
        return write_records(tmp_path / "data set", splits, **settings)

    return make


@pytest.fixture
def data_set(make_data_set) -> Path:
    """Eleven training videos in four shards and three held-out ones."""
    return make_data_set({"train": [record_of(i) for i in range(11)], "heldout": [record_of(i) for i in range(20, 23)]})
