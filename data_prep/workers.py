"""Worker processes: runs one function over many tasks; a worker that crashes or misbehaves costs its task, never the run.

The standard pools hang or break when a decoder crashes, and they unpickle what workers send. Here each worker is a process
of `th_jax.media.isolation` with its own pipe, on which tasks and answers travel as JSON and raw arrays, with size limits.
Workers decode untrusted videos, so their answers are untrusted as well. Each worker computes with one thread: more would
compete for the same cores, and results must not depend on the number of workers.
"""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from th_jax.media.isolation import Child, call_of, receive_plain, send_plain, start_child

Task = TypeVar("Task")

_ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "NUMBA_NUM_THREADS": "1"}

_MAX_ANSWER_BYTES = 2**20
"""Maximum size of the arrays of a result."""

_GRACE = 20.0
"""Seconds in which an answer that has begun must be complete, and in which a worker must exit when its pipe is closed."""


class Died(NamedTuple):
    """Replaces a result when the worker's process ended without one."""

    exit_code: int
    """Negative values are the signal that ended it."""

    def __str__(self) -> str:
        """Return the failure as the end of a sentence."""
        return f"its process ended ({self.exit_code})"


class InvalidAnswer(NamedTuple):
    """Replaces a result when the worker sent something else than an answer; its process has been killed."""

    problem: str

    def __str__(self) -> str:
        """Return the failure as the end of a sentence."""
        return f"its process sent an invalid answer: {self.problem}"


def run_in_processes(
    function: Callable[[Task], Any], tasks: Sequence[Task], *, workers: int
) -> Generator[tuple[int, Any], None, None]:
    """Run a function over tasks in worker processes, which have all ended when this generator ends.

    If this process is killed, the workers exit by themselves. Even a single worker is a separate process.

    Args:
        function: function of one task, which workers import by name.
        tasks: small plain values: numbers, text, paths, and tuples, lists and dicts of them. Workers receive named tuples
            as tuples.
        workers: maximum number of processes.

    Yields:
        The index of each task with its result, in order of completion; `Died` or `InvalidAnswer` in place of a result.

    Raises:
        ValueError: if `workers` is below 1, or the function cannot be imported.
        TypeError: if a task is not plain.
        RuntimeError: if workers cannot start, or the function raises an exception.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, but is {workers}")
    waiting = iter(range(len(tasks)))
    busy: dict[Connection, tuple[Child, int | None]] = {}

    def start() -> None:
        worker = start_child(**_ONE_THREAD)
        busy[worker.pipe] = worker, None

    try:
        for _ in range(min(workers, len(tasks))):
            start()
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker, index = busy[pipe]
                result = _receive(worker)
                failed = isinstance(result, Died | InvalidAnswer)
                if failed and index is None:
                    raise RuntimeError(f"a worker process could not start; {result}; its error is above")
                if failed:
                    del busy[pipe]
                    start()
                else:
                    busy[pipe] = worker, next(waiting, None)
                    _send_task(function, tasks, busy, pipe)
                if index is not None:
                    yield index, result
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()
        for worker, _ in busy.values():
            _exit_code(worker)


def _send_task(
    function: Callable[..., Any],
    tasks: Sequence[Any],
    busy: dict[Connection, tuple[Child, int | None]],
    pipe: Connection,
) -> None:
    worker, index = busy[pipe]
    if index is None:
        del busy[pipe]
        _exit_code(worker)
        return
    with contextlib.suppress(EOFError):  # the worker died, which the next wait reports
        send_plain(pipe, call_of(function, (tasks[index],), {}, None))


def _receive(worker: Child) -> Any:
    """Return a worker's next result, None when it is ready for its first task, or how it failed.

    Raises:
        RuntimeError: if the function raised an exception.
    """
    # A process that stops in the middle of an answer would block this one.
    watchdog = threading.Timer(_GRACE, worker.process.kill)
    watchdog.start()
    try:
        message = receive_plain(worker.pipe, most=_MAX_ANSWER_BYTES)
    except EOFError:
        return Died(_exit_code(worker))
    except ValueError as error:
        return _invalid(worker, str(error))
    finally:
        watchdog.cancel()
    match message:
        case "ready":
            return None
        case ("done", result):
            return result
        case ("failed", (str(kind), str(text))):
            raise RuntimeError(f"a worker process failed: {kind}: {text}")
    return _invalid(worker, "it is neither a result nor an error")


def _invalid(worker: Child, problem: str) -> InvalidAnswer:
    worker.process.kill()
    _exit_code(worker)
    return InvalidAnswer(problem)


def _exit_code(worker: Child) -> int:
    """Close a worker's pipe, after which it exits or is killed, and return its exit code."""
    worker.pipe.close()
    try:
        return worker.process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()
