"""Prepares videos in worker processes into the staging folder, except those that are already there."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from data_prep.build.drop_report import Drop
from data_prep.build.prepare_video import Settings, prepare_video
from data_prep.build.quality import Reason, Thresholds, reason_of
from data_prep.build.sources import SourceVideo
from data_prep.build.staging import Outcome, Staged, has_record, write_outcome
from data_prep.workers import Died, InvalidAnswer, run_in_processes
from th_jax.data.schema import serialise
from th_jax.media import Limits, MediaError
from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, ProcessLimits, confined, exit_error

_TIME_IS_UP = {-signal.SIGXCPU, -signal.SIGALRM}


class Job(NamedTuple):
    """A video to prepare, with everything that a worker needs."""

    source: Path
    video: SourceVideo
    settings: Settings
    target: Staged
    """Place of its outcome."""
    limits: ProcessLimits

    @classmethod
    def of_plain(cls, task: tuple) -> "Job":
        """Restore a job from the nested tuples that a worker receives."""
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
    """Prepare the videos that have no outcome yet.

    If a worker fails, only its video is affected. Unless the cause was certainly the video, it is tried once more;
    after a second failure it has no outcome, so that a later run tries it again. `limits` are those of each video.

    Returns:
        The drop of each video without an outcome, by its index.

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
    """Prepare one video in a worker, and write its outcome.

    The task is a `Job`, or its fields.
    """
    job = Job.of_plain(task)
    write_outcome(job.target, _outcome(job))


def _stage(
    jobs: Sequence[Job], numbers: Sequence[int], workers: int, bar: tqdm, *, last: bool = False
) -> dict[int, Drop]:
    """Run some of the jobs; returns the drops of those without an outcome."""
    failed: dict[int, Drop] = {}
    for place, result in run_in_processes(prepare_job, [jobs[number] for number in numbers], workers=workers):
        job = jobs[numbers[place]]
        drop = _failure(job, result)
        if isinstance(result, Died) and result.exit_code in _TIME_IS_UP:
            assert drop is not None
            write_outcome(job.target, Outcome((drop.line(),), None))
        elif drop is not None:
            failed[numbers[place]] = drop
            bar.update(int(last))
            continue
        bar.update()
    return failed


def _failure(job: Job, result: Any) -> Drop | None:
    """Return why a job has no outcome; a worker, which has read an untrusted video, may claim anything."""
    if isinstance(result, Died):
        return _dropped(job.video, *reason_of(exit_error(result.exit_code, job.limits), job.video.path))
    if isinstance(result, InvalidAnswer):
        return _dropped(job.video, Reason.FAILED, str(result))
    if result is not None or has_record(job.target) is None:
        return _dropped(job.video, Reason.FAILED, "its process sent an invalid answer: it left no valid outcome")
    return None


def _outcome(job: Job) -> Outcome:
    try:
        with confined(job.limits):
            record, drops = prepare_video(job.source, job.video, job.settings)
            return Outcome(tuple(drop.line() for drop in drops), None if record is None else serialise(record))
    except MediaError as error:
        drop = _dropped(job.video, *reason_of(error, str(job.source / job.video.path)))
    except OSError as error:
        drop = _dropped(job.video, Reason.UNDECODABLE, f"it can no longer be read: {error.strerror}")
    except Exception as error:  # one bad video must never stop a long run; the drop report names it
        drop = _dropped(job.video, Reason.FAILED, f"{type(error).__name__}: {error}")
    return Outcome((drop.line(),), None)


def _dropped(video: SourceVideo, reason: Reason, detail: str) -> Drop:
    return Drop("video", video.video_id, video.path, reason, detail=detail)
