"""Jobs: their order, states, progress and errors; pause, stop-and-keep and cancel; what survives the end of the process."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from th_jax.storage.database import durable_connection
from th_jax.studio.jobs import MAX_STARTS, Cancelled, Job, JobQueue, Kind, QueueFull, Request, State, UserJobs, Work

SOON = 20.0
"""Seconds within which a thread gets its turn on a busy machine."""

REQUEST = Request(Kind.VIDEO, "ada", {})

Do = Callable[[Job], tuple[Path | None, str]]


class Queue(UserJobs):
    """A queue whose jobs are functions of the test, by the name of the avatar."""

    def __init__(self, root: Path, *, started: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.functions: dict[str, Do] = {}
        self.ends: list[str] = []
        work = Work(
            lambda job: self.functions[job.request.avatar](job), lambda job: self.ends.append(job.request.avatar)
        )
        super().__init__(JobQueue(root / "jobs.sqlite", lambda job: work, clock=clock))
        if started:
            self.start()

    def start(self) -> None:
        self.queue.start()

    def close(self) -> None:
        assert self.queue.close(patience=SOON)

    def add(self, name: str, function: Do) -> Job:
        self.functions[name] = function
        return self.submit(Request(Kind.VIDEO, name, {"of": name}))


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path)
    yield queue
    queue.close()


def again(queue: Queue) -> Queue:
    """The queue that the next start of the studio opens."""
    opened = Queue(queue.root, started=False)
    opened.functions = queue.functions
    return opened


def test_jobs_run_one_after_another_and_say_how_they_ended(queue: Queue) -> None:
    order: list[int] = []

    def work(job: Job) -> tuple[Path | None, str]:
        order.append(job.number)
        job.stage("rendering")
        job.advance(3, 4)
        order.append(-job.number)
        return queue.root / "out.mp4", "4 frames"

    jobs = [queue.add("a", work) for _ in range(3)]
    assert all(job.wait(timeout=SOON) for job in jobs)
    assert order == [1, -1, 2, -2, 3, -3]
    assert [one.number for one in queue.progress()] == [3, 2, 1]
    last = queue.progress()[0]
    assert (last.state, last.result, last.words) == (State.FINISHED, queue.root / "out.mp4", "finished: 4 frames")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no face was found"), "failed: no face was found"),
        (OSError("the disk is full"), "failed: the disk is full"),
        (MemoryError(), "failed: out of memory: close other programs"),
        (ZeroDivisionError("by zero"), "failed: internal error: by zero"),
    ],
)
def test_an_error_is_the_jobs_message_and_the_queue_goes_on(queue: Queue, error: Exception, words: str) -> None:
    def work(_: Job) -> tuple[Path | None, str]:
        raise error

    assert queue.add("a", work).wait(timeout=SOON)
    assert queue.progress()[0].words == words
    good = queue.add("b", lambda job: (None, "done"))
    assert good.wait(timeout=SOON)
    assert good.progress().state is State.FINISHED


def test_a_waiting_job_that_is_canceled_never_runs_but_cleans_up(queue: Queue) -> None:
    begin, ran = threading.Event(), threading.Event()

    def first(job: Job) -> tuple[Path | None, str]:
        assert begin.wait(SOON)
        return None, ""

    def second(job: Job) -> tuple[Path | None, str]:
        ran.set()
        return None, ""

    queue.add("a", first)
    waiting = queue.add("b", second)
    waiting.cancel()
    assert queue.ends == ["b"]
    assert waiting.progress().words == "cancelled: nothing was written"
    begin.set()
    assert queue.add("c", lambda job: (None, "")).wait(timeout=SOON)
    assert queue.ends == ["b", "a", "c"]
    assert not ran.is_set()


def test_a_running_job_is_canceled_at_its_next_report(queue: Queue) -> None:
    reported, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        job.stage("rendering")
        reported.set()
        assert go_on.wait(SOON)
        job.advance(1, 2)
        return Path("out.mp4"), "done"

    job = queue.add("a", work)
    assert reported.wait(SOON)
    job.cancel()
    go_on.set()
    assert job.wait(timeout=SOON)
    found = job.progress()
    assert (found.state, found.result) == (State.CANCELLED, None)


def test_a_paused_job_waits_and_stop_and_keep_lets_it_end(queue: Queue) -> None:
    reported, passed = threading.Event(), threading.Event()
    go_on = threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        job.stage("fine-tuning")
        reported.set()
        assert go_on.wait(SOON)
        job.advance(10, 40)
        passed.set()
        return None, "kept" if job.keep_requested else "all"

    job = queue.add("a", work)
    assert reported.wait(SOON)
    job.pause()
    go_on.set()
    assert job.progress().state is State.PAUSED
    assert not passed.wait(0.05)
    job.stop_and_keep()
    assert job.wait(timeout=SOON)
    assert job.progress().words == "finished: kept"


def test_the_time_left_follows_from_the_stages_progress(tmp_path: Path) -> None:
    now = [0.0]
    queue = Queue(tmp_path, started=False, clock=lambda: now[0])

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
        job.losses = (2.0, 1.0)
        job.advance(20, 40)
        assert job.progress().seconds_left == pytest.approx(8.0)
        assert job.progress().losses == (2.0, 1.0)
        return None, "done"

    job = queue.add("a", work)
    assert job.progress().words == "waiting"
    queue.start()
    assert job.wait(timeout=SOON)
    assert job.progress().words == "finished: done"
    assert job.progress().seconds_left is None
    queue.close()


def test_work_after_a_cancel_raises(tmp_path: Path) -> None:
    queue = Queue(tmp_path, started=False)
    job = queue.add("a", lambda job: (None, ""))
    job.cancel()
    assert queue.ends == ["a"]
    with pytest.raises(Cancelled):
        job.stage("rendering")
    queue.close()


def test_ended_jobs_are_forgotten_and_too_many_waiting_ones_are_an_error(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MOST", 2)
    begin = threading.Event()

    def wait(job: Job) -> tuple[Path | None, str]:
        assert begin.wait(SOON)
        return None, ""

    first, second = queue.add("a", wait), queue.add("b", wait)
    with pytest.raises(QueueFull, match="2 jobs are waiting"):
        queue.add("c", wait)
    begin.set()
    assert first.wait(timeout=SOON)
    assert second.wait(timeout=SOON)
    queue.add("c", wait)
    assert [one.request.title for one in queue.progress()] == ["video of c", "video of b"]
    with durable_connection(queue.root / "jobs.sqlite") as connection:
        assert connection.execute("SELECT number FROM jobs ORDER BY number").fetchall() == [(2,), (3,)]


def test_the_next_start_knows_how_jobs_ended(queue: Queue) -> None:
    def fails(job: Job) -> tuple[Path | None, str]:
        raise ValueError("no face")

    for name, function in {"good": lambda job: (queue.root / "results" / "o.mp4", "4 frames"), "bad": fails}.items():
        assert queue.add(name, function).wait(timeout=SOON)
    before = queue.progress()
    queue.close()
    opened = again(queue)
    opened.start()
    assert opened.progress() == before
    assert [one.words for one in before] == ["failed: no face", "finished: 4 frames"]
    assert opened.add("good", lambda job: (None, "")).number == 3
    opened.close()


def test_the_end_of_the_studio_interrupts_a_job_and_the_next_start_continues_all(queue: Queue) -> None:
    reported, order = threading.Event(), list[str]()

    def first(job: Job) -> tuple[Path | None, str]:
        order.append(f"{job.number} {job.request.options['of']}")
        reported.set()
        while len(order) == 1:  # for the first time
            job.advance(1, 2)
        return None, "done"

    def second(job: Job) -> tuple[Path | None, str]:
        order.append(f"{job.number} {job.request.options['of']}")
        return None, "done"

    queue.add("a", first)
    queue.add("b", second)
    assert reported.wait(SOON)
    queue.close()
    assert (order, queue.ends) == (["1 a"], [])
    opened = again(queue)
    assert [one.words for one in opened.progress()] == ["waiting", "waiting"]
    assert [job.number for job in opened.unended()] == [1, 2]
    opened.start()
    assert opened.get(2).wait(timeout=SOON)
    assert (order, opened.ends) == (["1 a", "1 a", "2 b"], ["a", "b"])
    assert [one.words for one in opened.progress()] == ["finished: done"] * 2
    opened.close()


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from th_jax.studio.jobs import JobQueue, Kind, Request, UserJobs, Work

accepted = threading.Event()

def work(job):
    assert accepted.wait(60)
    with open(sys.argv[2], "a") as file:
        file.write(f"{job.number}\\n")
    if job.request.avatar == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return None, "done"

queue = JobQueue(Path(sys.argv[1]), lambda job: Work(work))
queue.start()
for name in ("a", "deadly", "b"):
    UserJobs(queue).submit(Request(Kind.VIDEO, name, {}))
accepted.set()
threading.Event().wait(60)
"""


def test_a_killed_process_neither_loses_nor_doubles_a_job(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "jobs.sqlite"), str(log)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert log.read_text().split() == ["1", "2"]
    queue = Queue(tmp_path, started=False)
    with durable_connection(tmp_path / "jobs.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def work(job: Job) -> tuple[Path | None, str]:
        log.write_text(f"{log.read_text()}{job.number}\n")
        return None, "done"

    queue.functions = dict.fromkeys(["a", "deadly", "b"], work)
    queue.start()
    for one in queue.progress():
        assert queue.get(one.number).wait(timeout=SOON)
    assert log.read_text().split() == ["1", "2", "2", "3"], "what was running is done again, what ended is not"
    assert {one.words for one in queue.progress()} == {"finished: done"}
    queue.close()


WORKER = """
import sys, threading, time
from pathlib import Path
from th_jax.studio.jobs import JobQueue, Work

def work(job):
    with open(sys.argv[2], "a") as file:
        file.write(f"{job.number} {sys.argv[3]}\\n")
    for step in range(5):
        job.advance(step, 5)
        time.sleep(0.01)
    while job.request.avatar == "stuck" and sys.argv[3] == "first":
        job.advance(1, 2)
        time.sleep(0.01)
    return None, sys.argv[3]

queue = JobQueue(Path(sys.argv[1]), lambda job: Work(work))
queue.start()
print("ready", flush=True)
sys.stdin.read()
queue.close()
"""


def test_workers_of_one_machine_share_the_jobs_and_one_that_is_killed_loses_none(tmp_path: Path) -> None:
    queue, log = Queue(tmp_path, started=False), tmp_path / "log"
    log.touch()

    def worker(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(tmp_path / "jobs.sqlite"), str(log), name]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        return started

    first = worker("first")
    stuck = queue.submit(Request(Kind.VIDEO, "stuck", {}))
    until = time.monotonic() + SOON
    while stuck.progress().state is not State.RUNNING and time.monotonic() < until:
        time.sleep(0.01)
    others = [worker("second"), worker("third")]
    jobs = [queue.submit(Request(Kind.VIDEO, "quick", {})) for _ in range(20)]
    assert all(job.wait(timeout=60.0) for job in jobs)
    first.kill()
    first.wait()
    assert stuck.wait(timeout=60.0), "another worker does it again"
    for process in others:
        process.communicate("", timeout=60)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(number) for number, _ in lines) == [1, *range(1, 22)], "only the interrupted one was done twice"
    assert next(name for number, name in lines if number == "1") == "first"
    assert {name for number, name in lines if number != "1"} == {"second", "third"}
    assert {one.state for one in queue.progress()} == {State.FINISHED}
    queue.close()
    assert list((tmp_path / "workers").iterdir()) == []


def test_users_see_their_own_jobs_and_take_turns(queue: Queue) -> None:
    begin, order = threading.Event(), list[str]()

    def work(job: Job) -> tuple[Path | None, str]:
        assert begin.wait(SOON)
        order.append(job.user)
        return None, "done"

    queue.functions["a"] = work
    ada, eve = UserJobs(queue.queue, user="ada"), UserJobs(queue.queue, user="eve")
    jobs = [users.submit(Request(Kind.VIDEO, "a", {})) for users in (ada, ada, ada, eve)]
    with pytest.raises(KeyError):
        eve.get(jobs[0].number)
    with pytest.raises(KeyError):
        eve.get(10**30)
    eve.delete([jobs[0].number])
    eve.forget("a")
    assert [job.number for job in ada.unended()] == [1, 2, 3]
    assert [job.number for job in eve.of("a")] == [4]
    assert queue.progress() == []
    begin.set()
    assert all(job.wait(timeout=SOON) for job in jobs)
    assert order == ["ada", "eve", "ada", "ada"], "many jobs of one user do not keep another waiting"
    assert [one.number for one in eve.progress()] == [4]


def test_a_database_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    with durable_connection(tmp_path / "jobs.sqlite") as connection:
        connection.execute(
            "CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, avatar TEXT NOT NULL, options "
            "TEXT NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '', result TEXT, starts INTEGER NOT NULL "
            "DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0)"
        )
        connection.execute("INSERT INTO jobs (kind, avatar, options, state) VALUES ('video', 'a', '{}', 'running')")
    queue = Queue(tmp_path, started=False)
    queue.functions["a"] = lambda job: (None, "done")
    queue.start()
    assert queue.get(1).wait(timeout=SOON)
    assert [one.words for one in queue.progress()] == ["finished: done"]
    queue.close()


def test_a_job_that_ends_the_process_each_time_is_given_up(queue: Queue) -> None:
    assert queue.add("a", lambda job: (None, "done")).wait(timeout=SOON)
    for starts, state in ((MAX_STARTS - 1, State.FINISHED), (MAX_STARTS, State.FAILED)):
        with durable_connection(queue.root / "jobs.sqlite") as connection:
            connection.execute(
                "UPDATE jobs SET state = 'running', owner = 'of a killed process', starts = ?", (starts,)
            )
        opened = again(queue)
        opened.start()
        assert opened.get(1).wait(timeout=SOON)
        assert opened.progress()[0].state is state
        opened.close()
    assert "the studio ended 3 times while this ran" in opened.progress()[0].words
    assert opened.ends == ["a"], "it cleans up"


def test_a_job_that_cannot_be_ended_holds_up_no_other(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queue.add("a", lambda job: (None, "done")).wait(timeout=SOON)
    with durable_connection(queue.root / "jobs.sqlite") as connection:
        connection.execute(
            "UPDATE jobs SET state = 'running', owner = 'of a killed process', starts = ?", (MAX_STARTS,)
        )
    opened = again(queue)
    work_of = opened.queue.work_of

    def refused(job: Job) -> Work:
        def on_end(job: Job) -> None:
            raise PermissionError("not yours")

        return work_of(job)._replace(on_end=on_end) if job.number == 1 else work_of(job)

    monkeypatch.setattr(opened.queue, "work_of", refused)
    opened.start()
    assert opened.add("b", lambda job: (None, "done")).wait(timeout=SOON)
    assert [one.words for one in opened.progress()][-1].endswith("it could not be ended: not yours")
    opened.close()


def test_a_job_that_was_canceled_before_a_crash_stays_canceled(queue: Queue) -> None:
    running, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> tuple[Path | None, str]:
        running.set()
        assert go_on.wait(SOON)
        return None, "done"

    job, waiting = queue.add("a", work), queue.add("b", work)
    assert running.wait(SOON)
    job.cancel()
    waiting.cancel()
    queue.queue._alive.release()  # as the system does when a process ends
    crashed = again(queue)
    crashed.start()
    assert crashed.get(job.number).wait(timeout=SOON)
    crashed.close()
    assert [one.words for one in crashed.progress()] == ["cancelled: nothing was written"] * 2
    assert (crashed.ends, queue.ends) == (["a"], ["b"])
    go_on.set()


def test_a_read_that_fails_costs_no_job(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its start nor its progress needs one."""
    read, failing = queue.queue.row, threading.Event()

    def row(number: int) -> sqlite3.Row:
        if failing.is_set():
            raise OSError("the jobs cannot be read: disk I/O error")
        return read(number)

    def work(job: Job) -> tuple[Path | None, str]:
        job.advance(1, 2)
        assert not job.keep_requested
        assert not job.stopped
        failing.clear()
        return None, "done"

    monkeypatch.setattr(queue.queue, "row", row)
    failing.set()
    job = queue.add("a", work)
    deadline = time.monotonic() + SOON
    while failing.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert job.wait(timeout=SOON)
    assert [one.words for one in queue.progress()] == ["finished: done"]


def test_deleting_an_avatar_deletes_its_ended_jobs(queue: Queue) -> None:
    for name in ("a", "b", "a"):
        assert queue.add(name, lambda job: (None, "")).wait(timeout=SOON)
    assert [job.number for job in queue.of("a")] == [1, 3]
    queue.forget("a")
    assert [one.number for one in queue.progress()] == [2]
    assert [one.number for one in again(queue).progress()] == [2]


@pytest.mark.parametrize("text", ["no database" * 100, None])
def test_a_damaged_database_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "jobs.sqlite"
    if text is not None:
        path.write_text(text)
    else:
        with durable_connection(path) as connection:
            connection.execute("CREATE TABLE jobs (number INTEGER)")
    with pytest.raises((ValueError, OSError), match=r"jobs\.sqlite"):
        Queue(tmp_path)
