"""Builds a data set: converts a folder of videos or photos to TFRecord shards of frames with landmarks.

th-jax prepare build --source videos/ --out data/people

docs/data.md shows the layouts of a source folder. Finished videos are kept beside the new folder until all are done: the
same command continues an interrupted run, and the result has the same bytes as that of an uninterrupted one.
"""

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.build.drop_report import (
    DROP_REPORT_FILE,
    Drop,
    describe,
    parse_drop,
    read_drop_report,
    write_drop_report,
)
from data_prep.build.options import add_options, chosen
from data_prep.build.plan import NAME, PREPARATION_FILE, Plan, Selection, make_plan, split_order
from data_prep.build.prepare_video import Settings
from data_prep.build.sources import Layout, OfficialSplit
from data_prep.build.stage_videos import stage_videos
from data_prep.build.staging import (
    ASSEMBLY,
    Staged,
    digest,
    has_record,
    open_staging,
    read_lines,
    read_outcome,
    remove_staging,
    staged,
    staging_folder,
)
from th_jax.data.schema import VideoRecord, parse
from th_jax.data.video_list import VideoList, load_video_list
from th_jax.faces.detect import LANDMARK_MODEL_HELP, using_landmark_model
from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, ProcessLimits, check_process_limits
from th_jax.parser import new_parser
from th_jax.storage.files import flush_to_disk


class Built(NamedTuple):
    """The result of a run."""

    videos: dict[str, int]
    """Number of videos by split."""
    frames: int
    drops: Mapping[tuple[str, str], int]
    """Number of drops by level and reason."""


def build_shards(
    source: Path,
    out: Path,
    *,
    settings: Settings,
    layout: Layout = Layout.AUTO,
    workers: int = 1,
    heldout_share: float = 0.0,
    heldout_people: Collection[str] = (),
    official: OfficialSplit | None = None,
    takedown: Collection[str] = (),
    name: str = NAME,
    limits: ProcessLimits = DEFAULT_PROCESS_LIMITS,
) -> Built:
    """Build a new data set, with its drop report, from a folder of videos or photos; it appears atomically.

    The result is the same for any number of workers and interruptions. If no video can be used, only a drop report is
    written, beside `out`.

    Args:
        source: source folder.
        out: new folder of the data set.
        settings: settings of the preparation.
        layout: layout of the source folder.
        workers: number of processes.
        heldout_share: share of people to hold out, 0 to 1.
        heldout_people: names of people to hold out.
        official: published split, which replaces these two.
        takedown: people, or video ids, to leave out.
        name: name of the data set, part of its file names.
        limits: resource limits for each video.

    Raises:
        FileExistsError: if `out` exists.
        FileNotFoundError: if the source or the landmark model does not exist.
        ImportError: without the extra `prep`.
        ValueError: for invalid settings, a source without usable files, or if an earlier run prepared a part of it with
            another preparation.
        RuntimeError: if workers cannot start or write, or another run is building the same data set.
    """
    out = out.absolute()
    _check(out, workers, limits)
    plan = make_plan(
        source, settings, Selection(layout, heldout_share, heldout_people, official, frozenset(takedown), name)
    )
    folder = staging_folder(out)
    with open_staging(folder, plan.preparation):
        if os.path.lexists(out):
            if not _is_finished(out, plan):
                raise _exists(out)
            built = _reported(out)  # an earlier run was killed during its cleanup
        else:
            built = _build(source, out, folder, plan, settings, workers, limits)
        remove_staging(folder)
    if not built.videos:
        beside = _report_beside(out)
        raise ValueError(
            f"no video of {source} can be used; the reasons are in {beside}: {_why(beside)}; docs/preparation.md says which "
            "option changes each of them"
        )
    return built


def report(out: Path | str, built: Built) -> str:
    """Describe the result for the user."""
    videos = ", ".join(f"{split} {count}" for split, count in built.videos.items())
    lines = [f"{out}: videos: {videos}; frames: {built.frames}"]
    if built.drops:
        lines += [describe(built.drops), f"the reasons are in {out}/{DROP_REPORT_FILE}"]
    return "\n".join(lines)


def _build(
    source: Path, out: Path, folder: Path, plan: Plan, settings: Settings, workers: int, limits: ProcessLimits
) -> Built:
    preparation = digest(plan.preparation)
    for video in plan.taken_down:
        staged(folder, source, video, preparation).path.unlink(missing_ok=True)
    targets = [staged(folder, source, video, preparation) for video in plan.videos]
    failed = stage_videos(source, plan.videos, targets, settings=settings, workers=workers, limits=limits)
    splits: dict[str, list[Staged]] = {split: [] for split in split_order(plan.splits)}
    for target, split in zip(targets, plan.splits, strict=True):
        if has_record(target):
            splits[split].append(target)
    counts: Counter[tuple[str, str]] = Counter()
    drops = _counted(_drops(plan, targets, failed), counts)
    if not any(splits.values()):
        write_drop_report(_report_beside(out), drops)
        return Built({}, 0, counts)
    # Imports TensorFlow, which is not needed by workers, or before there is something to write.
    from data_prep.build.shard_writer import write_data_set

    data = folder / ASSEMBLY / out.name
    records = {split: _records(chosen) for split, chosen in splits.items() if chosen}
    made = write_data_set(data, records, name=plan.name)
    write_drop_report(data / DROP_REPORT_FILE, drops)
    (data / PREPARATION_FILE).write_text(plan.document, encoding="utf-8")
    flush_to_disk(*data.iterdir(), data)
    os.rename(data, out)
    flush_to_disk(out.parent)
    return _built(made, counts)


def _drops(plan: Plan, targets: Sequence[Staged], failed: Mapping[int, Drop]) -> Iterator[Drop]:
    """Yield all drops in the order of the videos, read one video at a time."""
    yield from plan.drops
    for number, target in enumerate(targets):
        lines = read_lines(target)
        if lines is not None:
            try:
                yield from [parse_drop(line) for line in lines]
            except ValueError:
                raise _lost(target) from None
        elif number in failed:
            yield failed[number]
        else:
            raise _lost(target)


def _records(targets: Sequence[Staged]) -> Iterator[VideoRecord]:
    for target in targets:
        outcome = read_outcome(target)
        try:
            if outcome is None or outcome.record is None:
                raise ValueError
            record = parse(outcome.record)
        except ValueError:
            raise _lost(target) from None
        yield record


def _lost(target: Staged) -> RuntimeError:
    target.path.unlink(missing_ok=True)
    return RuntimeError(f"{target.path} is damaged, or was changed since it was written: run the same command again")


def _counted(drops: Iterator[Drop], counts: Counter[tuple[str, str]]) -> Iterator[Drop]:
    for drop in drops:
        counts[drop.level, drop.reason.value] += 1
        yield drop


def _built(videos: VideoList, drops: Mapping[tuple[str, str], int]) -> Built:
    counts = {split: len(entries) for split, entries in videos.splits.items()}
    return Built(counts, sum(entry.frames for entries in videos.splits.values() for entry in entries), drops)


def _is_finished(out: Path, plan: Plan) -> bool:
    """Return whether a data set is the result of this plan; data sets appear atomically."""
    made = out / PREPARATION_FILE
    return made.is_file() and made.read_text(encoding="utf-8") == plan.document


def _reported(out: Path) -> Built:
    drops = read_drop_report(out / DROP_REPORT_FILE)
    return _built(load_video_list(out), Counter((drop.level, drop.reason.value) for drop in drops))


def _report_beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.{DROP_REPORT_FILE}")


def _why(report: Path) -> str:
    counts: Counter[tuple[str, str]] = Counter()
    example = ""
    for drop in _counted(read_drop_report(report), counts):
        example = example or (f"; {drop.path}: {drop.detail}" if drop.detail else "")
    return describe(counts).replace("\n", "; ") + example


def _check(out: Path, workers: int, limits: ProcessLimits) -> None:
    if os.path.lexists(out) and not staging_folder(out).exists():
        raise _exists(out)
    if not 1 <= workers <= 4096:
        raise ValueError(f"workers must be 1 to 4096, but is {workers}")
    check_process_limits(limits)


def _exists(out: Path) -> FileExistsError:
    return FileExistsError(f"{out} exists: a data set needs a new folder; delete it or choose another")


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("prepare build", __doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of videos or photos")
    parser.add_argument("--out", type=Path, required=True, help="new folder of the data set")
    add_options(parser)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="number of processes (default: one per core)"
    )
    parser.add_argument("--landmark-model", metavar="MODEL", help=LANDMARK_MODEL_HELP)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when done, 75 when interrupted.

    Raises:
        ValueError, OSError, ImportError, RuntimeError: as `build_shards`.
    """
    options = _parser().parse_args(arguments)
    previous: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM cleans up as Ctrl-C does
    try:
        settings, selection, limits = chosen(options)
        with using_landmark_model(options.landmark_model):
            built = build_shards(
                options.source,
                options.out,
                settings=settings,
                workers=options.workers,
                limits=limits,
                **selection._asdict(),
            )
    except KeyboardInterrupt:
        print(
            "th-jax prepare build: interrupted; finished videos are kept, run the same command again to continue",
            file=sys.stderr,
        )
        return 75
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(report(options.out, built))
    return 0
