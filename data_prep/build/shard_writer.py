"""Writes a data set: TFRecord shards and metadata by TFDS, an index beside each shard, and the list of videos.

TFDS's builders shuffle records by a hash of their key, and choose the shards. Here only its file writer and its folder
metadata are used: records keep their order, and equal records give equal bytes.
"""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from th_jax.data.schema import FEATURES, SCHEMA_VERSION, VideoRecord, serialise, shard_name
from th_jax.data.tfrecord import INDEX_SUFFIX, write_index
from th_jax.data.video_list import VideoEntry, VideoList, row_key, save_video_list
from th_jax.storage.files import flush_to_disk

RECORDS_PER_SHARD = 128
"""About 50 MB of 32 frames at 256 px: large enough for object stores, small enough to copy again."""

DESCRIPTION = "Talking heads for few-shot meta-learning: a record is a video, its frames and their facial landmarks."

_THREADS = os.cpu_count() or 1


class Shard(NamedTuple):
    """Description of a written shard, in plain values."""

    entries: tuple[VideoEntry, ...]
    size: int
    """Size in bytes."""
    points: int
    frame_size: int
    true_landmarks: bool
    licenses: tuple[str, ...]


def tfds_features(points: int) -> tfds.features.FeaturesDict:
    """Return the features of a record for TFDS."""
    sizes = {"F": None, "P": points}
    numbers = {"float32": np.float32, "int64": np.int64}
    features: dict[str, tfds.features.FeatureConnector] = {}
    for name, feature in FEATURES.items():
        if name == "frames":
            features[name] = tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"))
        elif feature.kind == "bytes":
            features[name] = tfds.features.Text()
        else:
            shape = tuple(sizes[size] if isinstance(size, str) else size for size in feature.shape)
            features[name] = tfds.features.Tensor(shape=shape, dtype=numbers[feature.kind])
    return tfds.features.FeaturesDict(features)


def write_data_set(
    out: str | os.PathLike[str],
    splits: Mapping[str, Iterable[VideoRecord]],
    *,
    name: str,
    records_per_shard: int = RECORDS_PER_SHARD,
    description: str = DESCRIPTION,
) -> VideoList:
    """Write the records of all splits, in the given order, into a new folder that appears atomically.

    Records are consumed one by one, so that memory use does not grow with their number.

    Args:
        out: new folder; missing parents are created.
        splits: records by split ("train" is what training reads).
        name: name of the data set, part of its file names.
        records_per_shard: maximum number of records in a file.
        description: text for TFDS's metadata.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: if a record is invalid, a frame cannot be decoded or is not square, sizes or numbers of points
            differ between videos, a video id occurs twice or a split is empty.
    """
    out = os.path.abspath(os.fspath(out))
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: a data set needs a new folder; delete it or choose another")
    if records_per_shard < 1:
        raise ValueError(f"records_per_shard must be 1 or more, but is {records_per_shard}")
    if not splits:
        raise ValueError("a data set needs at least one split")
    for split in splits:
        shard_name(name, split, 0, 1)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    partial = tempfile.mkdtemp(prefix=f".{os.path.basename(out)}.partial-", dir=os.path.dirname(out))
    try:
        checked = _Checked()
        shards = {
            split: _write_split(partial, checked.each(records), name, split, records_per_shard)
            for split, records in splits.items()
        }
        videos = write_description(partial, shards, name=name, description=description)
        os.chmod(partial, 0o755)  # noqa: S103 -- mkdtemp made it private; data sets are shared like other folders
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return videos


def write_shard(path: str, records: Iterable[VideoRecord], *, number: int) -> Shard:
    """Write shard `number` of a split and its index, flushed to the disk.

    Raises:
        ValueError: as `write_data_set`, for these records.
    """
    return _write_shard(path, _Checked().each(records), number)


def write_description(
    folder: str, splits: Mapping[str, Sequence[Shard]], *, name: str, description: str = DESCRIPTION
) -> VideoList:
    """Write TFDS's metadata and the list of videos of finished shards, which may be in another folder.

    Raises:
        ValueError: if shards differ in frame size or points, or a video id occurs twice.
    """
    first, *others = [shard for shards in splits.values() for shard in shards]
    for shard in others:
        _demand_alike(first.points, first.frame_size, shard.points, shard.frame_size, str(shard.entries[0].video_id))
    infos = []
    for split, shards in splits.items():
        template = tfds.core.ShardedFileTemplate(folder, dataset_name=name, split=split, filetype_suffix="tfrecord")
        lengths, size = [len(shard.entries) for shard in shards], sum(shard.size for shard in shards)
        infos.append(tfds.core.SplitInfo(split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    firsts = (shard_name(name, split, 0, len(shards)) for split, shards in splits.items())
    with _stand_ins([os.path.join(folder, first) for first in firsts]):
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=tfds_features(first.points),
            split_infos=infos,
            version=f"{SCHEMA_VERSION}.0.0",
            check_data=False,
            description=description,
            license=", ".join(sorted({one for shard in (first, *others) for one in shard.licenses})),
        )
    videos = VideoList(
        name,
        first.points,
        first.frame_size,
        all(shard.true_landmarks for shard in (first, *others)),
        {split: len(shards) for split, shards in splits.items()},
        {split: tuple(entry for shard in shards for entry in shard.entries) for split, shards in splits.items()},
    )
    save_video_list(videos, folder)
    return videos


@contextlib.contextmanager
def _stand_ins(paths: Iterable[str]) -> Iterator[None]:
    """Create empty files in place of shards in another folder, from whose names TFDS derives the splits."""
    absent = [path for path in paths if not os.path.exists(path)]
    for path in absent:
        open(path, "xb").close()
    yield
    for path in absent:
        os.unlink(path)


def _write_split(
    folder: str, records: Iterator["_Sized"], name: str, split: str, records_per_shard: int
) -> list[Shard]:
    shards: list[Shard] = []
    paths: list[str] = []
    for first in records:
        paths.append(os.path.join(folder, f"{split}-{len(paths):05d}.partial"))
        here = itertools.islice(itertools.chain([first], records), records_per_shard)
        shards.append(_write_shard(paths[-1], here, len(shards)))
    if not shards:
        raise ValueError(f"split {split!r} has no records: TFDS does not support empty splits; leave it out")
    for shard, path in enumerate(paths):
        final = os.path.join(folder, shard_name(name, split, shard, len(paths)))
        for suffix in ("", INDEX_SUFFIX):
            os.rename(path + suffix, final + suffix)
    return shards


def _write_shard(path: str, records: Iterator["_Sized"], number: int) -> Shard:
    entries: list[VideoEntry] = []
    kept: list[tuple[int, int, bool, str]] = []

    def serialised() -> Iterator[tuple[int, bytes]]:
        for place, (record, size) in enumerate(records):
            key = row_key(record.video_id)
            entries.append(VideoEntry(key, record.video_id, record.identity, len(record.frames), number, place))
            kept.append((record.landmarks.shape[1], size, record.true_landmarks is not None, record.licence))
            yield place, serialise(record)

    tfds.core.file_adapters.TfRecordFileAdapter.write_examples(path, serialised())
    write_index(path)
    flush_to_disk(path, path + INDEX_SUFFIX)
    points, sizes, true_landmarks, licenses = zip(*kept, strict=True)
    licenses = tuple(sorted(set(licenses)))
    return Shard(tuple(entries), os.path.getsize(path), points[0], sizes[0], all(true_landmarks), licenses)


_Sized = tuple[VideoRecord, int]
"""A record and the side of its frames."""


class _Checked:
    """Checks that all records of a data set have the properties of the first one."""

    def __init__(self) -> None:
        self._common: tuple[int, int] | None = None
        self._seen: set[str] = set()

    def each(self, records: Iterable[VideoRecord]) -> Iterator[_Sized]:
        for record, size in _with_sizes(records):
            points = record.landmarks.shape[1]
            self._common = self._common or (points, size)
            if record.video_id in self._seen:
                raise ValueError(f"video ids must be unique in a data set, but {record.video_id!r} occurs twice")
            _demand_alike(*self._common, points, size, record.video_id)
            self._seen.add(record.video_id)
            yield record, size


def _demand_alike(points: int, size: int, other_points: int, other_size: int, video_id: str) -> None:
    if (points, size) != (other_points, other_size):
        raise ValueError(
            f"all videos of a data set have the same points and frame size ({points} points and {size} px so far), "
            f"but video {video_id!r} has {other_points} points and {other_size} px"
        )


def _with_sizes(records: Iterable[VideoRecord]) -> Iterator[_Sized]:
    """Yield each record with the side of its frames, decoded ahead by threads."""
    coming: deque[tuple[VideoRecord, Future[int]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for record in records:
            coming.append((record, pool.submit(_frame_size, record)))
            if len(coming) > 2 * _THREADS:
                record, size = coming.popleft()
                yield record, size.result()
        for record, size in coming:
            yield record, size.result()


def _frame_size(record: VideoRecord) -> int:
    """Return the side of the record's frames; all are decoded, to find those that readers could not decode."""
    sides = set()
    for number, jpeg in enumerate(record.frames):
        frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
        if frame is None:
            raise ValueError(f"frame {number} of video {record.video_id!r} cannot be decoded")
        sides |= set(frame.shape[:2])
    if len(sides) != 1:
        raise ValueError(
            f"frames of video {record.video_id!r} must be square, of one size, but have sides {sorted(sides)}"
        )
    return sides.pop()
