"""Renders a data set of people from seeds.

th-jax prepare render-heads --out runs/heads --people 2000

The same command continues an interrupted run, and the data set has the same bytes as that of an uninterrupted one.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.heads import records as head_records
from data_prep.heads.identity import check_seed
from data_prep.heads.people import Style
from data_prep.heads.pool import head_file, read_head, render_missing
from data_prep.heads.records import GROUPS, HeadRecord, HeadSettings, check_settings, landmark_errors
from th_jax.data.schema import VideoRecord
from th_jax.faces import Box, detect_faces, landmarks_in_box
from th_jax.parser import new_parser

FIRST_HELDOUT_SEED = 100_000
RECORDS_PER_SHARD = 128


class Split(NamedTuple):
    """The people of a split, and their settings."""

    seeds: range
    settings: HeadSettings


class Summary(NamedTuple):
    """The result of a run: numbers of people and frames, size in bytes, undetected faces, dlib's mean errors."""

    people: int
    frames: int
    data_bytes: int
    not_found: int
    errors: dict[str, float]
    """By group of points: mean distance from the true points, relative to the distance between the eyes' outer corners."""


def render_heads(
    out: Path,
    splits: dict[str, Split],
    *,
    workers: int = 1,
    work: Path | None = None,
    records_per_shard: int = RECORDS_PER_SHARD,
) -> Summary:
    """Render the people of all splits into a new data set named "heads".

    Args:
        out: new folder of the data set.
        splits: splits by name; a seed may be in one of them only.
        workers: number of processes.
        work: folder of finished people, which may contain those of an earlier run and is kept. None: a folder beside
            `out`, removed when the data set is complete.
        records_per_shard: maximum number of people in a file.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: for invalid settings, seeds or numbers, before anything is rendered.
        ImportError, FileNotFoundError: if dlib or its models are not installed.
        RuntimeError: if a worker was killed (finished people are kept).
    """
    _check(out, splits, workers, records_per_shard)
    folder = work or default_work(out)
    heads = {name: [head_file(folder, seed, split.settings) for seed in split.seeds] for name, split in splits.items()}
    render_missing([head for split in heads.values() for head in split], workers=workers)
    # Imports TensorFlow Datasets, which workers do not need.
    from data_prep.build.shard_writer import write_data_set

    tally = _Tally()
    write_data_set(
        out,
        {name: (tally.add(read_head(head)) for head in split) for name, split in heads.items()},
        name="heads",
        records_per_shard=records_per_shard,
        description="Rendered talking heads: detected landmarks, and true ones with pupils.",
    )
    if work is None:
        shutil.rmtree(folder)
    return tally.summary(sum(path.stat().st_size for path in out.iterdir()))


def default_work(out: Path) -> Path:
    """Return the default folder of finished people."""
    return out.parent / f"{out.name}.unfinished"


def _check(out: Path, splits: dict[str, Split], workers: int, records_per_shard: int) -> None:
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: a data set needs a new folder; delete it or choose another")
    if workers < 1 or records_per_shard < 1:
        raise ValueError(f"workers ({workers}) and records_per_shard ({records_per_shard}) must be 1 or more")
    seen: dict[int, str] = {}
    for name, split in splits.items():
        check_settings(split.settings)
        if not split.seeds:
            raise ValueError(f"split {name!r} needs at least 1 person")
        for seed in split.seeds:
            check_seed(seed)
            if seed in seen:
                raise ValueError(
                    f"a person may be in one split only, but seed {seed} is in {seen[seed]!r} and in {name!r}"
                )
            seen[seed] = name
    # Missing models are reported here, not by each worker.
    blank = np.zeros((64, 64, 3), np.uint8)
    detect_faces(blank)
    landmarks_in_box(blank, Box(16, 16, 48, 48))


class _Tally:
    """Sums over all records."""

    def __init__(self) -> None:
        self._people = self._not_found = 0
        self._errors: list[np.ndarray] = []

    def add(self, head: HeadRecord) -> VideoRecord:
        self._people += 1
        self._not_found += head.not_found
        self._errors.append(landmark_errors(head.record))
        return head.record

    def summary(self, data_bytes: int) -> Summary:
        errors = np.concatenate(self._errors)
        means = {name: float(np.nanmean(errors[:, list(points)])) for name, points in GROUPS.items()}
        means["all"] = float(np.nanmean(errors))
        return Summary(self._people, len(errors), data_bytes, self._not_found, means)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when done, 75 when interrupted.

    Raises:
        ValueError, OSError, ImportError, RuntimeError: as `render_heads`.
    """
    parser = new_parser("prepare render-heads", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="new folder of the data set")
    parser.add_argument("--people", type=int, required=True, help="number of people in the split train")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seed of the first training person; the others follow"
    )
    parser.add_argument("--frames", type=int, default=24, help="frames of each training person")
    parser.add_argument(
        "--heldout-people", type=int, default=24, help="number of people in the split heldout; 0 for none"
    )
    parser.add_argument(
        "--first-heldout-seed", type=int, default=FIRST_HELDOUT_SEED, help="seed of the first held-out person"
    )
    parser.add_argument("--heldout-frames", type=int, default=64, help="frames of each held-out person")
    parser.add_argument("--size", type=int, default=128, help="side of a stored frame in pixels")
    parser.add_argument(
        "--render-size", type=int, default=head_records.RENDER_SIZE, help="side of a rendered frame in pixels"
    )
    parser.add_argument("--quality", type=int, default=head_records.QUALITY, help="JPEG quality, 1 to 100")
    parser.add_argument("--style", type=Style, choices=list(Style), default=Style.DRAWN, help="style of rendering")
    parser.add_argument(
        "--free-eyes",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the training frames, 0 to 1, in which gaze and lids are drawn independently of each other",
    )
    parser.add_argument(
        "--records-per-shard", type=int, default=RECORDS_PER_SHARD, help="maximum number of people in a file"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="number of processes (default: one per core)"
    )
    parser.add_argument("--work", type=Path, help="folder of finished people, kept (default: beside OUT, removed)")
    options = parser.parse_args(arguments)

    def split(first: int, people: int, frames: int, free_eyes: float = 0.0) -> Split:
        settings = HeadSettings(frames, options.size, options.render_size, options.quality, options.style, free_eyes)
        return Split(range(first, first + people), settings)

    splits = {"train": split(options.first_seed, options.people, options.frames, options.free_eyes)}
    if options.heldout_people:
        splits["heldout"] = split(options.first_heldout_seed, options.heldout_people, options.heldout_frames)
    try:
        summary = render_heads(
            options.out, splits, workers=options.workers, work=options.work, records_per_shard=options.records_per_shard
        )
    except KeyboardInterrupt:
        kept = options.work or default_work(options.out)
        message = f"interrupted; finished people are in {kept}, run the same command again to continue"
        print(f"\nth-jax prepare render-heads: {message}", file=sys.stderr)
        return 75
    print(
        f"{options.out}: {summary.people} people, {summary.frames} frames, {summary.data_bytes / 1e6:.1f} MB; "
        f"the detector missed {summary.not_found} faces"
    )
    print("dlib's mean error in % of the distance between the eyes' outer corners:", end=" ")
    print(", ".join(f"{group} {100 * error:.1f}" for group, error in summary.errors.items()))
    return 0
