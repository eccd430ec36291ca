"""Shows what is in a data set: counts, histograms, what was dropped and why, and frames with the landmarks drawn in.

th-jax prepare inspect data/people --out out/people.html --source videos/

An .html is one page that loads nothing else; a .png or .jpg is its contact sheet alone. With the folder that was
prepared, dropped frames are shown too.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.inspect_measures import YAW_EDGES, Measures, measure_records, spread, yaw_histogram
from data_prep.inspect_page import Dropped, Row, charts_of, page
from data_prep.inspect_pictures import CELL, MARGIN, PAPER, draw_lines, dropped_frame, frame_row
from data_prep.manifest import MANIFEST_FILE, Drop, describe, drop_of
from th_jax.console import forgiving_output
from th_jax.data.records import VideoRecords
from th_jax.data.schema import VideoRecord, shard_name
from th_jax.data.video_list import VideoList, load_video_list
from th_jax.provenance import Kind, Provenance, write_image, write_page

__all__ = ["CELL", "Inspection", "draw_lines", "inspect_shards", "main", "yaw_histogram"]

SAMPLE = 1000
"""Videos that are read for the histograms, evenly spread: a data set of 60 GB is not read whole."""

EXAMPLES = 6
"""Drops of each reason that are shown, each of another video."""

_TITLE, _INK = 22, (30, 30, 30)


class Inspection(NamedTuple):
    """What a data set holds."""

    text: str
    """For a terminal."""
    title: str
    facts: tuple[str, ...]
    splits: tuple[tuple[str, ...], ...]
    """A table, headings first."""
    measures: Measures
    """Of a sample of the split's videos."""
    frames: tuple[int, ...]
    """Of each video of the split."""
    videos_of_people: tuple[int, ...]
    """How many the split has of each person."""
    dropped: Dropped | None
    """None without a manifest."""
    shown: tuple[VideoRecord, ...]
    frame_size: int


def inspect_shards(
    folder: Path, *, split: str | None = None, videos: int = 16, source: Path | None = None
) -> Inspection:
    """Counts of all splits, and measures and videos of one ("train", or else the first), spread over its videos.

    Raises:
        FileNotFoundError: if the folder holds no data set, or `source` is no folder.
        ValueError: if there is no such split, it has no videos, or `videos` is below 1.
        DamagedRecord: naming the shard and the record (a ValueError).
    """
    if videos < 1:
        raise ValueError(f"a contact sheet needs at least 1 video, but {videos} came")
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"the source {source} is no folder")
    listed = load_video_list(folder)
    if split is None:
        split = "train" if "train" in listed.splits else next(iter(listed.splits))
    records = VideoRecords(folder, split)
    if not len(records):
        raise ValueError(f"split {split!r} of {folder} has no videos")
    title = f"data set {listed.name!r}, {listed.frame_size} px, {listed.points} landmarks a frame"
    table = [_counts(folder, listed, name) for name in listed.splits]
    sampled = spread(len(records), SAMPLE)
    measures = measure_records((records.read(int(number)) for number in sampled), side=listed.frame_size)
    sample = f"{len(sampled)} of {len(records)} videos"
    dropped = _dropped(folder / MANIFEST_FILE, source)
    entries = [entry for entry in listed.entries(split) if not entry.forgotten]
    return Inspection(
        "\n".join([f"{folder}: {title}", *map(_sentence, table), *_turns(measures.yaw, f"{split} ({sample})"),
                   *_summary(dropped)]),
        title,
        (f"Digest of the list of videos: {listed.digest(split=split)}", f"Measures are those of {split}: {sample}."),
        (("split", "videos", "people", "frames", "fewest a video", "median", "most", "MiB"), *table),
        measures,
        tuple(entry.frames for entry in entries),
        tuple(Counter(entry.identity for entry in entries).values()),
        dropped,
        tuple(records.read(int(number)) for number in spread(len(records), videos)),
        listed.frame_size,
    )  # fmt: skip


def html_page(inspection: Inspection, *, columns: int) -> str:
    """The inspection as one page, with up to `columns` frames of each video that is shown."""
    rows = (Row(_title(r), frame_row(r, columns=columns, side=inspection.frame_size)) for r in inspection.shown)
    charts = charts_of(inspection.measures, frames=inspection.frames, videos_of_people=inspection.videos_of_people)
    return page(
        inspection.title,
        facts=inspection.facts,
        splits=inspection.splits,
        charts=charts,
        dropped=inspection.dropped,
        rows=rows,
    )


def contact_sheet(inspection: Inspection, *, columns: int) -> UInt8[np.ndarray, "H W 3"]:
    """The videos that are shown, a row of up to `columns` frames each."""
    rows = []
    for record in inspection.shown:
        frames = frame_row(record, columns=columns, side=inspection.frame_size)
        framed = cv2.copyMakeBorder(frames, _TITLE, MARGIN, MARGIN, MARGIN, borderType=cv2.BORDER_CONSTANT, value=PAPER)
        place = (MARGIN, _TITLE - 6)
        text = _title(record).encode("ascii", "replace").decode()
        rows.append(cv2.putText(framed, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA))
    return np.concatenate(rows)


def _counts(folder: Path, listed: VideoList, split: str) -> tuple[str, ...]:
    """A line of the table of splits."""
    present = [entry for entry in listed.splits[split] if not entry.forgotten]
    frames = [entry.frames for entry in present] or [0]
    shards = [folder / shard_name(listed.name, split, i, listed.shards[split]) for i in range(listed.shards[split])]
    people = len({entry.identity for entry in present})
    size = f"{sum(map(os.path.getsize, shards)) / 2**20:.1f}"
    numbers = (len(present), people, sum(frames), min(frames))
    return (split, *map(str, numbers), f"{np.median(frames):g}", str(max(frames)), size)


def _sentence(line: Sequence[str]) -> str:
    split, videos, people, frames, least, median, most, size = line
    each = f"{least} to {most} a video, median {median}"
    return f"{split}: {videos} videos of {people} people, {frames} frames ({each}), {size} MiB"


def _turns(angles: Float[np.ndarray, " N"], where: str) -> list[str]:
    counts: Int[np.ndarray, " B"] = yaw_histogram(angles)
    longest = max(int(counts.max()), 1)
    middles = (YAW_EDGES[:-1] + YAW_EDGES[1:]) / 2
    return [
        f"head turns in {where}, degrees, + to the picture's right:",
        *(f"  {m:+4.0f}  {c:6d}  {'#' * round(50 * c / longest)}" for m, c in zip(middles, counts, strict=True)),
    ]


def _dropped(manifest: Path, source: Path | None) -> Dropped | None:
    """Counts and examples of a manifest, read line by line: that of a million videos does not fit into memory."""
    if not manifest.is_file():
        return None
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[str, dict[str | None, Drop]] = {}
    with manifest.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                drop = drop_of(line)
            except ValueError as error:
                raise ValueError(f"line {number} of {manifest} is no line of a manifest: {error}") from error
            counts[drop.level, drop.reason.value] += 1
            few = examples.setdefault(drop.reason.value, {})
            if len(few) < EXAMPLES:
                few.setdefault(drop.video_id or drop.path, drop)
    return Dropped(
        counts,
        {
            reason: [(drop, None if source is None else dropped_frame(source, drop)) for drop in few.values()]
            for reason, few in examples.items()
        },
    )


def _summary(dropped: Dropped | None) -> list[str]:
    return [] if dropped is None else [describe(dropped.counts) or "nothing was dropped"]


def _title(record: VideoRecord) -> str:
    return f"{record.video_id} (person {record.identity}, {len(record.frames)} frames)"


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 if the page or the sheet was written, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="th-jax prepare inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the data set")
    parser.add_argument("--out", type=Path, required=True, help="HTML page, or PNG or JPEG of the contact sheet alone")
    parser.add_argument("--split", help="which split is shown; train by default")
    parser.add_argument("--videos", type=int, default=16, help="most rows of the sheet")
    parser.add_argument("--columns", type=int, default=12, help="most frames of a video on the sheet")
    parser.add_argument("--source", type=Path, help="the folder that was prepared: dropped frames are shown from it")
    options = parser.parse_args(arguments)
    try:
        if options.columns < 1:
            raise ValueError(f"a contact sheet needs at least 1 column, but {options.columns} came")
        inspection = inspect_shards(options.folder, split=options.split, videos=options.videos, source=options.source)
        notes = f"inspection of data set {options.folder.absolute().name}"
        inputs = tuple(record.source_sha256 for record in inspection.shown)
        record = Provenance(kind=Kind.FIGURE, inputs=inputs, notes=notes)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.out.suffix.lower() == ".html":
            write_page(options.out, html_page(inspection, columns=options.columns), provenance=record)
        else:
            write_image(options.out, contact_sheet(inspection, columns=options.columns), provenance=record)
    except (ValueError, OSError) as error:
        print(f"th-jax prepare inspect: {error}", file=sys.stderr)
        return 1
    print(f"{inspection.text}\nwritten: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
