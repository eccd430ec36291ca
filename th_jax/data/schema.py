"""The record schema: one video with its frames, landmarks and origin, as a tf.train.Example, but without TensorFlow.

One record is one *video sequence* of the paper (section 3.2): its clips pooled, with frames spread over them. A data
set is a folder of TFRecord shards named by `shard_name`, an index beside each, TFDS's metadata and `videos.json`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

# Importing the package costs 0.5 s but no TensorFlow (tested); it ships the protos of tf.train.Example.
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from th_jax.landmarks.scheme import check_point_count

SCHEMA_VERSION = 1
"""Raised whenever a feature is added, removed or changes its meaning; readers reject other versions."""

FRAMES_PER_VIDEO = 32
"""Default number of frames per video: the paper's 8 sources, a target, and room for many different episodes."""

MINIMUM_GAP = 1.0
"""Default minimum distance of two frames of a clip in seconds; closer frames show nearly the same face."""

TIME_TOLERANCE = 1e-3
"""Seconds by which two frames may be closer than the stated minimum, because float32 and frame rates are rounded."""


MAX_FRAME_SIDE = 4096
"""Maximum side of a frame in pixels: a decoder would allocate memory for whatever a frame's few bytes declare."""

_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # these markers are Huffman tables, extensions and arithmetic conditioning


class Feature(NamedTuple):
    """One feature of the record. Letters in `shape` are variable sizes: F frames, P landmarks."""

    kind: Literal["bytes", "float32", "int64"]
    shape: tuple[str | int, ...]
    meaning: str


FEATURES: Mapping[str, Feature] = MappingProxyType(
    {
        "frames": Feature("bytes", ("F",), "square RGB frames as JPEG"),
        "landmarks": Feature("float32", ("F", "P", 2), "detected points, x then y in [0, 1], NaN where unknown"),
        "true_landmarks": Feature("float32", ("F", "P", 2), "exact points of rendered heads; otherwise no rows"),
        "times": Feature("float32", ("F",), "seconds from the start of the frame's clip, NaN for photographs"),
        "clips": Feature("int64", ("F",), "which of the video's pooled clips the frame is from, counted from 0"),
        "crops": Feature(
            "float32", ("F", 3), "left, top, side of the crop in source pixels; may extend beyond the frame"
        ),
        "minimum_gap": Feature("float32", (), "minimum number of seconds between two frames of one clip"),
        "identity": Feature("bytes", (), "the person"),
        "video_id": Feature("bytes", (), "the video, unique in its data set"),
        "source_sha256": Feature("bytes", (), "hash of the source file, or of its clips' hashes in order"),
        "licence": Feature("bytes", (), "license of the source, as an SPDX identifier if there is one"),
        "schema_version": Feature("int64", (), "version of this table"),
    }
)


class VideoRecord(NamedTuple):
    """One video: F frames with landmarks and origin. `FEATURES` documents the fields."""

    frames: tuple[bytes, ...]
    landmarks: Float32[np.ndarray, "F P 2"]
    true_landmarks: Float32[np.ndarray, "F P 2"] | None
    times: Float32[np.ndarray, " F"]
    clips: Int64[np.ndarray, " F"]
    crops: Float32[np.ndarray, "F 3"]
    minimum_gap: float
    identity: str
    video_id: str
    source_sha256: str
    licence: str
    schema_version: int = SCHEMA_VERSION


def shard_name(name: str, split: str, shard: int, shards: int) -> str:
    """Return the file name of a shard, as TFDS names it.

    Raises:
        ValueError: if the data set's name or the split is not a plain lowercase word of at most 100 letters.
    """
    for what, word in (("data set's name", name), ("split", split)):
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", word):
            raise ValueError(f"a {what} must be lowercase letters, digits and _, got {word[:110]!r}")
    return f"{name}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


def validate(record: VideoRecord) -> None:
    """Check that a record is valid and consistent.

    Raises:
        ValueError: if it is not; names the video, the field and the problem.
    """
    for field in ("identity", "video_id", "licence"):
        value = getattr(record, field)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ValueError(f"{field} of a video must be a printable name, got {value!r}")
    try:
        _check(record)
    except ValueError as error:
        raise ValueError(f"video {record.video_id!r} cannot be recorded: {error}") from None


def serialise(record: VideoRecord) -> bytes:
    """Serialize a record as a tf.train.Example, deterministically.

    Raises:
        ValueError: if the record is invalid (see `validate`).
    """
    validate(record)
    features = {}
    for name, feature in FEATURES.items():
        value = getattr(record, name)
        if feature.kind == "bytes":
            values = value if feature.shape else [value.encode()]
            features[name] = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))
        else:
            flat = np.ravel([] if value is None else value)
            if feature.kind == "float32":
                features[name] = tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=flat))
            else:
                features[name] = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=flat))
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def parse(data: bytes) -> VideoRecord:
    """Parse a record from a serialized tf.train.Example.

    Raises:
        ValueError: if the bytes are not a record of this schema version.
    """
    try:
        features = tf_example_pb2.Example.FromString(data).features.feature
    except Exception as error:  # the public name of protobuf's DecodeError differs between versions
        raise ValueError(f"{len(data)} bytes are not a valid tf.train.Example: {error}") from error
    # Proto maps create missing keys on access, so the names are compared before anything is read.
    missing = sorted(set(FEATURES) - set(features.keys()))
    if missing:
        raise ValueError(f"a record needs the features {', '.join(FEATURES)}, but {', '.join(missing)} is missing")
    version = list(features["schema_version"].int64_list.value)
    if version != [SCHEMA_VERSION]:
        raise ValueError(
            f"the record has schema version {version}, but expected {SCHEMA_VERSION}: prepare the data again, or "
            "use the version of th_jax that wrote it"
        )
    frames = tuple(features["frames"].bytes_list.value)
    values = {name: _value(name, features[name], len(frames)) for name in FEATURES if name != "frames"}
    record = VideoRecord(frames=frames, **values)
    _check_points(record)
    for frame in frames:
        height, width = jpeg_sides(frame)
        if not (height and width):
            raise ValueError(f"a frame's {len(frame)} bytes are not a JPEG image")
        if max(height, width) > MAX_FRAME_SIDE:
            raise ValueError(
                f"a frame may have at most {MAX_FRAME_SIDE} px per side, but one declares {width} x {height}"
            )
    return record


def jpeg_sides(jpeg: bytes) -> tuple[int, int]:
    """Return the height and width that a JPEG declares, from its first segments only; zeros for other data."""
    at = 2 if jpeg.startswith(b"\xff\xd8\xff") else len(jpeg)
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER:
            return int.from_bytes(jpeg[at + 5 : at + 7], "big"), int.from_bytes(jpeg[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return 0, 0


def _value(name: str, proto: Any, frames: int) -> Any:
    kind, shape, _ = FEATURES[name]
    if kind == "bytes":
        try:
            return _single(name, proto.bytes_list.value).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} of a record is not valid UTF-8: {error}") from error
    values = proto.float_list.value if kind == "float32" else proto.int64_list.value
    numbers = np.array(values, np.dtype(kind))
    if not shape:
        return _single(name, numbers).item()
    if name == "true_landmarks" and not numbers.size:
        return None
    sizes = {"F": frames, "P": -1}
    try:
        return numbers.reshape([sizes[size] if isinstance(size, str) else size for size in shape])
    except ValueError:
        raise ValueError(f"{name} of a record with {frames} frames cannot hold {numbers.size} numbers") from None


def _single(name: str, values: Any) -> Any:
    if len(values) != 1:
        raise ValueError(f"{name} of a record must be a single value, got {len(values)}")
    return values[0]


def _check(record: VideoRecord) -> None:
    count = len(record.frames)
    for number, frame in enumerate(record.frames):
        if not (isinstance(frame, bytes) and frame.startswith(b"\xff\xd8\xff") and frame.endswith(b"\xff\xd9")):
            raise ValueError(f"frame {number} must be the bytes of one complete JPEG image, got {frame[:4]!r}...")
    _check_points(record)
    _check_array("times", record.times, (count,), np.float32)
    _check_array("clips", record.clips, (count,), np.int64)
    _check_array("crops", record.crops, (count, 3), np.float32)
    if not np.isfinite(record.crops).all() or (record.crops[:, 2] <= 0).any():
        raise ValueError("crops must be finite, with positive sides")
    if (record.clips < 0).any():
        raise ValueError("clip numbers must be at least 0")
    _check_times(record)
    if not re.fullmatch("[0-9a-f]{64}", record.source_sha256):
        raise ValueError(f"source_sha256 must be 64 hexadecimal digits, got {record.source_sha256!r}")
    if record.schema_version != SCHEMA_VERSION:
        raise ValueError(f"the schema version must be {SCHEMA_VERSION}, got {record.schema_version}")


def _check_points(record: VideoRecord) -> None:
    """Check what every read checks too, so that a foreign record cannot fail in the middle of a run."""
    if not record.frames:
        raise ValueError("it has no frames")
    _check_landmarks("landmarks", record.landmarks, len(record.frames))
    if record.true_landmarks is not None:
        _check_landmarks("true_landmarks", record.true_landmarks, len(record.frames))
        if record.true_landmarks.shape != record.landmarks.shape:
            raise ValueError("landmarks and true_landmarks must have the same number of points (NaN where unknown)")


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else repr(array)
        raise ValueError(f"{name} must be a {np.dtype(dtype)} array {list(shape)}, got {found}")


def _check_landmarks(name: str, landmarks: Any, frames: int) -> None:
    points = landmarks.shape[1] if isinstance(landmarks, np.ndarray) and landmarks.ndim == 3 else 68
    _check_array(name, landmarks, (frames, points, 2), np.float32)
    check_point_count(points)
    unknown = np.isnan(landmarks)
    if (unknown[..., 0] != unknown[..., 1]).any():
        raise ValueError(f"an unknown point of {name} must be NaN in both x and y")
    if not (unknown | ((landmarks >= 0) & (landmarks <= 1))).all():
        raise ValueError(
            f"{name} must be in [0, 1] or NaN, but range from {np.nanmin(landmarks):.4g} to {np.nanmax(landmarks):.4g}"
        )
    empty = np.flatnonzero(unknown.all((1, 2)))
    if empty.size:
        raise ValueError(f"frame {empty[0]} has no known point in {name}")


def _check_times(record: VideoRecord) -> None:
    times = record.times
    if not record.minimum_gap >= 0:
        raise ValueError(f"minimum_gap must be 0 or more seconds, got {record.minimum_gap}")
    if np.isnan(times).all():
        return
    if not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("times must be 0 or more seconds, or all NaN for photographs")
    for clip in np.unique(record.clips):
        gaps = np.diff(np.sort(times[record.clips == clip]))
        if gaps.size and gaps.min() < record.minimum_gap - TIME_TOLERANCE:
            raise ValueError(
                f"frames of clip {clip} must be at least {record.minimum_gap} s apart, but two are "
                f"{gaps.min():.3f} s apart"
            )
