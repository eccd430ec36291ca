"""Runs a function on a file in a process of its own with limits, which may hang, crash or die without harm to this one.

One process serves one call after the other, as starting it costs more than reading a small file, and is replaced when
it dies. Its answers are numbers, text and arrays, never pickles.

    frames, landmarks, mask = run_limited(load_shots, "upload.mp4", size=256)
"""

import atexit
import builtins
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

from th_jax.media.confinement import DEFAULT_PROCESS_LIMITS, ProcessLimits, check_process_limits, meaning_of_exit
from th_jax.media.limits import MediaError, MediaFault
from th_jax.media.messages import receive_plain
from th_jax.media.sandbox_child import PASSED_ON

_GRACE = 5.0
"""Seconds after which a process is killed that should have ended itself."""

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Each thread of a numerical library reserves tens of megabytes of addresses."""


class _Child(NamedTuple):
    process: subprocess.Popen
    pipe: Connection


class Sandbox:
    """A limited process, started at the first call; a context manager. Calls from several threads wait in line."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._child: _Child | None = None
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
        name = _importable(function)
        with self._turn:
            child = self._ready()
            watchdog = threading.Timer(within.seconds + _GRACE, child.process.kill)
            watchdog.start()
            try:
                child.pipe.send((name, arguments, options, within))
                outcome, answer = receive_plain(child.pipe, most=within.memory)
            except (EOFError, OSError):
                raise meaning_of_exit(self._end(wait=_GRACE), within) from None
            except BaseException:  # an interrupt, or an answer that is none: what it does now, nobody knows
                self._end()
                raise
            finally:
                watchdog.cancel()
        if outcome == "done":
            return answer
        raise _error(*answer)

    def _ready(self) -> _Child:
        if self._child is not None and self._child.process.poll() is not None:
            self._end()  # it was killed between two calls
        if self._child is None:
            self._child = _start()
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


@functools.cache
def _shared(_: int) -> Sandbox:
    """One for each process: a fork must not share its parent's."""
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox


def _importable(function: Callable[..., Any]) -> tuple[str, str]:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise ValueError(f"a sandbox imports its function by name, but {function!r} stands in no module's top level")
    return module, name


def _start() -> _Child:
    here, there = Pipe()
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    process = subprocess.Popen(  # noqa: S603 -- this interpreter and a module of this package
        [sys.executable, "-m", "th_jax.media.sandbox_child", str(there.fileno())],
        pass_fds=[there.fileno()],
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the other
    )
    there.close()
    child = _Child(process, here)
    try:
        assert here.recv_bytes(16) == b"ready"
    except (EOFError, OSError) as error:
        raise RuntimeError(f"no sandbox could be started (exit code {process.wait()}): its error is above") from error
    return child


def _error(kind: str, message: str) -> Exception:
    if kind in set(MediaFault):
        return MediaError(MediaFault(kind), message)
    if kind in PASSED_ON:
        return getattr(builtins, kind)(message)
    return RuntimeError(f"{kind}: {message}")
