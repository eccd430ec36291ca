"""Prepares a data set: a folder of videos or photos becomes TFRecord shards of frames with landmarks, and a manifest.

python -m data_prep.build_shards --source videos/ --out data/people

docs/data.md shows the layouts of a source folder. Everything is built beside the new folder and renamed at the end.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep.manifest import MANIFEST_FILE, Drop, summary, write_manifest
from data_prep.prepare_video import Settings, prepare_video
from data_prep.quality import Reason, Thresholds
from data_prep.sources import HELDOUT, TRAIN, Layout, Listing, SourceVideo, list_source, split_of
from data_prep.workers import Died, run_in_processes
from th_jax.data.schema import VideoRecord, parse, serialise, shard_name
from th_jax.faces import Box, detect_faces, landmarks_in_box
from th_jax.media.backends import pillow, pyav

NAME = "faces"


class Job(NamedTuple):
    """What a worker needs to prepare one video."""

    folder: Path
    video: SourceVideo
    settings: Settings
    target: Path
    """Where its record goes, if it gets one."""


class Built(NamedTuple):
    """What a run made."""

    videos: dict[str, int]
    """Videos by split."""
    frames: int
    drops: tuple[Drop, ...]


def build_shards(
    source: Path,
    out: Path,
    *,
    settings: Settings,
    layout: Layout = Layout.AUTO,
    workers: int = 1,
    heldout_share: float = 0.0,
    heldout_people: Collection[str] = (),
    name: str = NAME,
) -> Built:
    """Prepare every video of a folder into a new data set with its manifest, which appears whole or not at all.

    The result is the same for any number of workers. If no video can be used, the manifest alone is left beside `out`.

    Raises:
        FileExistsError: if `out` exists.
        FileNotFoundError: if there is no such source, or no landmark model.
        ImportError: without the extra `prep`.
        ValueError: for impossible settings, a source that holds nothing to read, or one of which nothing can be used.
        RuntimeError: if workers cannot start, or cannot write.
    """
    out = out.absolute()
    _check(settings, out, workers, heldout_share, name)
    listing = list_source(source, layout)
    _check_people(listing, heldout_people)
    _check_backends()
    # TensorFlow: not for workers, which import this module again, and not before the arguments are checked.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from data_prep.shard_writer import write_data_set

    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        drops = [*listing.drops, *_prepare(source, listing, settings, partial, workers)]
        records = {number: partial / f"{number}.record" for number in range(len(listing.videos))}
        splits: dict[str, list[Path]] = {TRAIN: [], HELDOUT: []}
        for number, path in records.items():
            if path.exists():
                identity = listing.videos[number].identity
                splits[split_of(identity, share=heldout_share, named=heldout_people)].append(path)
        if not any(splits.values()):
            beside = out.with_name(f"{out.name}.{MANIFEST_FILE}")
            write_manifest(beside, drops)
            raise ValueError(
                f"no video of {source} can be used, so nothing was written but {beside}, which says why: {_why(drops)}"
            )
        made = write_data_set(
            partial / "data", {split: _records(paths) for split, paths in splits.items() if paths}, name=name
        )
        write_manifest(partial / "data" / MANIFEST_FILE, drops)
        os.rename(partial / "data", out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = {split: len(entries) for split, entries in made.splits.items()}
    return Built(counts, sum(entry.frames for entries in made.splits.values() for entry in entries), tuple(drops))


def prepare_job(job: Job) -> tuple[Drop, ...]:
    """Prepare one video in a worker: its record goes to the disk, what was dropped comes back."""
    try:
        record, drops = prepare_video(job.folder, job.video, job.settings)
        data = None if record is None else serialise(record)
    except MemoryError:
        return (_dropped(job.video, Reason.OVER_LIMITS, "it needs more memory than there is"),)
    except OSError as error:
        return (_dropped(job.video, Reason.UNDECODABLE, f"it can no longer be read: {error.strerror}"),)
    except Exception as error:  # one bad video must never stop a run of days: the manifest names it
        return (_dropped(job.video, Reason.FAILED, f"{type(error).__name__}: {error}"),)
    if data is not None:
        written = job.target.with_suffix(".partial")
        written.write_bytes(data)
        written.replace(job.target)
    return drops


def _prepare(source: Path, listing: Listing, settings: Settings, folder: Path, workers: int) -> list[Drop]:
    """Prepare all videos; the drops in the order of the listing."""
    jobs = [Job(source, video, settings, folder / f"{i}.record") for i, video in enumerate(listing.videos)]
    drops: dict[int, tuple[Drop, ...]] = {}
    results = run_in_processes(prepare_job, jobs, workers=workers)
    for number, result in tqdm(results, total=len(jobs), unit="video", disable=None):
        if isinstance(result, Died):
            result = (_dropped(jobs[number].video, Reason.FAILED, f"its process ended with {result.exit_code}"),)
        drops[number] = result
    return [drop for number in range(len(jobs)) for drop in drops[number]]


def _records(paths: Sequence[Path]) -> Iterator[VideoRecord]:
    for path in paths:
        yield parse(path.read_bytes())
        path.unlink()


def _dropped(video: SourceVideo, reason: Reason, detail: str) -> Drop:
    return Drop("video", video.video_id, video.path, reason, detail=detail)


def _why(drops: Sequence[Drop]) -> str:
    example = next((drop for drop in drops if drop.detail), None)
    return summary(drops).replace("\n", "; ") + (f"; {example.path}: {example.detail}" if example else "")


def _check(settings: Settings, out: Path, workers: int, heldout_share: float, name: str) -> None:
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: a data set needs a new folder; delete this one or choose another")
    shard_name(name, TRAIN, 0, 1)
    for what, value, least, most in (
        ("size", settings.size, 16, 4096),
        ("frames", settings.frames, 1, 4096),
        ("gap", settings.gap, 0, 3600),
        ("JPEG quality", settings.quality, 1, 100),
        ("context", settings.context, 0.5, 4),
        ("min-frames", settings.thresholds.frames, 1, settings.frames),
        ("workers", workers, 1, 4096),
        ("heldout", heldout_share, 0, 1),
    ):
        if not least <= value <= most:
            raise ValueError(f"{what} must be {least} to {most}, but is {value}")


def _check_people(listing: Listing, heldout_people: Collection[str]) -> None:
    missing = sorted(set(heldout_people) - {video.identity for video in listing.videos})
    if missing:
        raise ValueError(f"people named to be held out are not in the source: {', '.join(missing[:5])}")


def _check_backends() -> None:
    """Use everything once, here: an absent extra or landmark model is one sentence, not a line for every video."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError("writing shards needs TensorFlow: pip install 'th_jax[prep]'")
    pillow()
    pyav()
    blank = np.zeros((64, 64, 3), np.uint8)
    detect_faces(blank)
    landmarks_in_box(blank, Box(16, 16, 48, 48))


def _heldout(text: str) -> tuple[float, tuple[str, ...]]:
    try:
        return float(text), ()
    except ValueError:
        path = Path(text)
        if not path.is_file():
            raise argparse.ArgumentTypeError(
                f"{text} is neither a share such as 0.05 nor a file with one person a line"
            ) from None
        return 0.0, tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="the folder of videos or photos")
    add("--out", type=Path, required=True, help="the new folder of the data set")
    add("--layout", type=Layout, choices=list(Layout), default=Layout.AUTO, help="how the source is arranged")
    add("--size", type=int, default=256, help="side of the stored frames, in pixels")
    add("--frames", type=int, default=Settings().frames, help="most frames of a video")
    add("--min-frames", type=int, default=Thresholds().frames, help="a video with fewer usable frames is dropped")
    add("--gap", type=float, default=Settings().gap, help="least seconds between two frames of a clip")
    add("--quality", type=int, default=Settings().quality, help="JPEG quality, 1 to 100")
    add("--context", type=float, default=1.0, help="above 1 shows more around the head")
    add("--licence", default=Settings().licence, help="SPDX name of the source's licence, kept in every record")
    add("--name", default=NAME, help="of the data set, in its file names")
    add("--heldout", type=_heldout, default=(0.0, ()), help="share of people to hold out, or a file that names them")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 if the data set was made, 1 if not, 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    thresholds = Thresholds(frames=options.min_frames)
    same = {field: getattr(options, field) for field in ("size", "frames", "gap", "quality", "context", "licence")}
    share, people = options.heldout
    previous: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill tidies up as Ctrl-C does
    try:
        built = build_shards(
            options.source,
            options.out,
            settings=Settings(**same, thresholds=thresholds),
            layout=options.layout,
            workers=options.workers,
            heldout_share=share,
            heldout_people=people,
            name=options.name,
        )
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    videos = ", ".join(f"{split} {count}" for split, count in built.videos.items())
    print(f"{options.out}: videos: {videos}; frames: {built.frames}")
    if built.drops:
        print(f"{summary(built.drops)}\neach with its reason in {options.out / MANIFEST_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
