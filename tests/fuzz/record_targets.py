"""Fuzz targets of what data sets consist of: records, shards, their indices, and the list of videos."""

import contextlib
import hashlib
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from tests.fuzz.mutations import documents, edited
from tests.fuzz.targets import Target
from tests.hostile import valid_files
from th_jax.data.episodes import UnreadableFrame, decode_frame
from th_jax.data.records import VideoRecords
from th_jax.data.schema import FEATURES, VideoRecord, parse, serialise, validate
from th_jax.data.tfrecord import INDEX_SUFFIX, DamagedIndex, DamagedRecord, pack
from th_jax.data.video_list import VIDEO_LIST_FILE

RECORD = serialise(valid_files.record())
SHARD = "test-train.tfrecord-00000-of-00001"
_INTEGERS = st.sampled_from((0, 1, -1, 3, 2**62, -(2**63)))
_FLOATS = st.sampled_from((0.0, 0.5, 1.0, -1.0, 1e30, float("nan"), float("inf")))
_BYTES = st.sampled_from((b"", b"\0", b"\xff\xfe", b"ada", b"\xff\xd8\xff\xd9", b"a" * 64)) | st.binary(max_size=20)


@st.composite
def examples(draw: st.DrawFn) -> bytes:
    """A record with some features missing, of another kind, length or content."""
    example = tf_example_pb2.Example.FromString(RECORD)
    features = example.features.feature
    for name in draw(st.lists(st.sampled_from(sorted(FEATURES)), min_size=1, max_size=3)):
        feature, change = features[name], draw(st.sampled_from(("remove", "clear", "bytes", "float", "int", "longer")))
        if change == "remove":
            del features[name]
        elif change == "longer":
            for values in (feature.bytes_list.value, feature.float_list.value, feature.int64_list.value):
                values.extend(list(values)[: draw(st.integers(0, 3))])
        else:
            feature.Clear()
            if change == "bytes":
                feature.bytes_list.value.extend(draw(st.lists(_BYTES, max_size=4)))
            elif change == "float":
                feature.float_list.value.extend(draw(st.lists(_FLOATS, max_size=4)) * draw(st.sampled_from((1, 102))))
            elif change == "int":
                feature.int64_list.value.extend(draw(st.lists(_INTEGERS, max_size=4)))
    return example.SerializeToString()


def read_record(_: Path, content: bytes) -> VideoRecord:
    """What `parse` gives can be trained on: shapes agree, points are known, images decode or are refused."""
    record = parse(content)
    frames = len(record.frames)
    assert record.landmarks.shape in ((frames, 68, 2), (frames, 70, 2))
    assert frames > 0
    assert record.true_landmarks is None or record.true_landmarks.shape == record.landmarks.shape
    assert (np.isnan(record.landmarks) | ((record.landmarks >= 0) & (record.landmarks <= 1))).all()
    for frame in record.frames:
        try:
            assert decode_frame(frame, size=16).shape == (16, 16, 3)
        except UnreadableFrame:
            continue
    try:
        validate(record)
    except ValueError:
        return record
    assert parse(serialise(record)).frames == record.frames
    return record


def _data_set(folder: Path) -> Path:
    if not (folder / SHARD).exists():
        valid_files.data_set(folder)
    return folder / SHARD


def read_shard(folder: Path, content: bytes) -> None:
    shard = _data_set(folder)
    Path(f"{shard}{INDEX_SUFFIX}").unlink(missing_ok=True)
    shard.write_bytes(content)
    _read_all(folder)


def read_index(folder: Path, content: bytes) -> None:
    """The index with a checksum that fits it."""
    shard = _data_set(folder)
    Path(f"{shard}{INDEX_SUFFIX}").write_bytes(content + struct.pack("<I", google_crc32c.value(content)))
    _read_all(folder)


def read_list(folder: Path, document: Any) -> None:
    """The list with a checksum that fits it."""
    _data_set(folder)
    body = json.dumps(document).encode()[1:] if isinstance(document, dict) else json.dumps(document).encode()
    head = f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode()
    (folder / VIDEO_LIST_FILE).write_bytes(head + body)
    _read_all(folder)


def _read_all(folder: Path) -> None:
    records = VideoRecords(folder, "train")
    for number in range(len(records)):
        with contextlib.suppress(DamagedRecord):
            record = records[number]
            assert record is not None
            assert record.video_id == records.entry(number).video_id


@st.composite
def framed(draw: st.DrawFn) -> bytes:
    """Records in whole frames, before or after edits."""
    inner = [draw(st.one_of(st.just(RECORD), edited(RECORD), examples())) for _ in range(draw(st.integers(0, 3)))]
    shard = b"".join(map(pack, inner))
    return draw(edited(shard)) if draw(st.booleans()) else shard


def _valid_index_and_list() -> tuple[bytes, Any]:
    with tempfile.TemporaryDirectory() as folder:
        shard = valid_files.data_set(Path(folder))
        document = json.loads((Path(folder) / VIDEO_LIST_FILE).read_bytes())
        del document["sha256"]
        return Path(f"{shard}{INDEX_SUFFIX}").read_bytes()[:-4], document


INDEX, LIST = _valid_index_and_list()

TARGETS = {
    "record, bytes": Target(edited(RECORD), read_record, (ValueError,)),
    "record, features": Target(examples(), read_record, (ValueError,)),
    "shard": Target(framed(), read_shard, (ValueError,)),
    "index": Target(edited(INDEX), read_index, (DamagedIndex, DamagedRecord, ValueError)),
    "list of videos": Target(documents(LIST), read_list, (ValueError, FileNotFoundError)),
}
