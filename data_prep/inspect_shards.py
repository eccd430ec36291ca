"""Shows what is in a data set: counts, a histogram of head turns, and a contact sheet with the landmarks drawn in.

python -m data_prep.inspect_shards data/people --out out/people.png
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.manifest import MANIFEST_FILE, read_manifest, summary
from th_jax.data.pictures import decode_frame
from th_jax.data.records import VideoRecords
from th_jax.data.schema import VideoRecord, shard_name
from th_jax.data.video_list import load_video_list
from th_jax.media import Kind, Provenance, write_image
from th_jax.topology import known_points, segments

CELL = 144
"""Side of a frame on the sheet, in pixels."""

YAW_EDGES = np.arange(-65.0, 66.0, 10.0)
"""Degrees; the outermost bins also count what lies beyond them."""

POSE_SAMPLE = 1000
"""Videos whose landmarks are read for the histogram, evenly spread: a data set of 60 GB is not read whole."""

_MARGIN, _TITLE, _CHART = 6, 22, 130
_PAPER, _INK, _BAR = (250, 250, 250), (30, 30, 30), (90, 120, 170)
_SUBPIXEL_BITS = 4


class Inspection(NamedTuple):
    """What a data set holds."""

    text: str
    sheet: UInt8[np.ndarray, "H W 3"]
    inputs: tuple[str, ...]
    """Source hashes of the videos on the sheet."""


def inspect_shards(folder: Path, *, split: str | None = None, videos: int = 16, columns: int = 12) -> Inspection:
    """Counts of all splits, and the poses and a sheet of one ("train", or else the first), spread over its videos.

    Raises:
        FileNotFoundError: if the folder holds no data set.
        ValueError: if there is no such split, it has no videos, or `videos` or `columns` is below 1.
        DamagedRecord: naming the shard and the record (a ValueError).
    """
    if videos < 1 or columns < 1:
        raise ValueError(f"a contact sheet needs at least 1 video and 1 column, but {videos} and {columns} came")
    listed = load_video_list(folder)
    if split is None:
        split = "train" if "train" in listed.splits else next(iter(listed.splits))
    records = VideoRecords(folder, split)
    if not len(records):
        raise ValueError(f"split {split!r} of {folder} has no videos")
    lines = [f"{folder}: data set {listed.name!r}, {listed.frame_size} px, {listed.points} landmarks a frame"]
    for name, entries in listed.splits.items():
        present = [entry for entry in entries if not entry.forgotten]
        frames = [entry.frames for entry in present] or [0]
        shards = [folder / shard_name(listed.name, name, i, listed.shards[name]) for i in range(listed.shards[name])]
        lines.append(
            f"{name}: {len(present)} videos of {len({entry.identity for entry in present})} people, {sum(frames)} "
            f"frames ({min(frames)} to {max(frames)} a video, median {np.median(frames):g}), "
            f"{sum(map(os.path.getsize, shards)) / 2**20:.1f} MiB"
        )
    sampled = _spread(len(records), POSE_SAMPLE)
    angles = np.concatenate([yaw(records.read(int(number)).landmarks) for number in sampled])
    counts = yaw_histogram(angles)
    lines.append(f"head turns in {split} ({len(sampled)} of {len(records)} videos), degrees, + to the picture's right:")
    lines += _histogram_lines(counts)
    if (folder / MANIFEST_FILE).is_file():
        lines.append(summary(read_manifest(folder / MANIFEST_FILE)) or "nothing was dropped")
    shown = [records.read(int(number)) for number in _spread(len(records), videos)]
    rows = [_row(record, columns, listed.frame_size) for record in shown]
    sheet = np.concatenate([*rows, _chart(counts, rows[0].shape[1], split)])
    return Inspection("\n".join(lines), sheet, tuple(record.source_sha256 for record in shown))


def yaw(landmarks: Float[np.ndarray, "F P 2"]) -> Float[np.ndarray, " F"]:
    """How far each head is turned, in degrees, positive to the picture's right; NaN where a point is unknown.

    A proxy: where the nose's tip stands between the outer corners of the eyes. On rendered heads that turn up to 30
    degrees, it is wrong by 2.5 degrees on the mean.
    """
    left, right, tip = (landmarks[:, point].astype(np.float64) for point in (36, 45, 30))
    across = right - left
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ((tip - left) * across).sum(-1) / (across**2).sum(-1)
    return np.degrees(np.arctan(2 * share - 1))


def yaw_histogram(angles: Float[np.ndarray, " N"]) -> Int[np.ndarray, " B"]:
    """Number of known angles in each bin of `YAW_EDGES`."""
    known = angles[np.isfinite(angles)]
    return np.histogram(np.clip(known, YAW_EDGES[0], YAW_EDGES[-1]), YAW_EDGES)[0]


def draw_lines(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "P 2"]) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the frame with the landmarks' segments as thin lines in their colours; unknown ones are left out."""
    drawn, strokes = frame.copy(), segments(len(landmarks))
    known = known_points(landmarks)
    scale = np.array(frame.shape[1::-1]) * 2**_SUBPIXEL_BITS
    places = np.where(known[:, None], landmarks * scale - 2 ** (_SUBPIXEL_BITS - 1), 0).round().astype(int)
    for start, end, color in zip(strokes.start, strokes.end, strokes.color, strict=True):
        if known[start] and known[end]:
            rgb = [int(255 * value) for value in color]
            a, b = places[start].tolist(), places[end].tolist()
            cv2.line(drawn, a, b, rgb, 1, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return drawn


def _spread(total: int, wanted: int) -> Int[np.ndarray, " C"]:
    count = min(total, wanted)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)


def _row(record: VideoRecord, columns: int, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """One video's title and frames."""
    width = columns * (CELL + _MARGIN) + _MARGIN
    row = np.full((_TITLE + CELL + _MARGIN, width, 3), _PAPER, np.uint8)
    title = f"{record.video_id}   person {record.identity}   {len(record.frames)} frames"
    _write(row, title.encode("ascii", "replace").decode(), (_MARGIN, _TITLE - 6))
    for column, index in enumerate(_spread(len(record.frames), columns)):
        full = decode_frame(record.frames[index], size=side)
        frame = cv2.resize(full, (CELL, CELL), interpolation=cv2.INTER_CUBIC if side < CELL else cv2.INTER_AREA)
        left = _MARGIN + column * (CELL + _MARGIN)
        row[_TITLE : _TITLE + CELL, left : left + CELL] = draw_lines(frame, record.landmarks[index])
    return row


def _chart(counts: Int[np.ndarray, " B"], width: int, split: str) -> UInt8[np.ndarray, "H W 3"]:
    """The histogram of head turns as bars."""
    chart = np.full((_CHART, width, 3), _PAPER, np.uint8)
    _write(chart, f"head turns in {split}, degrees", (_MARGIN, _TITLE - 6))
    bar = min(44, (width - 2 * _MARGIN) // len(counts))
    floor, room = _CHART - 20, _CHART - 20 - _TITLE - 6
    for number, (count, middle) in enumerate(zip(counts, _middles(), strict=True)):
        left = _MARGIN + number * bar
        height = round(room * count / max(counts.max(), 1))
        cv2.rectangle(chart, (left, floor - height), (left + bar - 4, floor), _BAR, -1)
        _write(chart, f"{middle:+.0f}", (left, _CHART - 6), scale=0.33)
    return chart


def _write(picture: UInt8[np.ndarray, "H W 3"], text: str, place: tuple[int, int], *, scale: float = 0.45) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)


def _middles() -> Float[np.ndarray, " B"]:
    return (YAW_EDGES[:-1] + YAW_EDGES[1:]) / 2


def _histogram_lines(counts: Int[np.ndarray, " B"]) -> list[str]:
    longest = max(int(counts.max()), 1)
    return [
        f"  {middle:+4.0f}  {count:6d}  {'#' * round(50 * count / longest)}"
        for middle, count in zip(_middles(), counts, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 if the sheet was written, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.inspect_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the data set")
    parser.add_argument("--out", type=Path, required=True, help="PNG or JPEG to write")
    parser.add_argument("--split", help="which split is shown; train by default")
    parser.add_argument("--videos", type=int, default=16, help="most rows of the sheet")
    parser.add_argument("--columns", type=int, default=12, help="most frames of a video on the sheet")
    options = parser.parse_args(arguments)
    try:
        inspection = inspect_shards(options.folder, split=options.split, videos=options.videos, columns=options.columns)
        notes = f"contact sheet of data set {options.folder.absolute().name}"
        record = Provenance(kind=Kind.FIGURE, inputs=inspection.inputs, notes=notes)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_image(options.out, inspection.sheet, provenance=record)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{inspection.text}\ncontact sheet: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
