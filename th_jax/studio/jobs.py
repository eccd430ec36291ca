"""Jobs of the studio: one at a time in a thread of their own, with stages, progress, pause, stop-and-keep and cancel."""

import enum
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from th_jax.signals import is_out_of_memory

_EXPECTED = (ValueError, TypeError, OSError, ImportError)
"""Errors whose message is written for users, as on the command line."""


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
    """Raised within the work of a job that was canceled."""


class Progress(NamedTuple):
    """A job at one moment."""

    number: int
    title: str
    state: State
    stage: str
    """What is being done, or how the job ended."""
    done: int
    total: int
    """Number of units of the stage; 0 if unknown."""
    seconds_left: float | None
    """Estimate for the rest of the stage; None if unknown."""
    losses: tuple[float, ...]
    preview: Path | None
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
    """A job; its work calls `stage`, `advance` and `show`, and the page the other methods."""

    def __init__(self, number: int, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a waiting job."""
        self.number, self.title = number, title
        self._clock = clock
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._running.set()
        self._ended = threading.Event()
        self._cancelled = False
        self._keep = False
        self._state, self._stage = State.WAITING, ""
        self._done, self._total, self._started = 0, 0, 0.0
        self._first = 0
        self._losses: tuple[float, ...] = ()
        self._preview: Path | None = None
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

    def show(self, *, preview: Path | None = None, losses: tuple[float, ...] | None = None) -> None:
        """Report a preview image, or the losses so far."""
        with self._lock:
            self._preview = preview or self._preview
            self._losses = self._losses if losses is None else losses

    def _go_on(self) -> None:
        while not self._running.wait(timeout=1.0) and not self._cancelled:
            pass
        if self._cancelled:
            raise Cancelled

    @property
    def keep_requested(self) -> bool:
        """Whether the work should end early and keep what it has."""
        return self._keep

    @property
    def cancelled(self) -> bool:
        """Whether the job was canceled."""
        return self._cancelled

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
            self._cancelled = True
            if self._state is State.WAITING:
                self._finish(State.CANCELLED, "nothing was written")
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
                self.number, self.title, self._state, self._stage, self._done, self._total, left,
                self._losses, self._preview, self._result,
            )  # fmt: skip

    def run(self, work: Callable[["Job"], tuple[Path | None, str]], on_end: Callable[[], None]) -> None:
        """Do the work, which returns the result's path and a sentence; errors become the job's message.

        Args:
            work: called with the job, unless it was canceled while it waited.
            on_end: called in any case.
        """
        with self._lock:
            started = not self._state.ended
            if started:
                self._state, self._started = State.RUNNING, self._clock()
        if not started:
            on_end()
            return
        state = State.FAILED
        try:
            result, text = work(self)
        except Cancelled:
            state, text = State.CANCELLED, "nothing was written"
        except _EXPECTED as error:
            text = str(error)
        except Exception as error:
            text = "out of memory: close other programs" if is_out_of_memory(error) else f"internal error: {error}"
            logging.getLogger(__name__).exception("job %d, %s", self.number, self.title)
        else:
            state, self._result = State.FINISHED, result
        on_end()
        with self._lock:
            self._finish(state, text)

    def _finish(self, state: State, text: str) -> None:
        self._state, self._stage = state, text
        self._ended.set()


class JobQueue:
    """A queue whose jobs run one after another, in order of submission."""

    MOST = 100
    """Number of jobs kept; the oldest ended ones are forgotten."""

    def __init__(self) -> None:
        """Create an empty queue."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="studio")
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._count = 0

    def submit(
        self, title: str, work: Callable[[Job], tuple[Path | None, str]], *, on_end: Callable[[], None] = lambda: None
    ) -> Job:
        """Add a job.

        Args:
            title: what it does.
            work: called with the job; returns the result's path, if any, and a sentence about it.
            on_end: called after the work, or instead of it if the job was canceled while it waited.

        Raises:
            ValueError: if too many jobs are waiting.
        """
        with self._lock:
            for number in [n for n, job in self._jobs.items() if job.progress().state.ended]:
                if len(self._jobs) < self.MOST:
                    break
                del self._jobs[number]
            if len(self._jobs) >= self.MOST:
                raise ValueError(f"{self.MOST} jobs are waiting: try again when some have ended")
            self._count += 1
            job = self._jobs[self._count] = Job(self._count, title)
        self._thread.submit(job.run, work, on_end)
        return job

    def get(self, number: int) -> Job:
        """Return a job.

        Raises:
            KeyError: if it is unknown.
        """
        return self._jobs[number]

    def progress(self) -> list[Progress]:
        """Return all jobs as they are now, the newest first."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [job.progress() for job in reversed(jobs)]

    def close(self) -> None:
        """Cancel everything and wait for the thread."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        self._thread.shutdown()
