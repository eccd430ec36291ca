"""Writes a data set: TFRecord shards and metadata by TFDS, an index beside each shard, and the list of videos.

TFDS's own builders shuffle records by a hash of their key and choose the shards themselves. Here its file writer and
its folder metadata are used instead: records stay in the order in which they come, and equal records give equal bytes.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import tensorflow_datasets as tfds

from th_jax.data.index import INDEX_SUFFIX, write_index
from th_jax.data.schema import FEATURES, SCHEMA_VERSION, VideoRecord, serialise, shard_name
from th_jax.data.video_list import VideoEntry, VideoList, row_key, save_video_list

RECORDS_PER_SHARD = 128
"""About 50 MB of 32 frames at 256 px: large enough for object stores, small enough to be copied again."""

DESCRIPTION = "Talking heads for few-shot meta-learning: a record is a video, its frames and their facial landmarks."


def tfds_features(points: int) -> tfds.features.FeaturesDict:
    """The record's features as TFDS describes them.

    Args:
        points: landmarks a frame, 68 or 70.
    """
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
    """Write all records of all splits, each in the given order, into a new folder that appears whole or not at all.

    Records are taken one by one, so that the memory in use does not grow with their number.

    Args:
        out: the new folder; its parents are made.
        splits: records by split ("train" is what training reads).
        name: of the data set, in its file names.
        records_per_shard: at most so many in a file.
        description: for TFDS's metadata.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: if a record is not valid, a frame cannot be decoded or is not square, sizes or numbers of points
            differ between videos, a video id occurs twice or a split is empty.
    """
    out = os.path.abspath(os.fspath(out))
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: a data set needs a new folder; delete this one or choose another")
    if records_per_shard < 1:
        raise ValueError(f"records_per_shard must be 1 or more, but {records_per_shard} came")
    if not splits:
        raise ValueError("a data set needs at least one split")
    for split in splits:
        shard_name(name, split, 0, 1)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    # Beside its place, so that the last step is a rename within one file system.
    partial = tempfile.mkdtemp(prefix=f".{os.path.basename(out)}.partial-", dir=os.path.dirname(out))
    try:
        videos = _write(partial, splits, name, records_per_shard, description)
        os.chmod(partial, 0o755)  # noqa: S103 -- mkdtemp made it private; data sets are shared like other folders
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return videos


def _write(
    folder: str, splits: Mapping[str, Iterable[VideoRecord]], name: str, records_per_shard: int, description: str
) -> VideoList:
    checked = _Checked()
    lists: dict[str, tuple[VideoEntry, ...]] = {}
    shard_counts: dict[str, int] = {}
    infos = []
    for split, records in splits.items():
        entries, lengths = _write_split(folder, checked.each(records), name, split, records_per_shard)
        lists[split], shard_counts[split] = tuple(entries), len(lengths)
        paths = [os.path.join(folder, shard_name(name, split, shard, len(lengths))) for shard in range(len(lengths))]
        size = sum(map(os.path.getsize, paths))
        template = tfds.core.ShardedFileTemplate(folder, dataset_name=name, split=split, filetype_suffix="tfrecord")
        infos.append(tfds.core.SplitInfo(split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds_features(checked.points),
        split_infos=infos,
        version=f"{SCHEMA_VERSION}.0.0",
        check_data=False,
        description=description,
        license=", ".join(sorted(checked.licences)),
    )
    videos = VideoList(name, checked.points, checked.frame_size, checked.true_landmarks, shard_counts, lists)
    save_video_list(videos, folder)
    return videos


def _write_split(
    folder: str, records: Iterator[VideoRecord], name: str, split: str, records_per_shard: int
) -> tuple[list[VideoEntry], list[int]]:
    entries: list[VideoEntry] = []
    paths: list[str] = []
    lengths: list[int] = []
    for first in records:
        shard = len(paths)
        paths.append(os.path.join(folder, f"{split}-{shard:05d}.partial"))
        here: list[VideoEntry] = []

        def serialised(
            first: VideoRecord = first, shard: int = shard, here: list = here
        ) -> Iterator[tuple[int, bytes]]:
            for number, record in enumerate(itertools.islice(itertools.chain([first], records), records_per_shard)):
                key = row_key(record.video_id)
                here.append(VideoEntry(key, record.video_id, record.identity, len(record.frames), shard, number))
                yield number, serialise(record)

        tfds.core.file_adapters.TfRecordFileAdapter.write_examples(paths[-1], serialised())
        entries += here
        lengths.append(len(here))
    if not entries:
        raise ValueError(f"split {split!r} has no records: TFDS cannot describe an empty one; leave it out")
    for shard, path in enumerate(paths):
        final = os.path.join(folder, shard_name(name, split, shard, len(paths)))
        os.rename(path, final)
        write_index(final)
        for written in (final, final + INDEX_SUFFIX):
            _flush(written)
    return entries, lengths


class _Checked:
    """What all records of a data set have in common, learnt from the first and demanded of the others."""

    def __init__(self) -> None:
        self.points = 0
        self.frame_size = 0
        self.true_landmarks = True
        self.licences: set[str] = set()
        self._seen: set[str] = set()

    def each(self, records: Iterable[VideoRecord]) -> Iterator[VideoRecord]:
        for record in records:
            points, size = record.landmarks.shape[1], _frame_size(record)
            if not self._seen:
                self.points, self.frame_size = points, size
            if record.video_id in self._seen:
                raise ValueError(f"video ids must be unique in a data set, but {record.video_id!r} came twice")
            if (points, size) != (self.points, self.frame_size):
                raise ValueError(
                    f"all videos of a data set have the same points and frame size ({self.points} points and "
                    f"{self.frame_size} px so far), but video {record.video_id!r} has {points} points and {size} px"
                )
            self._seen.add(record.video_id)
            self.true_landmarks &= record.true_landmarks is not None
            self.licences.add(record.licence)
            yield record


def _frame_size(record: VideoRecord) -> int:
    """Side of the record's frames: each is decoded, so that no reader meets one that cannot be."""
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


def _flush(path: str) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
