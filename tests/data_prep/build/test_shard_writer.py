"""What TFDS writes is what the reader reads; the same records give the same bytes; nothing half-written appears."""

import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.build.shard_writer import tfds_features, write_data_set
from tests.data_prep.folders import contents
from tests.data_prep.video_records import record_of
from th_jax.data.records import VideoRecords, read_videos
from th_jax.data.schema import serialise
from th_jax.data.tfrecord import pack
from th_jax.data.video_list import load_video_list


def records(*numbers: int, **settings):
    return (record_of(number, **settings) for number in numbers)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer") / "new" / "heads"
    videos = write_data_set(
        folder, {"train": records(*range(7)), "heldout": records(20, 21)}, name="heads", records_per_shard=3
    )
    return folder, videos


def test_records_come_back_in_their_order(written):
    folder, videos = written
    assert load_video_list(folder) == videos
    assert (videos.points, videos.frame_size, videos.true_landmarks) == (70, 24, True)
    assert videos.shards == {"train": 3, "heldout": 1}
    train = VideoRecords(folder)
    assert [serialise(train[number]) for number in range(7)] == [serialise(record) for record in records(*range(7))]
    assert [record.video_id for _, record in read_videos(folder, "heldout")] == ["video20", "video21"]
    assert [(entry.shard, entry.record, entry.frames) for entry in videos.entries("train")] == [
        (number // 3, number % 3, 4 + number % 2) for number in range(7)
    ]


def test_the_folder_holds_shards_indices_list_and_metadata(written):
    folder, _ = written
    shards = [f"heads-train.tfrecord-0000{shard}-of-00003" for shard in range(3)]
    shards.append("heads-heldout.tfrecord-00000-of-00001")
    expected = {*shards, *(shard + ".index" for shard in shards)}
    expected |= {"videos.json", "dataset_info.json", "features.json", "LICENSE"}
    assert {path.name for path in folder.iterdir()} == expected
    assert (folder / "LICENSE").read_text() == "CC-BY-4.0, CC0-1.0"
    assert [path.name for path in folder.parent.iterdir()] == ["heads"], "nothing is left beside it"


def test_frames_of_the_file_are_those_of_the_reader(written):
    """TensorFlow's writer and `pack` agree byte for byte."""
    folder, _ = written
    content = (folder / "heads-train.tfrecord-00002-of-00003").read_bytes()
    assert content == pack(serialise(record_of(6)))


def test_the_same_records_give_the_same_bytes(written, tmp_path):
    folder, _ = written
    again = tmp_path / "again"
    write_data_set(again, {"train": records(*range(7)), "heldout": records(20, 21)}, name="heads", records_per_shard=3)
    assert contents(again) == contents(folder)


@pytest.mark.parametrize("true_landmarks", [True, False])
def test_tfds_would_serialise_a_record_to_the_same_bytes(true_landmarks):
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    record = record_of(3, true_landmarks=true_landmarks)
    features = tfds_features(70)
    example = record._asdict() | {"frames": [io.BytesIO(frame) for frame in record.frames]}
    if not true_landmarks:
        example["true_landmarks"] = np.empty((0, 70, 2), np.float32)
    proto = ExampleSerializer(features.get_serialized_info()).get_tf_example(features.encode_example(example))
    assert proto.SerializeToString(deterministic=True) == serialise(record)


@pytest.mark.slow
def test_tfds_opens_the_data_set(written, tmp_path):
    import tensorflow_datasets as tfds

    folder, _ = written
    builder = tfds.builder_from_directory(os.fspath(folder))
    assert builder.info.splits["train"].shard_lengths == [3, 3, 1]
    assert builder.info.splits["heldout"].num_examples == 2
    bytes_kept = {"frames": tfds.decode.SkipDecoding()}
    for split, numbers in (("train", range(7)), ("heldout", (20, 21))):
        pixels = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
        stored = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, decoders=bytes_kept))
        for number, example, raw in zip(numbers, pixels, stored, strict=True):
            record = record_of(number)
            assert tuple(raw["frames"]) == record.frames
            assert example["frames"].shape == (len(record.frames), 24, 24, 3)
            assert example["video_id"].decode() == record.video_id
            np.testing.assert_array_equal(example["landmarks"], record.landmarks)
            np.testing.assert_array_equal(example["true_landmarks"], record.true_landmarks)
            np.testing.assert_array_equal(example["crops"], record.crops)
    plain = tmp_path / "plain"
    write_data_set(plain, {"train": records(1, 2, points=68, true_landmarks=False)}, name="plain")
    examples = list(tfds.as_numpy(tfds.builder_from_directory(os.fspath(plain)).as_dataset(split="train")))
    assert [example["true_landmarks"].shape for example in examples] == [(0, 68, 2)] * 2


CUT = record_of(1)._replace(frames=(record_of(1).frames[0], b"\xff\xd8\xff\xff\xd9", *record_of(1).frames[2:]))
WIDE = record_of(1)._replace(frames=(cv2.imencode(".jpg", np.zeros((8, 9, 3), np.uint8))[1].tobytes(),) * 5)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([record_of(1), record_of(2, size=32)], "70 points and 24 px so far.*'video2' has 70 points and 32 px"),
        ([record_of(1), record_of(2, points=68)], "70 points and 24 px so far.*'video2' has 68 points and 24 px"),
        ([record_of(1), record_of(1)], "video ids must be unique in a data set, but 'video1' occurs twice"),
        ([CUT], "frame 1 of video 'video1' cannot be decoded"),
        ([WIDE], r"frames of video 'video1' must be square, of one size, but have sides \[8, 9\]"),
        ([record_of(1), record_of(2)._replace(licence="")], "licence of a video must be a printable name"),
        ([], "split 'train' has no records"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, train, message):
    with pytest.raises(ValueError, match=message):
        write_data_set(tmp_path / "out", {"train": train}, name="heads")
    assert not list(tmp_path.iterdir())


def test_a_source_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield record_of(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_data_set(tmp_path / "out", {"train": failing()}, name="heads")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists: a data set needs a new folder"):
        write_data_set(tmp_path / "out", {"train": records(1)}, name="heads")
    with pytest.raises(ValueError, match="data set's name"):
        write_data_set(tmp_path / "new", {"train": records(1)}, name="Heads 1")
    with pytest.raises(ValueError, match="records_per_shard must be 1 or more, but is 0"):
        write_data_set(tmp_path / "new", {"train": records(1)}, name="heads", records_per_shard=0)
    with pytest.raises(ValueError, match="at least one split"):
        write_data_set(tmp_path / "new", {}, name="heads")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_tensorflow_says_nothing_when_it_is_loaded() -> None:
    """Its own settings stay, where there are any."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", "import data_prep.build.shard_writer"],
        env=plain, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
