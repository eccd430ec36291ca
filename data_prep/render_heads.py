"""Renders people from seeds into a data set: `th-jax prepare render-heads --out runs/heads --people 2000`.

A run that was stopped goes on where it was, and the data set has the same bytes as if it had not been.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep import head_records
from data_prep.head_records import HeadRecord, HeadSettings, check_settings, landmark_errors
from data_prep.render_pool import head_file, read_head, render_missing
from data_prep.synthetic_heads.fit_landmarks import GROUPS
from data_prep.synthetic_heads.identity import check_seed
from data_prep.synthetic_heads.people import Style
from th_jax.console import forgiving_output
from th_jax.data.schema import VideoRecord
from th_jax.faces import Box, detect_faces, landmarks_in_box

FIRST_HELDOUT_SEED = 100_000
RECORDS_PER_SHARD = 128


class Split(NamedTuple):
    """The people of a split, and how each is prepared."""

    seeds: range
    settings: HeadSettings


class Summary(NamedTuple):
    """What was rendered: numbers of people and frames, bytes of the data set, faces not found, dlib's mean errors."""

    people: int
    frames: int
    data_bytes: int
    not_found: int
    errors: dict[str, float]
    """By group of points: mean distance from the truth, as a share of the distance of the eyes' outer corners."""


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
        out: the new folder.
        splits: by name; no seed may be in two of them.
        workers: processes that render.
        work: folder of finished people, which may hold those of an earlier run and is kept. None: a folder beside
            `out`, removed when the data set is complete.
        records_per_shard: at most so many people in a file.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: for settings, seeds or numbers that cannot be, before anything is rendered.
        ImportError, FileNotFoundError: if dlib or its models are not installed.
        RuntimeError: if a worker was killed (finished people are kept).
    """
    _check(out, splits, workers, records_per_shard)
    folder = work or default_work(out)
    heads = {name: [head_file(folder, seed, split.settings) for seed in split.seeds] for name, split in splits.items()}
    render_missing([head for split in heads.values() for head in split], workers=workers)
    # Workers import this file too, and have no use for TFDS.
    from data_prep.shard_writer import write_data_set

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
    """The folder of finished people of a run that was given none."""
    return out.parent / f"{out.name}.unfinished"


def _check(out: Path, splits: dict[str, Split], workers: int, records_per_shard: int) -> None:
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: a data set needs a new folder; delete this one or choose another")
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
                raise ValueError(f"nobody may be in two splits, but seed {seed} is in {seen[seed]!r} and in {name!r}")
            seen[seed] = name
    # Missing models are found out now, not by every worker.
    blank = np.zeros((64, 64, 3), np.uint8)
    detect_faces(blank)
    landmarks_in_box(blank, Box(16, 16, 48, 48))


class _Tally:
    """Sums over the records that pass by."""

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


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="th-jax prepare render-heads", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="new folder of the data set")
    parser.add_argument("--people", type=int, required=True, help="in the split train")
    parser.add_argument("--first-seed", type=int, default=0, help="of the training people; seeds are counted up")
    parser.add_argument("--frames", type=int, default=24, help="of each training person")
    parser.add_argument("--heldout-people", type=int, default=24, help="in the split heldout; 0 leaves it out")
    parser.add_argument("--first-heldout-seed", type=int, default=FIRST_HELDOUT_SEED)
    parser.add_argument("--heldout-frames", type=int, default=64, help="of each held-out person")
    parser.add_argument("--size", type=int, default=128, help="pixels of a stored frame")
    parser.add_argument("--render-size", type=int, default=head_records.RENDER_SIZE, help="pixels of a rendered frame")
    parser.add_argument("--quality", type=int, default=head_records.QUALITY, help="of the JPEG frames, 1 to 100")
    parser.add_argument("--style", type=Style, choices=list(Style), default=Style.DRAWN, help="how people look")
    parser.add_argument("--records-per-shard", type=int, default=RECORDS_PER_SHARD)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--work", type=Path, help="folder of finished people, kept (default: beside OUT, removed)")
    options = parser.parse_args(arguments)

    def split(first: int, people: int, frames: int) -> Split:
        settings = HeadSettings(frames, options.size, options.render_size, options.quality, options.style)
        return Split(range(first, first + people), settings)

    splits = {"train": split(options.first_seed, options.people, options.frames)}
    if options.heldout_people:
        splits["heldout"] = split(options.first_heldout_seed, options.heldout_people, options.heldout_frames)
    try:
        summary = render_heads(
            options.out,
            splits,
            workers=options.workers,
            work=options.work,
            records_per_shard=options.records_per_shard,
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"th-jax prepare render-heads: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = options.work or default_work(options.out)
        print(
            f"\nth-jax prepare render-heads: stopped; finished people are in {kept}, the same command goes on",
            file=sys.stderr,
        )
        return 75
    print(
        f"{options.out}: {summary.people} people, {summary.frames} frames, {summary.data_bytes / 1e6:.1f} MB; "
        f"the detector missed {summary.not_found} faces"
    )
    print("dlib's mean error, % of the distance of the eyes' outer corners:", end=" ")
    print(", ".join(f"{group} {100 * error:.1f}" for group, error in summary.errors.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
