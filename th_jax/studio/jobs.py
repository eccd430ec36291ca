"""Jobs of the studio: one at a time in a thread of their own, with stages, progress, pause, stop-and-keep and cancel.

What a job does is data in an SQLite database. A job that was accepted is on disk; one that a crash or the end of the studio
interrupted is done again at the next start, to the same files.
"""

import enum
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.signals import is_out_of_memory
from th_jax.storage.database import durable_connection

_EXPECTED = (ValueError, TypeError, OSError, ImportError)
"""Errors whose message is written for users, as on the command line."""

MAX_STARTS = 3
"""Number of times that a job is started; one that ends the process each time is given up."""

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, avatar TEXT NOT NULL, options TEXT NOT NULL,
    state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '', result TEXT, starts INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0
);
"""


class Kind(enum.StrEnum):
    """What a job makes."""

    AVATAR = "avatar"
    VIDEO = "video"
    BOTH = "avatar and video"


class State(enum.StrEnum):
    """State of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.FINISHED, State.FAILED, State.CANCELLED)


class Cancelled(Exception):
    """Raised within the work of a job that was canceled, or interrupted by the end of the studio."""


class QueueFull(ValueError):
    """Too many jobs are waiting."""


class Request(NamedTuple):
    """What a job does."""

    kind: Kind
    avatar: str
    """Name of the avatar."""
    options: Mapping[str, Any]
    """JSON values; paths are relative to the studio's folder."""

    @property
    def title(self) -> str:
        """The request in a few words."""
        return f"avatar {self.avatar}" if self.kind is Kind.AVATAR else f"{self.kind} of {self.avatar}"


class Progress(NamedTuple):
    """A job at one moment."""

    number: int
    request: Request
    state: State
    stage: str
    """What is being done, or how the job ended."""
    done: int
    total: int
    """Number of units of the stage; 0 if unknown."""
    seconds_left: float | None
    """Estimate for the rest of the stage; None if unknown."""
    losses: tuple[float, ...]
    result: Path | None

    @property
    def words(self) -> str:
        """The progress in one line."""
        parts = [f"{self.state}: {self.stage}" if self.stage else str(self.state)]
        if self.total and not self.state.ended:
            parts.append(f"{self.done} of {self.total}")
        if self.seconds_left is not None and not self.state.ended:
            parts.append(f"about {max(1, round(self.seconds_left))} s left")
        return ", ".join(parts)


class Job:
    """A job; its work calls `stage` and `advance`, and the page the other methods."""

    def __init__(
        self,
        number: int,
        request: Request,
        *,
        record: Callable[["Job"], None] = lambda job: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a waiting job.

        Args:
            number: its number.
            request: what it does.
            record: called when it was started, canceled or ended; stores its state.
            clock: time in seconds.
        """
        self.number, self.request = number, request
        self._record = record
        self._clock = clock
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._running.set()
        self._ended = threading.Event()
        self._cancelled = self._interrupted = False
        self._keep = False
        self.starts = 0
        self._state, self._stage = State.WAITING, ""
        self._done, self._total, self._started = 0, 0, 0.0
        self._first = 0
        self.losses: tuple[float, ...] = ()
        """Losses so far."""
        self._result: Path | None = None

    def stage(self, text: str, *, done: int = 0) -> None:
        """Begin a stage.

        Args:
            text: what is being done.
            done: number of units that were done before it was reported.

        Raises:
            Cancelled: if the job was canceled.
        """
        self._go_on()
        with self._lock:
            self._stage, self._done, self._total, self._started = text, done, 0, self._clock()
            self._first = done

    def advance(self, done: int, total: int) -> None:
        """Report progress within the stage; waits while the job is paused.

        Raises:
            Cancelled: if the job was canceled.
        """
        self._go_on()
        with self._lock:
            self._done, self._total = done, total

    def _go_on(self) -> None:
        while not self._running.wait(timeout=1.0) and not self.stopped:
            pass
        if self.stopped:
            raise Cancelled

    @property
    def keep_requested(self) -> bool:
        """Whether the work should end early and keep what it has."""
        return self._keep

    @property
    def cancelled(self) -> bool:
        """Whether the job was canceled."""
        return self._cancelled

    @property
    def stopped(self) -> bool:
        """Whether the work must end: the job was canceled, or the studio ends."""
        return self._cancelled or self._interrupted

    def pause(self) -> None:
        """Pause at the next report of progress."""
        with self._lock:
            if self._state is State.RUNNING:
                self._state = State.PAUSED
                self._running.clear()

    def resume(self) -> None:
        """Continue a paused job."""
        with self._lock:
            if self._state is State.PAUSED:
                self._state = State.RUNNING
        self._running.set()

    def stop_and_keep(self) -> None:
        """Ask the work to end early and keep what it has."""
        self._keep = True
        self.resume()

    def cancel(self) -> None:
        """Cancel the job: nothing that it made is kept."""
        with self._lock:
            if self._state.ended:
                return
            self._cancelled = True
            if self._state is State.WAITING:
                self._finish(State.CANCELLED, NOTHING)
            else:
                self._record(self)
        self._running.set()

    def interrupt(self) -> None:
        """End the work without an end of the job, which is done at the next start of the studio."""
        self._interrupted = True
        self._running.set()

    def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until the job has ended, and return whether it has."""
        return self._ended.wait(timeout)

    def progress(self) -> Progress:
        """Return the job as it is now."""
        with self._lock:
            left = None
            if self._state is State.RUNNING and self._first < self._done < self._total:
                each = (self._clock() - self._started) / (self._done - self._first)
                left = each * (self._total - self._done)
            return Progress(
                self.number, self.request, self._state, self._stage, self._done, self._total, left,
                self.losses, self._result,
            )  # fmt: skip

    def run(self, work: "Work") -> None:
        """Do the work; errors become the job's message."""
        with self._lock:
            started = not self._state.ended and not self._interrupted
            if started:
                self._state, self._started, self.starts = State.RUNNING, self._clock(), self.starts + 1
                self._record(self)
        if not started:
            if self._state.ended:
                work.on_end(self)
            return
        state, result = State.FAILED, None
        try:
            result, text = work.run(self)
        except Cancelled:
            if not self._cancelled:
                with self._lock:
                    self._state, self._stage, self.starts = State.WAITING, "", 0
                    self._record(self)
                return
            state, text = State.CANCELLED, NOTHING
        except _EXPECTED as error:
            text = str(error)
        except Exception as error:
            text = "out of memory: close other programs" if is_out_of_memory(error) else f"internal error: {error}"
            logging.getLogger(__name__).exception("job %d, %s", self.number, self.request.title)
        else:
            state = State.FINISHED
        work.on_end(self)
        with self._lock:
            self._result = result
            self._finish(state, text)

    def stored(self) -> tuple[State, str, Path | None, bool]:
        """Return state, stage, result and whether the job was canceled, for `record`, which is called under the lock."""
        return self._state, self._stage if self._state.ended else "", self._result, self._cancelled

    def take_over(self, state: State, stage: str, result: Path | None, *, starts: int, cancelled: bool) -> None:
        """Take over what the database knows of a job of an earlier start."""
        self._stage, self._result, self.starts, self._cancelled = stage, result, starts, cancelled
        if state.ended:
            self._state = state
            self._ended.set()
        elif cancelled:
            self._finish(State.CANCELLED, NOTHING)
        elif starts >= MAX_STARTS:
            self._finish(State.FAILED, f"the studio ended {starts} times while this ran: it is not tried again")

    def _finish(self, state: State, text: str) -> None:
        self._state, self._stage = state, text
        self._record(self)
        self._ended.set()


NOTHING = "nothing was written"


class Work(NamedTuple):
    """How jobs of one kind are done. It may be done twice, if the process ends before the job's end is stored."""

    run: Callable[[Job], tuple[Path | None, str]]
    """Called with the job; returns the result's path, if any, and a sentence about it."""
    on_end: Callable[[Job], None] = lambda job: None
    """Called after the work, or instead of it if the job was canceled while it waited."""


class JobQueue:
    """A queue whose jobs run one after another, in order of submission."""

    MOST = 100
    """Number of jobs kept; the oldest ended ones are forgotten."""

    def __init__(self, path: Path, works: Mapping[Kind, Work]) -> None:
        """Open or create the database, and read its jobs; `start` continues them.

        Args:
            path: file of the database; results are stored relative to its folder.
            works: how jobs are done.

        Raises:
            ValueError: if the file is no database of jobs.
            OSError: if it cannot be opened.
        """
        self._path, self._works = path, works
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="studio")
        self._lock = threading.Lock()
        self._last: Future[None] | None = None
        self._jobs: dict[int, Job] = {}
        self._left: list[Job] = []
        query = (
            "SELECT number, kind, avatar, options, state, stage, result, starts, cancelled FROM jobs ORDER BY number"
        )
        try:
            with durable_connection(path) as connection:
                connection.executescript(_TABLE)
                for row in connection.execute(query).fetchall():
                    self._restore(*row)
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot open {path}: {error}") from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is no database of this version's jobs: move it away; {error}") from error

    def _restore(self, number: int, kind: str, avatar: str, options: str, state: str, *stored: Any) -> None:
        """Take over a row of the database."""
        job = self._jobs[number] = Job(number, Request(Kind(kind), avatar, json.loads(options)), record=self._record)
        if not State(state).ended:
            self._left.append(job)
        stage, result, starts, cancelled = stored
        result = None if result is None else self._path.parent / result
        job.take_over(State(state), stage, result, starts=starts, cancelled=bool(cancelled))

    def start(self) -> None:
        """Continue the jobs that an earlier start did not end."""
        for job in self._left:
            self._last = self._thread.submit(job.run, self._works[job.request.kind])

    def submit(self, request: Request) -> Job:
        """Add a job, which is on disk when this returns.

        Raises:
            QueueFull: if too many jobs are waiting.
            OSError: if it cannot be stored.
        """
        with self._lock:
            ended = [number for number, job in self._jobs.items() if job.progress().state.ended]
            if len(self._jobs) - len(ended) >= self.MOST:
                raise QueueFull(f"{self.MOST} jobs are waiting: try again when some have ended")
            row = (request.kind, request.avatar, json.dumps(request.options), State.WAITING)
            query = "INSERT INTO jobs (kind, avatar, options, state) VALUES (?, ?, ?, ?) RETURNING number"
            try:
                self._delete(ended[: max(0, len(self._jobs) - self.MOST + 1)])
                with durable_connection(self._path) as connection:
                    ((number,),) = connection.execute(query, row).fetchall()
            except sqlite3.Error as error:
                raise OSError(f"the job could not be stored: {error}") from error
            job = self._jobs[number] = Job(number, request, record=self._record)
        self._last = self._thread.submit(job.run, self._works[request.kind])
        return job

    def get(self, number: int) -> Job:
        """Return a job.

        Raises:
            KeyError: if it is unknown.
        """
        return self._jobs[number]

    def unended(self) -> list[Job]:
        """Return the jobs that an earlier start did not end."""
        return list(self._left)

    def of(self, avatar: str) -> list[Job]:
        """Return the jobs for an avatar."""
        with self._lock:
            return [job for job in self._jobs.values() if job.request.avatar == avatar]

    def forget(self, avatar: str) -> None:
        """Delete all ended jobs for an avatar."""
        numbers = [job.number for job in self.of(avatar) if job.progress().state.ended]
        with self._lock:
            self._delete(numbers)

    def progress(self) -> list[Progress]:
        """Return all jobs as they are now, the newest first."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [job.progress() for job in reversed(jobs)]

    def close(self, *, patience: float = 10.0) -> bool:
        """Interrupt the running job; what is not ended is continued by the next queue.

        Args:
            patience: seconds to wait for it.

        Returns:
            Whether it has ended.
        """
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.interrupt()
        ended = self._last is None or not wait([self._last], timeout=patience).not_done
        self._thread.shutdown(wait=ended, cancel_futures=True)
        return ended

    def _delete(self, numbers: list[int]) -> None:
        with durable_connection(self._path) as connection:
            connection.executemany("DELETE FROM jobs WHERE number = ?", [(number,) for number in numbers])
        for number in numbers:
            del self._jobs[number]

    def _record(self, job: Job) -> None:
        state, stage, result, cancelled = job.stored()
        kept = None if result is None else result.relative_to(self._path.parent).as_posix()
        row = (state, stage, kept, job.starts, cancelled, job.number)
        query = "UPDATE jobs SET state = ?, stage = ?, result = ?, starts = ?, cancelled = ? WHERE number = ?"
        try:
            with durable_connection(self._path) as connection:
                connection.execute(query, row)
        except sqlite3.Error as error:  # the next start does the job again
            logging.getLogger(__name__).error("the state of job %d could not be stored: %s", job.number, error)
