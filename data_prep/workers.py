"""Runs one function over many tasks in worker processes that may die: a death costs its task, never the run.

The standard pools hang or break when a decoder crashes. Here each worker has its own pipe, so its end is seen and tells
which task it had. Workers compute with one thread each: busy ones would only get in each other's way, and results shall
not depend on how many there are.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import cv2

Task = TypeVar("Task")
Result = TypeVar("Result")

# Fresh interpreters: a fork would copy the parent's threads' locks, and TensorFlow with them.
_CONTEXT = multiprocessing.get_context("spawn")

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Died(NamedTuple):
    """What comes in place of a result when the worker's process has ended."""

    exit_code: int | None
    """Negative: the signal that ended it."""


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


def run_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int
) -> Generator[tuple[int, Result | Died], None, None]:
    """Each task's number with its result, in the order in which they are done.

    The function, its tasks and its results must be small: they go through pipes. Even one worker is a process. However
    this generator ends, its processes have ended after it; if this process is killed, they end themselves.

    Raises:
        ValueError: if `workers` is below 1.
        RuntimeError: if a worker ends before it can take a task, or the function lets an exception out.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, but {workers} came")
    waiting = iter(range(len(tasks)))
    busy: dict[Connection, tuple[_Worker, int | None]] = {}
    try:
        for _ in range(min(workers, len(tasks))):
            worker = _start(function)
            busy[worker.pipe] = (worker, None)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker, number = busy[pipe]
                answer: tuple[str, Any] = _receive(worker)
                if number is None and answer[0] != "ready":
                    raise RuntimeError(f"a worker process could not start (exit code {answer[1]}): its error is above")
                if answer[0] == "error":
                    raise RuntimeError(f"a worker process failed: {answer[1]}")
                if answer[0] == "died":
                    del busy[pipe]
                    worker = _start(function)
                    busy[worker.pipe] = (worker, None)
                else:
                    _hand_out(worker, next(waiting, None), tasks, busy)
                if number is not None:
                    yield number, Died(answer[1]) if answer[0] == "died" else answer[1]
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()
        for worker, _ in busy.values():
            worker.process.join()
            worker.pipe.close()


def _start(function: Callable[..., Any]) -> _Worker:
    here, there = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_serve, args=(there, function), daemon=True)
    with _one_thread_each(), _interrupts_wait():
        process.start()
    there.close()
    return _Worker(process, here)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """An interrupt in the midst of a start would leave a process without its orders, which prints a traceback.

    So signals are kept until the start is over; and the new process never sees Ctrl-C, not even while it imports.
    """
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return
    kept: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda number, _: kept.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the new process inherits this, but no handler
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if kept:
            signal.raise_signal(kept[0])


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile compute with one thread: their libraries ask the environment when they are loaded."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _hand_out(worker: _Worker, number: int | None, tasks: Sequence[Any], busy: dict) -> None:
    if number is None:
        del busy[worker.pipe]
        worker.pipe.close()  # the worker sees the end of its tasks, and ends
        worker.process.join()
        return
    busy[worker.pipe] = (worker, number)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: seen at the next wait
        worker.pipe.send(tasks[number])


def _receive(worker: _Worker) -> tuple[str, Any]:
    try:
        return worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.pipe.close()
        return "died", worker.process.exitcode


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a worker: ready, then one answer a task, until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: tuple[str, Any] = ("ready", None)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(answer)
            task = pipe.recv()
            try:
                answer = ("done", function(task))
            except Exception as error:  # goes to the parent, whose user sees it
                answer = ("error", f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """A parent that is killed outright cannot stop its workers, and a task may be long."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
