"""Prepares many videos in worker processes into a staging folder; those that lie there already are not done again."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_prep.manifest import Drop
from data_prep.prepare_video import Settings, prepare_video
from data_prep.quality import Reason, Thresholds, reason_of
from data_prep.sources import SourceVideo
from data_prep.staging import Outcome, Staged, has_record, write_outcome
from data_prep.workers import Died, run_in_processes
from th_jax.data.schema import serialise
from th_jax.media import Limits, MediaError
from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, ProcessLimits, confined, exit_error

_TIME_IS_UP = {-signal.SIGXCPU, -signal.SIGALRM}


class Job(NamedTuple):
    """What a worker needs to prepare one video."""

    source: Path
    video: SourceVideo
    settings: Settings
    target: Staged
    """Where its outcome goes."""
    limits: ProcessLimits

    @classmethod
    def of_plain(cls, task: tuple) -> "Job":
        """The job that was sent to a worker, which gets it and what is in it as tuples."""
        source, video, settings, target, limits = task
        settings = Settings(*settings)
        thresholds, file_limits = Thresholds(*settings.thresholds), Limits(*settings.limits)
        settings = settings._replace(thresholds=thresholds, limits=file_limits)
        return cls(source, SourceVideo(*video), settings, Staged(*target), ProcessLimits(*limits))


def stage_videos(
    source: Path,
    videos: Sequence[SourceVideo],
    targets: Sequence[Staged],
    *,
    settings: Settings,
    workers: int,
    limits: ProcessLimits = DEFAULT_PROCESS_LIMITS,
    progress: bool = True,
) -> dict[int, Drop]:
    """Prepare those videos that have no outcome yet, each into its target.

    A worker's death costs its video alone. If it may have had another cause than the video, such as a crowded machine,
    the video is tried once more; when its worker dies again, it is left without an outcome, for a later run to try.

    Returns:
        By the number of the video, the manifest's line of each that has no outcome.

    Raises:
        RuntimeError: if workers cannot start, or cannot write.
    """
    jobs = [Job(source, v, settings, target, limits) for v, target in zip(videos, targets, strict=True)]
    missing = [number for number, target in enumerate(targets) if has_record(target) is None]
    finished = len(jobs) - len(missing)
    with tqdm(total=len(jobs), initial=finished, unit="video", disable=None if progress else True) as bar:
        died = _stage(jobs, missing, workers, bar)
        return _stage(jobs, list(died), workers, bar, last=True) if died else {}


def prepare_job(task: tuple) -> None:
    """Prepare one video in a worker, and write its outcome to the disk.

    Args:
        task: a `Job`, or its fields.
    """
    job = Job.of_plain(task)
    write_outcome(job.target, _outcome(job))


def _stage(
    jobs: Sequence[Job], numbers: Sequence[int], workers: int, bar: tqdm, *, last: bool = False
) -> dict[int, Drop]:
    """Do some of the jobs; the lines of those that have no outcome."""
    failed: dict[int, Drop] = {}
    for place, result in run_in_processes(prepare_job, [jobs[number] for number in numbers], workers=workers):
        job = jobs[numbers[place]]
        if isinstance(result, Died):
            reason, detail = reason_of(exit_error(result.exit_code, job.limits), job.video.path)
            drop = _dropped(job.video, reason, detail)
            if result.exit_code in _TIME_IS_UP:
                write_outcome(job.target, Outcome((drop.line(),), None))
            else:
                failed[numbers[place]] = drop
                bar.update(int(last))
                continue
        bar.update()
    return failed


def _outcome(job: Job) -> Outcome:
    try:
        with confined(job.limits):
            record, drops = prepare_video(job.source, job.video, job.settings)
            return Outcome(tuple(drop.line() for drop in drops), None if record is None else serialise(record))
    except MediaError as error:
        drop = _dropped(job.video, *reason_of(error, str(job.source / job.video.path)))
    except OSError as error:
        drop = _dropped(job.video, Reason.UNDECODABLE, f"it can no longer be read: {error.strerror}")
    except Exception as error:  # one bad video must never stop a run of days: the manifest names it
        drop = _dropped(job.video, Reason.FAILED, f"{type(error).__name__}: {error}")
    return Outcome((drop.line(),), None)


def _dropped(video: SourceVideo, reason: Reason, detail: str) -> Drop:
    return Drop("video", video.video_id, video.path, reason, detail=detail)
