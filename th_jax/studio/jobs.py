"""Jobs of the studio: one at a time in each worker, with stages, progress, pause, stop-and-keep and cancel.

What a job does and how far it is are rows of an SQLite database, which any number of processes of one machine share. A job
that was accepted is on disk. A worker holds the lock of a file as long as its process lives; jobs of a worker whose lock is
free were interrupted, and are done again, to the same files.
"""

import enum
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from th_jax.signals import is_out_of_memory
from th_jax.storage.database import durable_connection
from th_jax.studio.limits import TooMany

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

_ADDED = {
    "user": "ALTER TABLE jobs ADD COLUMN user TEXT NOT NULL DEFAULT ''",
    "owner": "ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    "keep": "ALTER TABLE jobs ADD COLUMN keep INTEGER NOT NULL DEFAULT 0",
    "done": "ALTER TABLE jobs ADD COLUMN done INTEGER NOT NULL DEFAULT 0",
    "total": "ALTER TABLE jobs ADD COLUMN total INTEGER NOT NULL DEFAULT 0",
    "seconds_left": "ALTER TABLE jobs ADD COLUMN seconds_left REAL",
    "losses": "ALTER TABLE jobs ADD COLUMN losses TEXT NOT NULL DEFAULT '[]'",
    "begun": "ALTER TABLE jobs ADD COLUMN begun REAL NOT NULL DEFAULT 0",
    "ended": "ALTER TABLE jobs ADD COLUMN ended REAL NOT NULL DEFAULT 0",
}
"""Columns that databases of earlier versions lack."""

# The user whose last job began longest ago comes first, so that many jobs of one user do not keep the others waiting.
_CLAIM = """
UPDATE jobs SET state = 'running', owner = ?, starts = starts + 1, stage = '', begun = ? WHERE number = (
    SELECT number FROM jobs WHERE state = 'waiting'
    ORDER BY (SELECT max(other.begun) FROM jobs AS other WHERE other.user = jobs.user), number LIMIT 1
) RETURNING *
"""

_AGAIN = """
UPDATE jobs SET state = 'waiting', stage = '', done = 0, total = 0, seconds_left = NULL, owner = '', starts = ?
WHERE number = ?
"""

_POLL_SECONDS = 0.25
"""Time between two looks for jobs that another process added."""


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


class QueueFull(TooMany):
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
    """A job of the database; its work calls `stage` and `advance`, and the page the other methods."""

    def __init__(self, queue: "JobQueue", number: int, request: Request, *, user: str = "") -> None:
        """Refer to a row of the database.

        Args:
            queue: the queue.
            number: its number.
            request: what it does.
            user: whose it is.
        """
        self.number, self.request, self.user = number, request, user
        self._queue = queue
        self._interrupted = threading.Event()
        self.current, self._started, self._first = "", queue.clock(), 0
        """The stage, when it began, and the units done then."""
        self.losses: tuple[float, ...] = ()
        """Losses so far, which the next report stores."""

    def stage(self, text: str, *, done: int = 0) -> None:
        """Begin a stage.

        Args:
            text: what is being done.
            done: number of units that were done before it was reported.

        Raises:
            Cancelled: if the job was canceled.
        """
        self.current, self._started, self._first = text, self._queue.clock(), done
        self._report(done, 0, None)

    def advance(self, done: int, total: int) -> None:
        """Report progress within the stage; waits while the job is paused.

        Raises:
            Cancelled: if the job was canceled.
        """
        left = None
        if self._first < done < total:
            left = (self._queue.clock() - self._started) / (done - self._first) * (total - done)
        self._report(done, total, left)

    def _report(self, done: int, total: int, left: float | None) -> None:
        query = "UPDATE jobs SET stage = ?, done = ?, total = ?, seconds_left = ?, losses = ? WHERE number = ?"
        try:
            self._queue.change(
                query, self.current, done, total, left, json.dumps(self.losses), self.number, flush=False
            )
        except OSError as error:  # a job does not fail for its progress
            logging.getLogger(__name__).error("the progress of job %d could not be stored: %s", self.number, error)
        while not self._interrupted.is_set():
            row = self._row()
            if row is None:
                return
            if row["cancelled"]:
                raise Cancelled
            if row["state"] != State.PAUSED:
                return
            self._interrupted.wait(_POLL_SECONDS)
        raise Cancelled

    def _row(self) -> sqlite3.Row | None:
        """Read the job's row; None if it cannot be read now: the work goes on, and asks again."""
        try:
            return self._queue.row(self.number)
        except OSError as error:
            logging.getLogger(__name__).error("job %d could not be read: %s", self.number, error)
            return None

    def _asked(self, column: str) -> bool:
        row = self._row()
        return row is not None and bool(row[column])

    @property
    def keep_requested(self) -> bool:
        """Whether the work should end early and keep what it has."""
        return self._asked("keep")

    @property
    def cancelled(self) -> bool:
        """Whether the job was canceled."""
        return self._asked("cancelled")

    @property
    def stopped(self) -> bool:
        """Whether the work must end: the job was canceled, or the studio ends."""
        return self._interrupted.is_set() or self.cancelled

    def pause(self) -> None:
        """Pause at the next report of progress."""
        self._queue.change("UPDATE jobs SET state = 'paused' WHERE number = ? AND state = 'running'", self.number)

    def resume(self) -> None:
        """Continue a paused job."""
        self._queue.change("UPDATE jobs SET state = 'running' WHERE number = ? AND state = 'paused'", self.number)

    def stop_and_keep(self) -> None:
        """Ask the work to end early and keep what it has."""
        self._queue.change("UPDATE jobs SET keep = 1 WHERE number = ?", self.number)
        self.resume()

    def cancel(self) -> None:
        """Cancel the job: nothing that it made is kept, unless its work has just ended."""
        taken = """
            UPDATE jobs SET cancelled = 1, state = 'running', owner = ? WHERE number = ? AND state = 'waiting' RETURNING 1
        """
        if self._queue.change(taken, self._queue.owner, self.number):  # no worker can take it any more
            self._queue.work_of(self).on_end(self)
            self.finish(State.CANCELLED, NOTHING)
        else:
            running = "UPDATE jobs SET cancelled = 1 WHERE number = ? AND state IN ('running', 'paused')"
            self._queue.change(running, self.number)

    def interrupt(self) -> None:
        """End the work without an end of the job, which is done at the next start of the studio."""
        self._interrupted.set()

    def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until the job has ended, and return whether it has."""
        until = None if timeout is None else time.monotonic() + timeout
        while not (ended := self.progress().state.ended) and (until is None or time.monotonic() < until):
            time.sleep(0.01)
        return ended

    def progress(self) -> Progress:
        """Return the job as it is now.

        Raises:
            KeyError: if it was deleted.
        """
        return self._queue.progress_of(self._queue.row(self.number))

    def run(self, work: "Work") -> None:
        """Do the work of a job that was claimed; errors become the job's message."""
        state, result = State.FAILED, None
        try:
            result, text = work.run(self)
        except Cancelled:
            if not self.cancelled:
                self._queue.change(_AGAIN, 0, self.number)
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
        self.finish(state, text, result=result)

    def finish(self, state: State, text: str, *, result: Path | None = None) -> None:
        """Store how the job ended.

        Args:
            state: how it ended.
            text: a sentence about it.
            result: file that it made, within the folder of the database.
        """
        kept = None if result is None else result.relative_to(self._queue.path.parent).as_posix()
        query = "UPDATE jobs SET state = ?, stage = ?, result = ?, owner = '', ended = ? WHERE number = ?"
        try:
            self._queue.change(query, state, text, kept, time.time(), self.number)
        except OSError as error:  # the next start does the job again
            logging.getLogger(__name__).error("the state of job %d could not be stored: %s", self.number, error)


NOTHING = "nothing was written"


class Work(NamedTuple):
    """How jobs of one kind are done. It may be done twice, if the process ends before the job's end is stored."""

    run: Callable[[Job], tuple[Path | None, str]]
    """Called with the job; returns the result's path, if any, and a sentence about it."""
    on_end: Callable[[Job], None] = lambda job: None
    """Called after the work, or instead of it if the job was canceled while it waited."""


class JobQueue:
    """A database of jobs, and the threads of this process that do them, in order of submission."""

    def __init__(
        self, path: Path, work_of: Callable[[Job], Work], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open or create the database; `start` begins to work.

        Args:
            path: file of the database; results are stored relative to its folder.
            work_of: how a job is done.
            clock: time in seconds.

        Raises:
            ValueError: if the file is no database of jobs.
            OSError: if it cannot be opened.
        """
        self.path, self.work_of, self.clock = path, work_of, clock
        self.owner = secrets.token_hex(8)
        """Name of this process among the workers."""
        self._locks = path.parent / "workers"
        self._closing, self._added = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._running: dict[int, Job] = {}
        self._threads: list[threading.Thread] = []
        self._readers: list[sqlite3.Connection] = []
        """Connections that no thread uses at the moment: to open one takes longer than to read a row."""
        try:
            self._locks.mkdir(exist_ok=True)
            self._alive = FileLock(self._locks / self.owner)
            self._alive.acquire()
            with durable_connection(path) as connection:
                connection.executescript(_TABLE)
                connection.execute("BEGIN IMMEDIATE")
                columns = {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
                for column in _ADDED.keys() - columns:
                    connection.execute(_ADDED[column])
                connection.execute("COMMIT")
                connection.execute(
                    "SELECT number, kind, avatar, options, state, stage, result, starts, cancelled FROM jobs"
                )
            for row in self.rows("SELECT * FROM jobs"):
                self.progress_of(row)
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot open {path}: {error}") from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is no database of this version's jobs: move it away; {error}") from error

    def start(self, *, workers: int = 1) -> None:
        """Begin to do jobs, first those that an earlier process did not end.

        Args:
            workers: number of threads.
        """
        for number in range(workers):
            thread = threading.Thread(target=self._work, name=f"studio-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._added.clear()
            try:
                self.recover()
                job = self._claim()
            except OSError as error:
                logging.getLogger(__name__).error("the studio's jobs cannot be read: %s", error)
                job = None
            if job is None:
                self._added.wait(_POLL_SECONDS)
                continue
            try:
                job.run(self.work_of(job))
            except Exception as error:  # outside of the work, such as a folder that cannot be opened
                logging.getLogger(__name__).exception("job %d", job.number)
                job.finish(State.FAILED, f"internal error: {error}")
            finally:
                with self._lock:
                    del self._running[job.number]

    def _claim(self) -> Job | None:
        """Take the next waiting job, which no other worker can take then."""
        with self._lock:
            if self._closing.is_set():
                return None
            if not self.rows("SELECT 1 FROM jobs WHERE state = 'waiting' LIMIT 1"):  # no writer is held up to see this
                return None
            claimed = self.change(_CLAIM, self.owner, time.time())
            if not claimed:
                return None
            # If the claimed row had to be read again and that failed, the job would stay "running" without a worker.
            job = self._running[claimed[0]["number"]] = self.job_of(claimed[0])
            return job

    def recover(self) -> None:
        """Let jobs of workers whose process ended wait again, or give them up."""
        for (owner,) in self.rows("SELECT DISTINCT owner FROM jobs WHERE state IN ('running', 'paused')"):
            if owner == self.owner:
                continue
            lock = FileLock(self._locks / (owner or "unknown"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                query = "SELECT * FROM jobs WHERE owner = ? AND state IN ('running', 'paused')"
                for row in self.rows(query, owner):
                    try:
                        self._give_back(row)
                    except Exception as error:  # one job's files must not hold up the jobs of all
                        logging.getLogger(__name__).exception("job %d", row["number"])
                        self.job_of(row).finish(State.FAILED, f"it could not be ended: {error}")
                (self._locks / (owner or "unknown")).unlink(missing_ok=True)
            finally:
                lock.release()

    def _give_back(self, row: sqlite3.Row) -> None:
        job, starts = self.job_of(row), row["starts"]
        if row["cancelled"] or starts >= MAX_STARTS:
            self.work_of(job).on_end(job)
            given_up = f"the studio ended {starts} times while this ran: it is not tried again"
            job.finish(*((State.CANCELLED, NOTHING) if row["cancelled"] else (State.FAILED, given_up)))
        else:
            self.change(_AGAIN, starts, job.number)

    def added(self) -> None:
        """Wake the workers of this process: there is a new job."""
        self._added.set()

    def close(self, *, patience: float = 10.0) -> bool:
        """Interrupt the running jobs; what is not ended is continued by the next queue.

        Args:
            patience: seconds to wait for them.

        Returns:
            Whether they have ended.
        """
        self._closing.set()
        self._added.set()
        with self._lock:
            for job in self._running.values():
                job.interrupt()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        while self._readers:
            self._readers.pop().close()
        if ended:  # or another process would do the job at the same time
            self._alive.release()
            (self._locks / self.owner).unlink(missing_ok=True)
        return ended

    def change(self, query: str, *values: Any, flush: bool = True) -> list[sqlite3.Row]:
        """Execute a statement, which is on disk when this returns, and return its rows.

        Raises:
            OSError: if it cannot be stored.
        """
        try:
            with durable_connection(self.path, flush=flush) as connection:
                connection.row_factory = sqlite3.Row
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"the job could not be stored: {error}") from error

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query.

        Raises:
            OSError: if the database cannot be read.
        """
        try:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                connection.row_factory = sqlite3.Row
            found = connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"the jobs cannot be read: {error}") from error
        self._readers.append(connection)
        return found

    def row(self, number: int) -> sqlite3.Row:
        """Return a job's row.

        Raises:
            KeyError: if there is none.
        """
        found = self.rows("SELECT * FROM jobs WHERE number = ?", number)
        if not found:
            raise KeyError(number)
        return found[0]

    def job_of(self, row: sqlite3.Row) -> Job:
        """Return the job of a row."""
        return Job(self, row["number"], _request_of(row), user=row["user"])

    def progress_of(self, row: sqlite3.Row) -> Progress:
        """Return the progress that a row describes.

        Raises:
            ValueError, TypeError: if it is no row of a job.
        """
        state = State(row["state"])
        running = state is State.RUNNING
        return Progress(
            row["number"], _request_of(row), state, row["stage"], row["done"], row["total"],
            row["seconds_left"] if running else None, tuple(json.loads(row["losses"])),
            None if row["result"] is None else self.path.parent / row["result"],
        )  # fmt: skip

    def users(self) -> set[str]:
        """Return the users who have jobs."""
        return {user for (user,) in self.rows("SELECT DISTINCT user FROM jobs")}


def _request_of(row: sqlite3.Row) -> Request:
    return Request(Kind(row["kind"]), row["avatar"], json.loads(row["options"]))


class UserJobs:
    """The jobs of one user, and no others."""

    MOST = 100
    """Number of jobs kept; the oldest ended ones are forgotten."""

    def __init__(self, queue: JobQueue, *, user: str = "") -> None:
        """Look at a queue for one user.

        Args:
            queue: the jobs of all users.
            user: name of the user; "" where there are no others.
        """
        self.queue, self._user = queue, user
        self._lock = threading.Lock()

    def submit(self, request: Request) -> Job:
        """Add a job, which is on disk when this returns.

        Raises:
            QueueFull: if too many jobs are waiting.
            OSError: if it cannot be stored.
        """
        self.check()
        with self._lock:
            surplus = len(self.progress()) - self.MOST + 1
            if surplus > 0:
                ended = [one.number for one in reversed(self.progress()) if one.state.ended]
                self.delete(ended[:surplus])
            query = "INSERT INTO jobs (kind, avatar, options, state, user) VALUES (?, ?, ?, ?, ?) RETURNING number"
            options = json.dumps(request.options)
            row = (request.kind, request.avatar, options, State.WAITING, self._user)
            ((number,),) = self.queue.change(query, *row)
        self.queue.added()
        return Job(self.queue, number, request, user=self._user)

    def check(self) -> None:
        """Check that another job may be added.

        Raises:
            QueueFull: if too many jobs are waiting.
        """
        if len(self.unended()) >= self.MOST:
            raise QueueFull(f"{self.MOST} jobs are waiting: try again when some have ended")

    def get(self, number: int) -> Job:
        """Return a job.

        Raises:
            KeyError: if it is unknown, or another user's.
        """
        return self.queue.job_of(self._row(number))

    def progress_of(self, number: int) -> Progress:
        """Return a job as it is now.

        Raises:
            KeyError: if it is unknown, or another user's.
        """
        return self.queue.progress_of(self._row(number))

    def _row(self, number: int) -> sqlite3.Row:
        if number.bit_length() > 63 or (row := self.queue.row(number))["user"] != self._user:
            raise KeyError(number)
        return row

    def unended(self) -> list[Job]:
        """Return the jobs that have not ended."""
        query = "SELECT * FROM jobs WHERE user = ? AND state IN ('waiting', 'running', 'paused') ORDER BY number"
        return [self.queue.job_of(row) for row in self.queue.rows(query, self._user)]

    def ended(self, *, before: float) -> list[Job]:
        """Return the jobs that ended before a time.

        Args:
            before: time in seconds since 1970.
        """
        query = "SELECT * FROM jobs WHERE user = ? AND state IN ('finished', 'failed', 'cancelled') AND ended < ?"
        return [self.queue.job_of(row) for row in self.queue.rows(query, self._user, before)]

    def of(self, avatar: str) -> list[Job]:
        """Return the jobs for an avatar."""
        query = "SELECT * FROM jobs WHERE user = ? AND avatar = ? ORDER BY number"
        return [self.queue.job_of(row) for row in self.queue.rows(query, self._user, avatar)]

    def forget(self, avatar: str) -> None:
        """Delete all ended jobs for an avatar."""
        self.delete([job.number for job in self.of(avatar) if job.progress().state.ended])

    def delete(self, numbers: list[int]) -> None:
        """Delete rows of ended jobs."""
        for number in numbers:
            self.queue.change("DELETE FROM jobs WHERE number = ? AND user = ?", number, self._user)

    def progress(self) -> list[Progress]:
        """Return all jobs as they are now, the newest first."""
        rows = self.queue.rows("SELECT * FROM jobs WHERE user = ? ORDER BY number DESC", self._user)
        return [self.queue.progress_of(row) for row in rows]
