"""Runs a function on a file in a process of its own with limits, which may hang, crash or die without harm to this one.

One process serves one call after the other, as starting it costs more than reading a small file, and is replaced when
it dies. What is too much for one answer comes as a stream, from a process for it alone. Calls and answers are numbers,
text and arrays, never pickles.

    frames, landmarks, mask = run_limited(load_shots, "upload.mp4", size=256)
    for samples in stream_limited(decode_sound, "upload.mp4"): ...
"""

import atexit
import contextlib
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

from th_jax.media.confinement import DEFAULT_PROCESS_LIMITS, ProcessLimits, check_process_limits, meaning_of_exit
from th_jax.media.limits import MediaError, MediaFault
from th_jax.media.messages import Call, error_of, receive_plain, send_plain

_GRACE = 5.0
"""Seconds after which a process is killed that should have ended itself."""

MOST_OF_AN_ITEM = 2**28
"""Bytes that an item of a stream may have, unless it says otherwise: a frame of 80 million pixels."""

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Each thread of a numerical library reserves tens of megabytes of addresses."""


class Child(NamedTuple):
    """A process that runs calls (`th_jax.media.sandbox_child`), and this end of its pipe."""

    process: subprocess.Popen
    pipe: Connection


class Sandbox:
    """A limited process, started at the first call; a context manager. Calls from several threads wait in line."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._child: Child | None = None
        self._turn = threading.Lock()

    def __enter__(self) -> "Sandbox":
        """The sandbox itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End its process."""
        self.close()

    def close(self) -> None:
        """End its process; the next call starts another."""
        with self._turn:
            self._end()

    def run(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        within: ProcessLimits = DEFAULT_PROCESS_LIMITS,
        **options: Any,
    ) -> Any:
        """What the function answers: numbers, text, arrays; lists, tuples and dicts of them; a named tuple as a tuple.

        The function is imported there by its name, and works `within` limits.

        Raises:
            MediaError: if the function raises one, or the work ends with its process: OVER_LIMITS where time or memory
                is up, UNDECODABLE where it crashed.
            ValueError: for a function that cannot be imported, impossible limits, or if the function raises one.
            TypeError, ImportError, OSError: if the function raises one.
            RuntimeError: for any other exception of the function, or if no process can be started.
        """
        check_process_limits(within)
        call = call_of(function, arguments, options, within)
        with self._turn:
            return self._answer(call, within, most=within.memory)[1]

    def _answer(self, call: Call | None, within: ProcessLimits, *, most: int) -> tuple[str, Any]:
        """Make a call, or go on with the last one, and get "done" or "item" with what came; all else is raised."""
        child = self._child if call is None else self._ready()
        assert child is not None
        watchdog = threading.Timer(within.seconds + _GRACE, child.process.kill)
        watchdog.start()
        try:
            if call is not None:
                send_plain(child.pipe, call)
            match receive_plain(child.pipe, most=most):
                case ("done" | "item" as outcome, answer):
                    return outcome, answer
                case ("failed", (str(kind), str(message))):
                    error = error_of(kind, message)
                case _:
                    raise ValueError("a message came that is no answer")
        except EOFError:
            raise meaning_of_exit(self._end(wait=_GRACE), within) from None
        except ValueError as nonsense:
            self._end()
            raise MediaError(MediaFault.UNDECODABLE, f"the process that read it went astray: {nonsense}") from nonsense
        except BaseException:  # an interrupt: what it does now, nobody knows
            self._end()
            raise
        finally:
            watchdog.cancel()
        raise error

    def _ready(self) -> Child:
        if self._child is not None and self._child.process.poll() is not None:
            self._end()  # it was killed between two calls
        if self._child is None:
            self._child = start_child()
            try:
                receive_plain(self._child.pipe, most=0)
            except EOFError as error:
                code = self._end(wait=_GRACE)
                raise RuntimeError(f"no sandbox could be started (exit code {code}): its error is above") from error
        return self._child

    def _end(self, *, wait: float = 0.0) -> int | None:
        """End the process, at once or after it had some seconds to end itself; its exit code."""
        if self._child is None:
            return None
        process, pipe = self._child
        self._child = None
        pipe.close()
        try:
            return process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def run_limited(
    function: Callable[..., Any], *arguments: Any, within: ProcessLimits = DEFAULT_PROCESS_LIMITS, **options: Any
) -> Any:
    """`Sandbox.run` in one sandbox that this process keeps.

    Raises:
        MediaError, ValueError, TypeError, ImportError, OSError, RuntimeError: as `Sandbox.run`.
    """
    return _shared(os.getpid()).run(function, *arguments, within=within, **options)


def stream_limited(
    function: Callable[..., Iterator[Any]],
    *arguments: Any,
    within: ProcessLimits = DEFAULT_PROCESS_LIMITS,
    most: int = MOST_OF_AN_ITEM,
    **options: Any,
) -> Generator[Any, None, None]:
    """What an iterator of the function gives, one item after the other, each of the kinds that `Sandbox.run` answers.

    Nothing happens before the first item is asked for. The process is never ahead by more than one item and what a pipe
    holds; its clock stands still while the caller is busy; and it ends with the iteration, also with one that is given up
    (`contextlib.closing` gives up at once).

    Args:
        function: imported there by its name.
        arguments: its own.
        within: limits of the whole iteration.
        most: bytes of the arrays of an item.
        options: of the function.

    Raises:
        MediaError, ValueError, TypeError, ImportError, OSError, RuntimeError: as `Sandbox.run`, after the items before.
    """
    check_process_limits(within)
    call: Call | None = call_of(function, arguments, options, within)._replace(streamed=True)
    with Sandbox() as sandbox:
        while (message := sandbox._answer(call, within, most=most))[0] == "item":
            call = None
            yield message[1]


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put a file's name into a MediaError that knows none, as those of a process that ended.

    Raises:
        MediaError: that error, and one for the RuntimeErrors of a sandbox: they are what nobody foresaw of a decoder.
    """
    try:
        yield
    except MediaError as error:
        if os.fspath(path) in str(error):
            raise
        raise MediaError(error.fault, f"{os.fspath(path)} cannot be used: {error}") from error
    except RuntimeError as error:
        raise MediaError(MediaFault.UNDECODABLE, f"{os.fspath(path)} cannot be used: {error}") from error


@functools.cache
def _shared(_: int) -> Sandbox:
    """One for each process: a fork must not share its parent's."""
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox


def call_of(
    function: Callable[..., Any], arguments: tuple, options: dict[str, Any], within: ProcessLimits | None
) -> Call:
    """What a child is asked, which imports the function by its name.

    Raises:
        ValueError: for a function that cannot be imported.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise ValueError(f"a sandbox imports its function by name, but {function!r} stands in no module's top level")
    return Call(module, name, arguments, options, within, streamed=False)


def start_child(**environment: str) -> Child:
    """Start a process whose first message is "ready", computes with one thread, and ends when its pipe is closed.

    Args:
        environment: variables beside those of this process.
    """
    here, there = Pipe()
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    with there:
        process = subprocess.Popen(  # noqa: S603 -- this interpreter and a module of this package
            [sys.executable, "-m", "th_jax.media.sandbox_child", str(there.fileno())],
            pass_fds=[there.fileno()],
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": path} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the other
        )
    return Child(process, here)
