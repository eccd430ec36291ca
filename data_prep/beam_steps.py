"""The steps of the preparation as Apache Beam runs them, on workers that share nothing but the source and the target.

Videos are prepared in batches, each batch in a process that may die. Places in the shards follow from the list of those
that got a record, which is small; then records meet in their shards, each worker writes whole shards, and the last step
writes the list of videos, which makes a data set of the folder. Nothing depends on the order in which things come.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam

from data_prep.manifest import MANIFEST_FILE
from data_prep.plan import PREPARATION_FILE, places, split_order
from data_prep.prepare_video import Settings
from data_prep.sources import SourceVideo
from data_prep.stage_videos import stage_videos
from data_prep.staging import read_outcome, staged
from data_prep.transfer import fetch, store
from th_jax.data.schema import parse, shard_name
from th_jax.data.tfrecord import INDEX_SUFFIX
from th_jax.data.video_list import VIDEO_LIST_FILE, VideoEntry
from th_jax.media.isolation import ProcessLimits
from th_jax.storage.files import is_remote, join, read_file

RECORDS_PER_SHARD = 128  # as data_prep.shard_writer, which would load TensorFlow here; a test compares them

VIDEOS_AT_ONCE = 16
"""A process takes a second or two to load its models."""


class Work(NamedTuple):
    """What the steps need to know; it travels to all workers."""

    source: str
    target: str
    """Where the files of the data set go: a path, or an address that fsspec knows."""
    jobs: str
    """A file with a line for each video: its number, what it is, its split."""
    first_lines: str
    """A file with the manifest's first lines."""
    manifest_beside: str
    """Where the manifest goes if no video can be used."""
    name: str
    document: str
    settings: Settings
    limits: ProcessLimits


def add_steps(pipeline: beam.Pipeline, work: Work) -> None:
    """Everything from the list of videos to the finished files."""
    prepared = (
        pipeline
        | "name the list" >> beam.Create([work.jobs])
        | "read the list" >> beam.FlatMap(_lines)
        | "spread the videos" >> beam.Reshuffle()
        | "batch them" >> beam.BatchElements(min_batch_size=VIDEOS_AT_ONCE, max_batch_size=VIDEOS_AT_ONCE)
        | "prepare them" >> beam.ParDo(_Prepare(work)).with_outputs("lines", main="records")
    )
    # ScoreStore by the runner: the most expensive step must not run again for each use of its results.
    records = prepared.records | "keep the records" >> beam.Reshuffle()
    where = (
        records
        | "forget their bytes" >> beam.Map(lambda record: (record[0], record[1]))
        | "list them" >> beam.combiners.ToList()
        | "place them" >> beam.Map(_places)
    )
    shards = (
        records
        | "give them their places" >> beam.Map(_placed, beam.pvalue.AsSingleton(where))
        | "gather shards" >> beam.GroupByKey()
        | "write shards" >> beam.Map(_write_shard, work)
    )
    _ = (
        pipeline
        | "begin the end" >> beam.Create([None])
        | "describe the data set"
        >> beam.Map(_describe, beam.pvalue.AsList(shards), beam.pvalue.AsList(prepared.lines), work)
    )


class _Prepare(beam.DoFn):
    """Records as (number, split, bytes); lines of the manifest as (number, lines)."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def process(self, batch: list[str]) -> Iterator[Any]:
        work = self._work
        jobs = [(number, SourceVideo(**video), split) for number, video, split in map(json.loads, batch)]
        with tempfile.TemporaryDirectory() as temporary:
            source, staging = Path(work.source), Path(temporary) / "staging"
            if is_remote(work.source):
                source = Path(temporary) / "source"
                fetch(work.source, (name for _, video, _ in jobs for name in video.files), source)
            videos = [video._replace(files=tuple(video.files)) for _, video, _ in jobs]
            targets = [staged(staging, source, video, "") for video in videos]
            failed = stage_videos(
                source, videos, targets, settings=work.settings, workers=1, limits=work.limits, progress=False
            )
            for place, (number, _, split) in enumerate(jobs):
                outcome = read_outcome(targets[place])
                lines = [failed[place].line()] if outcome is None else list(outcome.lines)
                yield beam.pvalue.TaggedOutput("lines", (number, lines))
                if outcome is not None and outcome.record is not None:
                    yield number, split, outcome.record


def _lines(address: str) -> Iterator[str]:
    yield from read_file(address).decode().splitlines()


def _places(splits: Iterable[tuple[int, str]]) -> dict[int, tuple[str, int, int, int]]:
    """Split, shard, number of shards and place of each numbered record."""
    found = places(splits, per_shard=RECORDS_PER_SHARD)
    shards: dict[str, int] = {}
    for split, shard, _ in found.values():
        shards[split] = max(shards.get(split, 0), shard + 1)
    return {number: (split, shard, shards[split], place) for number, (split, shard, place) in found.items()}


def _placed(
    record: tuple[int, str, bytes], where: dict[int, tuple[str, int, int, int]]
) -> tuple[str, tuple[int, bytes]]:
    split, shard, shards, place = where[record[0]]
    return f"{split}/{shard}/{shards}", (place, record[2])


def _write_shard(gathered: tuple[str, Iterable[tuple[int, bytes]]], work: Work) -> str:
    """Write one shard and its index to the target; what is known of it as JSON."""
    from data_prep.shard_writer import write_shard

    key, records = gathered
    split, shard, shards = key.split("/")
    name = shard_name(work.name, split, int(shard), int(shards))
    in_order = sorted(records, key=lambda record: record[0])
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, name)
        written = write_shard(path, (parse(data) for _, data in in_order), number=int(shard))
        for suffix in ("", INDEX_SUFFIX):
            store(Path(path + suffix), join(work.target, name + suffix))
    return json.dumps([split, int(shard), written])


def _describe(_: None, shards: list[str], lines: list[tuple[int, list[str]]], work: Work) -> None:
    """Write what belongs to all shards; the list of videos last, as readers look for it."""
    manifest = [*_lines(work.first_lines), *(line for _, own in sorted(lines) for line in own)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / MANIFEST_FILE).write_text("".join(line + "\n" for line in manifest), encoding="utf-8")
        if not shards:
            store(folder / MANIFEST_FILE, work.manifest_beside)
            return
        from data_prep.shard_writer import Shard, write_description

        splits: dict[str, list[Shard]] = {}
        for split, _, (entries, *rest) in sorted(map(json.loads, shards), key=lambda shard: shard[:2]):
            entries = tuple(VideoEntry(*entry) for entry in entries)
            splits.setdefault(split, []).append(Shard(entries, *rest))
        write_description(temporary, {split: splits[split] for split in split_order(splits)}, name=work.name)
        (folder / PREPARATION_FILE).write_text(work.document, encoding="utf-8")
        for path in sorted(folder.iterdir(), key=lambda path: path.name == VIDEO_LIST_FILE):
            store(path, join(work.target, path.name))
