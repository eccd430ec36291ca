"""Jobs: their order, states, progress and errors; pause, stop-and-keep and cancel."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from th_jax.studio.jobs import Cancelled, Job, JobQueue, State

SOON = 20.0
"""Seconds within which a thread gets its turn on a busy machine."""


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    queue = JobQueue()
    yield queue
    queue.close()


def nothing() -> None:
    """Ends a job that needs no cleanup."""


def test_jobs_run_one_after_another_and_say_how_they_ended(queue: JobQueue) -> None:
    order: list[int] = []

    def work(job: Job) -> tuple[Path | None, str]:
        order.append(job.number)
        job.stage("rendering")
        job.advance(3, 4)
        order.append(-job.number)
        return Path("out.mp4"), "4 frames"

    jobs = [queue.submit("video", work) for _ in range(3)]
    assert all(job.wait(timeout=SOON) for job in jobs)
    assert order == [1, -1, 2, -2, 3, -3]
    assert [one.number for one in queue.progress()] == [3, 2, 1]
    last = queue.progress()[0]
    assert (last.state, last.result, last.words) == (State.FINISHED, Path("out.mp4"), "finished: 4 frames")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no face was found"), "failed: no face was found"),
        (OSError("the disk is full"), "failed: the disk is full"),
        (MemoryError(), "failed: out of memory: close other programs"),
        (ZeroDivisionError("by zero"), "failed: internal error: by zero"),
    ],
)
def test_an_error_is_the_jobs_message_and_the_queue_goes_on(queue: JobQueue, error: Exception, words: str) -> None:
    def work(_: Job) -> tuple[Path | None, str]:
        raise error

    assert queue.submit("a", work).wait(timeout=SOON)
    assert queue.progress()[0].words == words
    good = queue.submit("b", lambda job: (None, "done"))
    assert good.wait(timeout=SOON)
    assert good.progress().state is State.FINISHED


def test_a_waiting_job_that_is_canceled_never_runs_but_cleans_up(queue: JobQueue) -> None:
    begin, ended, ran = threading.Event(), threading.Event(), threading.Event()

    def first(job: Job) -> tuple[Path | None, str]:
        assert begin.wait(SOON)
        return None, ""

    def second(job: Job) -> tuple[Path | None, str]:
        ran.set()
        return None, ""

    queue.submit("a", first)
    waiting = queue.submit("b", second, on_end=ended.set)
    waiting.cancel()
    assert waiting.progress().words == "cancelled: nothing was written"
    begin.set()
    assert ended.wait(SOON)
    assert not ran.is_set()


def test_a_running_job_is_canceled_at_its_next_report(queue: JobQueue) -> None:
    reported, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        job.stage("rendering")
        reported.set()
        assert go_on.wait(SOON)
        job.advance(1, 2)
        return Path("out.mp4"), "done"

    job = queue.submit("a", work)
    assert reported.wait(SOON)
    job.cancel()
    go_on.set()
    assert job.wait(timeout=SOON)
    found = job.progress()
    assert (found.state, found.result) == (State.CANCELLED, None)


def test_a_paused_job_waits_and_stop_and_keep_lets_it_end(queue: JobQueue) -> None:
    reported, passed = threading.Event(), threading.Event()
    go_on = threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        job.stage("fine-tuning")
        reported.set()
        assert go_on.wait(SOON)
        job.advance(10, 40)
        passed.set()
        return None, "kept" if job.keep_requested else "all"

    job = queue.submit("a", work)
    assert reported.wait(SOON)
    job.pause()
    go_on.set()
    assert job.progress().state is State.PAUSED
    assert not passed.wait(0.05)
    job.stop_and_keep()
    assert job.wait(timeout=SOON)
    assert job.progress().words == "finished: kept"


def test_the_time_left_follows_from_the_stages_progress() -> None:
    now = [0.0]
    job = Job(1, "video", clock=lambda: now[0])
    assert job.progress().words == "waiting"

    def work(job: Job) -> tuple[Path | None, str]:
        now[0] = 100.0
        job.stage("rendering")
        assert job.progress().seconds_left is None
        now[0] = 106.0
        job.advance(3, 12)
        assert job.progress().seconds_left == pytest.approx(18.0)
        assert job.progress().words == "running: rendering, 3 of 12, about 18 s left"
        job.stage("fine-tuning", done=10)  # reported after its first ten steps
        job.advance(10, 40)
        assert job.progress().seconds_left is None
        now[0] = 110.0
        job.advance(20, 40)
        assert job.progress().seconds_left == pytest.approx(8.0)
        job.show(losses=(2.0, 1.0), preview=Path("a.png"))
        job.show()
        assert (job.progress().losses, job.progress().preview) == ((2.0, 1.0), Path("a.png"))
        return None, "done"

    job.run(work, nothing)
    assert job.progress().seconds_left is None


def test_work_after_a_cancel_raises() -> None:
    job = Job(1, "video")
    job.cancel()
    with pytest.raises(Cancelled):
        job.stage("rendering")


def test_ended_jobs_are_forgotten_and_too_many_waiting_ones_are_an_error(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST", 2)
    begin = threading.Event()

    def wait(job: Job) -> tuple[Path | None, str]:
        assert begin.wait(SOON)
        return None, ""

    first, second = queue.submit("a", wait), queue.submit("b", wait)
    with pytest.raises(ValueError, match="2 jobs are waiting"):
        queue.submit("c", wait)
    begin.set()
    assert first.wait(timeout=SOON)
    assert second.wait(timeout=SOON)
    queue.submit("c", wait)
    assert [one.title for one in queue.progress()] == ["c", "b"]
