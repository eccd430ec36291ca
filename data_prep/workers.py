"""Runs one function over many tasks in worker processes that may die: a death costs its task, never the run.

The standard pools hang or break when a decoder crashes, and send pickles. Here each worker is a process as sandboxes have
(`th_jax.media.isolation`) with a pipe of its own, so its end is seen and tells which task it had. Workers compute with one
thread each: busy ones would only get in each other's way, and results shall not depend on how many there are.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from th_jax.media.isolation import Child, call_of, receive_plain, send_plain, start_child

Task = TypeVar("Task")

_ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "NUMBA_NUM_THREADS": "1"}

_MOST = 2**20
"""Bytes of the arrays of a result."""


class Died(NamedTuple):
    """What comes in place of a result when the worker's process has ended."""

    exit_code: int
    """Negative: the signal that ended it."""


def run_in_processes(
    function: Callable[[Task], Any], tasks: Sequence[Task], *, workers: int
) -> Generator[tuple[int, Any], None, None]:
    """Each task's number with its result, in the order in which they are done, or with `Died`.

    The function is imported by its name. Its tasks and its results must be small and plain: numbers, text, paths, and
    tuples, lists and dicts of them, as `th_jax.media.isolation` sends them; of a named tuple, the worker gets a tuple. Even
    one worker is a process. However this generator ends, its processes have ended after it; if this process is killed, they
    end themselves.

    Raises:
        ValueError: if `workers` is below 1, or the function is none that can be imported.
        TypeError: for tasks that are not plain.
        RuntimeError: if a worker ends before it can take a task, or the function lets an exception out.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, but {workers} came")
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
                worker, number = busy[pipe]
                result = _answer(worker)
                if number is None and isinstance(result, Died):
                    raise RuntimeError(
                        f"a worker process could not start (exit code {result.exit_code}): its error is above"
                    )
                if isinstance(result, Died):
                    del busy[pipe]
                    start()
                else:
                    busy[pipe] = worker, next(waiting, None)
                    _hand_out(function, tasks, busy, pipe)
                if number is not None:
                    yield number, result
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()
        for worker, _ in busy.values():
            _ended(worker)


def _hand_out(
    function: Callable[..., Any],
    tasks: Sequence[Any],
    busy: dict[Connection, tuple[Child, int | None]],
    pipe: Connection,
) -> None:
    worker, number = busy[pipe]
    if number is None:
        del busy[pipe]
        _ended(worker)
        return
    with contextlib.suppress(EOFError):  # it has died: seen at the next wait
        send_plain(pipe, call_of(function, (tasks[number],), {}, None))


def _answer(worker: Child) -> Any:
    """What the worker tells next: that it is ready, a result, or by its end that it died.

    Raises:
        RuntimeError: if the function raised something.
    """
    try:
        message = receive_plain(worker.pipe, most=_MOST)
    except EOFError:
        return Died(_ended(worker))
    match message:
        case "ready":
            return None
        case ("done", result):
            return result
        case ("failed", (str(kind), str(sentence))):
            raise RuntimeError(f"a worker process failed: {kind}: {sentence}")
    raise RuntimeError("a worker process failed: a message came that is no answer")


def _ended(worker: Child) -> int:
    """The exit code of a worker that ends, at the latest as its pipe is closed."""
    worker.pipe.close()
    return worker.process.wait()
