"""Prepares a data set: a folder of videos or photos becomes TFRecord shards of frames with landmarks, and a manifest.

th-jax prepare build --source videos/ --out data/people

docs/data.md shows the layouts of a source folder. Finished videos are kept beside the new folder until all are done: a
run that was stopped or killed is continued by the same command, and its result has the same bytes as if nothing had
happened.
"""

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.manifest import MANIFEST_FILE, Drop, describe, drop_of, write_manifest
from data_prep.options import add_options, chosen
from data_prep.plan import NAME, PREPARATION_FILE, Plan, Selection, make_plan, split_order
from data_prep.prepare_video import Settings
from data_prep.sources import Layout
from data_prep.splits import OfficialSplit
from data_prep.stage_videos import stage_videos
from data_prep.staging import (
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
from th_jax.console import forgiving_output
from th_jax.data.schema import VideoRecord, parse
from th_jax.data.video_list import VideoList, load_video_list
from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, ProcessLimits, check_process_limits


class Built(NamedTuple):
    """What a run made."""

    videos: dict[str, int]
    """Videos by split."""
    frames: int
    drops: Mapping[tuple[str, str], int]
    """How much was dropped, by level and reason."""


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
    """Prepare every video of a folder into a new data set with its manifest, which appears whole or not at all.

    The result is the same for any number of workers, and however often the run was stopped and begun again. If no
    video can be used, the manifest alone is left beside `out`.

    Args:
        source: the folder.
        out: the new folder.
        settings: how videos are prepared.
        layout: how the source is arranged.
        workers: processes.
        heldout_share: of the people, 0 to 1.
        heldout_people: by name.
        official: a published split, in place of these two.
        takedown: people, or ids of videos, to leave out.
        name: of the data set, in its file names.
        limits: what one video may cost.

    Raises:
        FileExistsError: if `out` exists.
        FileNotFoundError: if there is no such source, or no landmark model.
        ImportError: without the extra `prep`.
        ValueError: for impossible settings, a source that holds nothing to read or of which nothing can be used, or if
            an earlier run prepared some of it with other settings.
        RuntimeError: if workers cannot start or cannot write, or another run is at work on the same data set.
    """
    out = out.absolute()
    _check(out, workers, limits)
    plan = make_plan(
        source, settings, Selection(layout, heldout_share, heldout_people, official, frozenset(takedown), name)
    )
    folder = staging_folder(out)
    with open_staging(folder, plan.decisive):
        if os.path.lexists(out):
            if not _is_finished(out, plan):
                raise _exists(out)
            built = _reported(out)  # an earlier run was killed while it tidied up
        else:
            built = _build(source, out, folder, plan, settings, workers, limits)
        remove_staging(folder)
    if not built.videos:
        beside = _manifest_beside(out)
        raise ValueError(
            f"no video of {source} can be used, so nothing was written but {beside}, which says why: {_why(beside)}"
        )
    return built


def report(out: Path | str, built: Built) -> str:
    """What was made, for the user."""
    videos = ", ".join(f"{split} {count}" for split, count in built.videos.items())
    lines = [f"{out}: videos: {videos}; frames: {built.frames}"]
    if built.drops:
        lines += [describe(built.drops), f"each with its reason in {out}/{MANIFEST_FILE}"]
    return "\n".join(lines)


def _build(
    source: Path, out: Path, folder: Path, plan: Plan, settings: Settings, workers: int, limits: ProcessLimits
) -> Built:
    decisive = digest(plan.decisive)
    for video in plan.taken_down:
        staged(folder, source, video, decisive).path.unlink(missing_ok=True)
    targets = [staged(folder, source, video, decisive) for video in plan.videos]
    failed = stage_videos(source, plan.videos, targets, settings=settings, workers=workers, limits=limits)
    splits: dict[str, list[Staged]] = {split: [] for split in split_order(plan.splits)}
    for target, split in zip(targets, plan.splits, strict=True):
        if has_record(target):
            splits[split].append(target)
    counts: Counter[tuple[str, str]] = Counter()
    drops = _counted(_drops(plan, targets, failed), counts)
    if not any(splits.values()):
        write_manifest(_manifest_beside(out), drops)
        return Built({}, 0, counts)
    # TensorFlow: not for workers, which import this module again, and not before there is something to write.
    from data_prep.shard_writer import write_data_set

    data = folder / ASSEMBLY / out.name
    records = {split: _records(chosen) for split, chosen in splits.items() if chosen}
    made = write_data_set(data, records, name=plan.name)
    write_manifest(data / MANIFEST_FILE, drops)
    (data / PREPARATION_FILE).write_text(plan.document, encoding="utf-8")
    _flush(*data.iterdir(), data)
    os.rename(data, out)
    _flush(out.parent)
    return _built(made, counts)


def _drops(plan: Plan, targets: Sequence[Staged], failed: Mapping[int, Drop]) -> Iterator[Drop]:
    """All drops in the order of the videos, read from the disk one video after the other."""
    yield from plan.drops
    for number, target in enumerate(targets):
        lines = read_lines(target)
        if lines is not None:
            yield from map(drop_of, lines)
        elif number in failed:
            yield failed[number]
        else:
            raise _lost(target)


def _records(targets: Sequence[Staged]) -> Iterator[VideoRecord]:
    for target in targets:
        outcome = read_outcome(target)
        if outcome is None or outcome.record is None:
            raise _lost(target)
        yield parse(outcome.record)


def _lost(target: Staged) -> RuntimeError:
    target.path.unlink(missing_ok=True)
    return RuntimeError(f"{target.path} was changed or damaged since it was written: run the same command again")


def _counted(drops: Iterator[Drop], counts: Counter[tuple[str, str]]) -> Iterator[Drop]:
    for drop in drops:
        counts[drop.level, drop.reason.value] += 1
        yield drop


def _built(videos: VideoList, drops: Mapping[tuple[str, str], int]) -> Built:
    counts = {split: len(entries) for split, entries in videos.splits.items()}
    return Built(counts, sum(entry.frames for entries in videos.splits.values() for entry in entries), drops)


def _is_finished(out: Path, plan: Plan) -> bool:
    """Whether this data set is what the plan makes; data sets appear whole."""
    made = out / PREPARATION_FILE
    return made.is_file() and made.read_text(encoding="utf-8") == plan.document


def _reported(out: Path) -> Built:
    with (out / MANIFEST_FILE).open(encoding="utf-8") as lines:
        counts = Counter((drop.level, drop.reason.value) for drop in map(drop_of, lines))
    return _built(load_video_list(out), counts)


def _manifest_beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.{MANIFEST_FILE}")


def _why(manifest: Path) -> str:
    counts: Counter[tuple[str, str]] = Counter()
    example = ""
    with manifest.open(encoding="utf-8") as lines:
        for drop in _counted(map(drop_of, lines), counts):
            example = example or (f"; {drop.path}: {drop.detail}" if drop.detail else "")
    return describe(counts).replace("\n", "; ") + example


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check(out: Path, workers: int, limits: ProcessLimits) -> None:
    if os.path.lexists(out) and not staging_folder(out).exists():
        raise _exists(out)
    if not 1 <= workers <= 4096:
        raise ValueError(f"workers must be 1 to 4096, but is {workers}")
    check_process_limits(limits)


def _exists(out: Path) -> FileExistsError:
    return FileExistsError(f"{out} exists: a data set needs a new folder; delete this one or choose another")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="th-jax prepare build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=Path, required=True, help="the folder of videos or photos")
    parser.add_argument("--out", type=Path, required=True, help="the new folder of the data set")
    add_options(parser)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 if the data set was made, 1 if not, 75 if it was interrupted."""
    options = _parser().parse_args(arguments)
    previous: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill tidies up as Ctrl-C does
    try:
        settings, selection, limits = chosen(options)
        built = build_shards(
            options.source,
            options.out,
            settings=settings,
            workers=options.workers,
            limits=limits,
            **selection._asdict(),
        )
    except KeyboardInterrupt:
        print("interrupted: finished videos are kept, and the same command goes on with the others", file=sys.stderr)
        return 75
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"th-jax prepare build: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(report(options.out, built))
    return 0


if __name__ == "__main__":
    sys.exit(main())
