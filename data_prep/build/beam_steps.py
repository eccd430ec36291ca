"""The steps of the Apache Beam pipeline, on workers that share only the source and the target.

Videos are prepared in batches, each in a separate process that may die. Positions in the shards follow from the small list
of videos with a record; then records are grouped by shard, each worker writes whole shards, and the last step writes the
list of videos, which completes the data set. The result does not depend on the order of processing.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam

from data_prep.build.drop_report import DROP_REPORT_FILE
from data_prep.build.plan import PREPARATION_FILE, places, split_order
from data_prep.build.prepare_video import Settings
from data_prep.build.sources import SourceVideo
from data_prep.build.stage_videos import stage_videos
from data_prep.build.staging import read_outcome, staged
from data_prep.build.transfer import fetch, store
from th_jax.data.schema import parse, shard_name
from th_jax.data.tfrecord import INDEX_SUFFIX
from th_jax.data.video_list import VIDEO_LIST_FILE, VideoEntry
from th_jax.media.isolation import ProcessLimits
from th_jax.storage.files import is_remote, join, read_file

RECORDS_PER_SHARD = 128  # as data_prep.build.shard_writer, which would load TensorFlow here; a test compares them

VIDEOS_AT_ONCE = 16
"""A process takes one to two seconds to load its models."""


class Work(NamedTuple):
    """Parameters of the steps, sent to all workers."""

    source: str
    target: str
    """Place of the data set's files: a path, or an address that fsspec supports."""
    jobs: str
    """File with one line per video: its number, description and split."""
    first_lines: str
    """File with the first lines of the drop report."""
    report_beside: str
    """Place of the drop report if no video can be used."""
    name: str
    document: str
    settings: Settings
    limits: ProcessLimits


def add_steps(pipeline: beam.Pipeline, work: Work) -> None:
    """Add all steps, from the list of videos to the finished files."""
    prepared = (
        pipeline
        | "name the list" >> beam.Create([work.jobs])
        | "read the list" >> beam.FlatMap(_lines)
        | "spread the videos" >> beam.Reshuffle()
        | "batch them" >> beam.BatchElements(min_batch_size=VIDEOS_AT_ONCE, max_batch_size=VIDEOS_AT_ONCE)
        | "prepare them" >> beam.ParDo(_Prepare(work)).with_outputs("lines", main="records")
    )
    # Stored by the runner, so that the most expensive step does not run again for each use of its results.
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
    """Yields records as (number, split, bytes), and lines of the drop report as (number, lines)."""

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
    """Return the split, shard, number of shards and position of each numbered record."""
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
    """Write one shard and its index to the target; returns its description as JSON."""
    from data_prep.build.shard_writer import write_shard

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
    """Write the files that describe all shards, the list of videos last, because readers look for it."""
    report = [*_lines(work.first_lines), *(line for _, own in sorted(lines) for line in own)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / DROP_REPORT_FILE).write_text("".join(line + "\n" for line in report), encoding="utf-8")
        if not shards:
            store(folder / DROP_REPORT_FILE, work.report_beside)
            return
        from data_prep.build.shard_writer import Shard, write_description

        splits: dict[str, list[Shard]] = {}
        for split, _, (entries, *rest) in sorted(map(json.loads, shards), key=lambda shard: shard[:2]):
            entries = tuple(VideoEntry(*entry) for entry in entries)
            splits.setdefault(split, []).append(Shard(entries, *rest))
        write_description(temporary, {split: splits[split] for split in split_order(splits)}, name=work.name)
        (folder / PREPARATION_FILE).write_text(work.document, encoding="utf-8")
        for path in sorted(folder.iterdir(), key=lambda path: path.name == VIDEO_LIST_FILE):
            store(path, join(work.target, path.name))
