"""Videos go through worker processes once; what ends a worker costs its video alone, and is tried again if it may help."""

import json
import os
import signal

import pytest

from data_prep.build import stage_videos as stage_videos_module
from data_prep.build.prepare_video import Settings
from data_prep.build.quality import Reason, Thresholds
from data_prep.build.sources import Layout, list_source
from data_prep.build.stage_videos import Job, prepare_job, stage_videos
from data_prep.build.staging import read_outcome, staged
from data_prep.workers import Died, InvalidAnswer
from tests.data_prep.clips_of_people import write_talk
from th_jax.data.schema import parse
from th_jax.media.isolation import ProcessLimits

SHORT = Settings(size=64, frames=3, gap=0.3, thresholds=Thresholds(frames=3))
ROOMY = ProcessLimits(memory=2**40)  # the process of the tests has TensorFlow and JAX in it


@pytest.fixture
def videos(tmp_path):
    source = tmp_path / "source"
    write_talk(source / "ada.mp4", 1)
    for name in ("bob.mp4", "cy.mp4"):
        (source / name).write_bytes(b"no video")
    return source, list_source(source, Layout.AUTO).videos


@pytest.fixture
def job(tmp_path, videos):
    source, (video, *_) = videos
    return Job(source, video, SHORT, staged(tmp_path / "staging", source, video, ""), ROOMY)


def test_a_job_leaves_its_outcome(job):
    prepare_job(job)
    outcome = read_outcome(job.target)
    assert outcome.lines == ()
    assert len(parse(outcome.record).frames) == 3


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (ZeroDivisionError("by zero"), Reason.FAILED, "ZeroDivisionError: by zero"),
        (MemoryError(), Reason.OVER_LIMITS, "it needs more than 1048576 MiB of memory, the limit"),
        (FileNotFoundError(2, "No such file"), Reason.UNDECODABLE, "it can no longer be read: No such file"),
    ],
)
def test_a_fault_costs_one_video(job, monkeypatch, error, reason, detail):
    def fail(*_):
        raise error

    monkeypatch.setattr(stage_videos_module, "prepare_video", fail)
    prepare_job(job)
    outcome = read_outcome(job.target)
    assert outcome.record is None
    (line,) = map(json.loads, outcome.lines)
    assert (line["level"], line["path"], line["reason"], line["detail"]) == ("video", "ada.mp4", reason, detail)


def stage(monkeypatch, videos, tmp_path, results):
    """Stage three videos with workers that answer what is said; the rounds, the failures and the outcomes."""
    source, listed = videos
    targets = [staged(tmp_path / "staging", source, video, "") for video in listed]
    rounds = []

    def answers(function, jobs, *, workers):
        rounds.append([job.video.video_id for job in jobs])
        for number, job in enumerate(jobs):
            result = results[job.video.video_id].pop(0)
            if result is None:
                function(job)
            yield number, result

    monkeypatch.setattr(stage_videos_module, "run_in_processes", answers)
    failed = stage_videos(source, listed, targets, settings=SHORT, workers=2, limits=ROOMY, progress=False)
    return rounds, failed, [read_outcome(target) for target in targets]


def test_deaths_are_tried_again_unless_time_was_up(videos, tmp_path, monkeypatch):
    results = {
        "ada.mp4": [Died(-signal.SIGKILL), None],
        "bob.mp4": [Died(-signal.SIGALRM)],
        "cy.mp4": [Died(-signal.SIGSEGV), Died(-signal.SIGSEGV)],
    }
    rounds, failed, outcomes = stage(monkeypatch, videos, tmp_path, results)
    assert rounds == [["ada.mp4", "bob.mp4", "cy.mp4"], ["ada.mp4", "cy.mp4"]]
    assert outcomes[0].record is not None
    assert '"reason": "over_limits"' in outcomes[1].lines[0]
    assert "it takes longer than 7200 s, the limit" in outcomes[1].lines[0]
    assert outcomes[2] is None, "a later run tries it again"
    assert [(number, drop.reason) for number, drop in failed.items()] == [(2, Reason.UNDECODABLE)]
    rounds, failed, _ = stage(monkeypatch, videos, tmp_path, {"cy.mp4": [None]})
    assert (rounds, failed) == ([["cy.mp4"]], {})


def test_a_claim_without_an_outcome_fails_the_video(videos, tmp_path, monkeypatch):
    results = {
        "ada.mp4": [InvalidAnswer("it is not JSON"), InvalidAnswer("it is not JSON")],
        "bob.mp4": ["an answer", "an answer"],
        "cy.mp4": [InvalidAnswer("it is not JSON"), None],
    }
    rounds, failed, outcomes = stage(monkeypatch, videos, tmp_path, results)
    assert len(rounds) == 2
    assert [drop.reason for drop in failed.values()] == [Reason.FAILED] * 2
    assert "invalid answer: it is not JSON" in failed[0].detail
    assert "left no valid outcome" in failed[1].detail
    assert [outcome is None for outcome in outcomes] == [True, True, False]


def test_real_workers_do_the_same(videos, tmp_path):
    source, listed = videos
    targets = [staged(tmp_path / "staging", source, video, "") for video in listed]
    assert stage_videos(source, listed, targets, settings=SHORT, workers=2, progress=False) == {}
    first = [(os.stat(target.path).st_ino, read_outcome(target)) for target in targets]
    assert [outcome.record is not None for _, outcome in first] == [True, False, False]
    assert stage_videos(source, listed, targets, settings=SHORT, workers=2, progress=False) == {}
    assert [(os.stat(target.path).st_ino, read_outcome(target)) for target in targets] == first


def test_a_video_that_takes_too_long_is_given_up(videos, tmp_path):
    source, listed = videos
    targets = [staged(tmp_path / "staging", source, video, "") for video in listed[:1]]
    limits = ProcessLimits(seconds=0.01)
    assert stage_videos(source, listed[:1], targets, settings=SHORT, workers=1, limits=limits, progress=False) == {}
    (line,) = map(json.loads, read_outcome(targets[0]).lines)
    assert (line["reason"], line["detail"]) == (Reason.OVER_LIMITS, "it takes longer than 0.01 s, the limit")
