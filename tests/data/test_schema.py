"""Records survive serialization, and invalid ones are neither written nor read."""

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from th_jax.data.schema import FEATURES, VideoRecord, parse, serialise, shard_name


def assert_same(a: VideoRecord, b: VideoRecord) -> None:
    for name, x, y in zip(VideoRecord._fields, a, b, strict=True):
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, name
            np.testing.assert_array_equal(x, y, err_msg=name)
        else:
            assert x == y, name


@pytest.mark.parametrize("points", [68, 70])
@pytest.mark.parametrize("true_landmarks", [True, False])
def test_a_record_round_trips(make_record, points, true_landmarks):
    record = make_record(3, points=points, true_landmarks=true_landmarks)
    assert_same(parse(serialise(record)), record)


def test_the_same_record_gives_the_same_bytes(make_record):
    assert serialise(make_record(5)) == serialise(make_record(5))
    assert serialise(make_record(5)) != serialise(make_record(6))


def test_the_table_names_the_fields_of_the_record():
    assert tuple(FEATURES) == VideoRecord._fields


def test_a_pooled_video_needs_its_gap_only_within_a_clip(make_record):
    record = make_record(0)._replace(
        times=np.array([0, 1, 0, 1, 0.5], np.float32), clips=np.array([0, 0, 1, 1, 2], np.int64)
    )
    assert_same(parse(serialise(record)), record)


def test_photographs_have_no_times(make_record):
    record = make_record(0)._replace(times=np.full(5, np.nan, np.float32))
    assert np.isnan(parse(serialise(record)).times).all()


def _changed(array, where, value):
    array = array.copy()
    array[where] = value
    return array


BAD = {
    "no frames": (lambda r: {"frames": ()}, "it has no frames"),
    "cut JPEG": (
        lambda r: {"frames": (*r.frames[:4], r.frames[4][:-9])},
        "frame 4 must be the bytes of one complete JPEG",
    ),
    "PNG": (lambda r: {"frames": (b"\x89PNG....", *r.frames[1:])}, "frame 0 must be the bytes of one complete JPEG"),
    "other number of landmarks": (
        lambda r: {"landmarks": r.landmarks[:4]},
        r"landmarks must be a float32 array \[5, 70",
    ),
    "double landmarks": (lambda r: {"landmarks": r.landmarks.astype(float)}, "got float64"),
    "66 points": (
        lambda r: {"landmarks": r.landmarks[:, :66], "true_landmarks": None},
        "68 iBUG points, or 70 with the two pupils, but got 66",
    ),
    "pixels": (lambda r: {"landmarks": r.landmarks * 200}, r"landmarks must be in \[0, 1\] or NaN"),
    "infinite": (lambda r: {"landmarks": _changed(r.landmarks, (1, 1), np.inf)}, r"landmarks must be in \[0, 1\]"),
    "half a point": (lambda r: {"landmarks": _changed(r.landmarks, (1, 1, 0), np.nan)}, "NaN in both x and y"),
    "no points": (lambda r: {"landmarks": _changed(r.landmarks, 2, np.nan)}, "frame 2 has no known point"),
    "other truth": (lambda r: {"true_landmarks": r.true_landmarks[:, :68]}, "the same number of points"),
    "near frames": (lambda r: {"times": r.times / 2}, "at least 1.0 s apart, but two are 0.750 s"),
    "some times": (lambda r: {"times": _changed(r.times, 1, np.nan)}, "or all NaN for photographs"),
    "no gap": (lambda r: {"minimum_gap": float("nan")}, "minimum_gap must be 0 or more"),
    "int32 clips": (lambda r: {"clips": r.clips.astype(np.int32)}, "clips must be a int64 array"),
    "negative clip": (lambda r: {"clips": r.clips - 1}, "clip numbers must be at least 0"),
    "flat crop": (lambda r: {"crops": r.crops * 0}, "positive sides"),
    "short hash": (lambda r: {"source_sha256": "abc"}, "64 hexadecimal digits, got 'abc'"),
    "unnamed": (lambda r: {"identity": " "}, "identity of a video must be a printable name"),
    "two lines": (lambda r: {"video_id": "a\nb"}, "video_id of a video must be a printable name"),
    "no licence": (lambda r: {"licence": ""}, "licence of a video must be a printable name"),
    "old": (lambda r: {"schema_version": 0}, "schema version must be 1, got 0"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_an_invalid_record_is_not_written(make_record, change, message):
    record = make_record(1)
    with pytest.raises(ValueError, match=message):
        serialise(record._replace(**change(record)))


def test_the_error_names_the_video(make_record):
    with pytest.raises(ValueError, match="video 'video1' cannot be recorded"):
        serialise(make_record(1)._replace(frames=()))


def _edited(record, edit) -> bytes:
    example = tf_example_pb2.Example.FromString(serialise(record))
    edit(example.features.feature)
    return example.SerializeToString()


def test_invalid_bytes_are_rejected(make_record):
    record = make_record(2)
    with pytest.raises(ValueError, match=r"tf.train.Example"):
        parse(b"\xff\xffnothing of the kind")
    with pytest.raises(ValueError, match="clips, times is missing"):
        parse(_edited(record, lambda f: (f.pop("times"), f.pop("clips"))))
    with pytest.raises(ValueError, match=r"schema version \[7\], but expected 1"):
        parse(_edited(record, lambda f: f["schema_version"].int64_list.value.__setitem__(0, 7)))
    with pytest.raises(ValueError, match="5 frames cannot hold 699"):
        parse(_edited(record, lambda f: f["landmarks"].float_list.value.pop()))
    with pytest.raises(ValueError, match=r"identity .* single value, got 2"):
        parse(_edited(record, lambda f: f["identity"].bytes_list.value.append(b"x")))


def test_shards_are_named_as_tfds_does():
    assert shard_name("heads", "train", 3, 8) == "heads-train.tfrecord-00003-of-00008"
    with pytest.raises(ValueError, match=r"data set's name .*got '\.\./x'"):
        shard_name("../x", "train", 0, 1)
    with pytest.raises(ValueError, match="split must be lowercase"):
        shard_name("heads", "Train", 0, 1)
