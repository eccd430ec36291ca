"""Shows the content of a data set: counts, histograms, drops with their reasons, and frames with landmarks.

th-jax prepare inspect data/people --out out/people.html --source videos/

An .html file is a self-contained page; a .png or .jpg file is only its contact sheet. With the source folder, dropped
frames are shown as well.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.build.drop_report import Drop, describe, drop_report_path, read_drop_report
from data_prep.inspect.measures import YAW_EDGES, Measures, measure_records, spread, yaw_histogram
from data_prep.inspect.page import (
    CELL,
    MARGIN,
    PAPER,
    Dropped,
    Row,
    charts_of,
    draw_lines,
    dropped_frame,
    frame_row,
    page,
)
from th_jax.data.records import VideoRecords
from th_jax.data.schema import VideoRecord, shard_name
from th_jax.data.video_list import VideoList, load_video_list
from th_jax.parser import new_parser
from th_jax.provenance import Kind, Provenance, write_image, write_page

__all__ = ["CELL", "Inspection", "draw_lines", "inspect_shards", "main", "yaw_histogram"]

SAMPLE = 1000
"""Maximum number of videos read for the histograms, evenly spread over the data set."""

EXAMPLES = 6
"""Number of drops shown for each reason, from different videos."""

_TITLE, _INK = 22, (30, 30, 30)


class Inspection(NamedTuple):
    """The content of a data set."""

    text: str
    """Text for a terminal."""
    title: str
    facts: tuple[str, ...]
    splits: tuple[tuple[str, ...], ...]
    """Table of the splits, headings first."""
    measures: Measures
    """Measurements of a sample of the split's videos."""
    frames: tuple[int, ...]
    """Number of frames of each video of the split."""
    videos_of_people: tuple[int, ...]
    """Number of videos of each person in the split."""
    dropped: Dropped | None
    """Drops; None without a drop report."""
    shown: tuple[VideoRecord, ...]
    frame_size: int


def inspect_shards(
    folder: Path, *, split: str | None = None, videos: int = 16, source: Path | None = None
) -> Inspection:
    """Count all splits, and measure one, with some videos spread over it.

    The split is by default "train" or else the first. Dropped frames are read from `source`.

    Raises:
        FileNotFoundError: if the folder is not a data set, or `source` is not a folder.
        ValueError: if the split does not exist or has no videos, or `videos` is below 1.
        DamagedRecord: if a record is damaged; the message has its shard and number (a ValueError).
    """
    if videos < 1:
        raise ValueError(f"videos must be 1 or more, but is {videos}")
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"the source {source} is not a folder")
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
    dropped = _dropped(drop_report_path(folder), source)
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
    """Format the inspection as a page, with up to `columns` frames of each video."""
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
    """Draw the contact sheet: one row of up to `columns` frames per video."""
    rows = []
    for record in inspection.shown:
        frames = frame_row(record, columns=columns, side=inspection.frame_size)
        framed = cv2.copyMakeBorder(frames, _TITLE, MARGIN, MARGIN, MARGIN, borderType=cv2.BORDER_CONSTANT, value=PAPER)
        place = (MARGIN, _TITLE - 6)
        text = _title(record).encode("ascii", "replace").decode()
        rows.append(cv2.putText(framed, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA))
    return np.concatenate(rows)


def _counts(folder: Path, listed: VideoList, split: str) -> tuple[str, ...]:
    """Return a line of the table of splits."""
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
        f"head turns in {where}, degrees, + to the image's right:",
        *(f"  {m:+4.0f}  {c:6d}  {'#' * round(50 * c / longest)}" for m, c in zip(middles, counts, strict=True)),
    ]


def _dropped(report: Path, source: Path | None) -> Dropped | None:
    """Count the drops of a report, and choose examples."""
    if not report.is_file():
        return None
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[str, dict[str | None, Drop]] = {}
    for drop in read_drop_report(report):
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0.

    Raises:
        ValueError, OSError: if the data set cannot be shown, or the file cannot be written.
    """
    parser = new_parser("prepare inspect", __doc__)
    parser.add_argument("folder", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="HTML page, or PNG or JPEG of only the contact sheet")
    parser.add_argument("--split", help="split to show (default: train)")
    parser.add_argument("--videos", type=int, default=16, help="maximum number of rows of the sheet")
    parser.add_argument("--columns", type=int, default=12, help="maximum number of frames per video")
    parser.add_argument("--source", type=Path, help="source folder, to show dropped frames")
    options = parser.parse_args(arguments)
    if options.columns < 1:
        raise ValueError(f"columns must be 1 or more, but is {options.columns}")
    inspection = inspect_shards(options.folder, split=options.split, videos=options.videos, source=options.source)
    notes = f"inspection of data set {options.folder.absolute().name}"
    inputs = tuple(record.source_sha256 for record in inspection.shown)
    record = Provenance(kind=Kind.FIGURE, inputs=inputs, notes=notes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix.lower() == ".html":
        write_page(options.out, html_page(inspection, columns=options.columns), provenance=record)
    else:
        write_image(options.out, contact_sheet(inspection, columns=options.columns), provenance=record)
    print(f"{inspection.text}\nwritten: {options.out}")
    return 0
