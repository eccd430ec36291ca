"""Process isolation: runs a function on an untrusted file in a separate process with limits, which may hang or crash safely.

A process serves one call at a time. It is reused, because starting one costs more than reading a small file, and
replaced if it dies. Results too large for one answer are streamed, from a process of their own. Calls and answers
consist of numbers, text and arrays, without pickle. The module contains the limits, the message format, and both kinds
of calls:

    frames, landmarks, mask = run_limited(load_shots, "upload.mp4", size=256)
    for samples in stream_limited(decode_sound, "upload.mp4"): ...
"""

import atexit
import builtins
import contextlib
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from th_jax.media.limits import MediaError, MediaFault
from th_jax.media.restrict import kept_environment
from th_jax.storage.strict_json import parse_json
from th_jax.text import escape_control_chars


class ProcessLimits(NamedTuple):
    """Resource limits of the work on one file."""

    memory: int = 6 * 2**30
    """Address space in bytes, including libraries (0.5 to 1 GB)."""
    cpu_seconds: float = 3600.0
    """CPU time in seconds, over all threads; at least 1."""
    seconds: float = 2 * 3600.0
    """Wall-clock time in seconds, excluding time spent waiting for the caller."""


DEFAULT_PROCESS_LIMITS = ProcessLimits()
"""Generous, like `DEFAULT_LIMITS`: only broken or malicious files reach them."""

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP}

_MIB = 2**20


@contextlib.contextmanager
def confined(limits: ProcessLimits) -> Iterator[None]:
    """Context manager that applies limits to this process; when time is up, the system kills it, without core dumps.

    Use it in the main thread of a process that may die; `exit_error` interprets its exit code. Running out of
    memory is an error, which some decoders mistake for damage of the file. The previous limits are restored afterwards.
    Requires POSIX; macOS does not limit memory.

    Raises:
        MediaError: OVER_LIMITS, if memory runs out.
        ValueError: if a limit is not positive.
    """
    import resource  # here: `th_jax.media` also loads on systems without it

    check_process_limits(limits)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    deadline = int(usage.ru_utime + usage.ru_stime + max(limits.cpu_seconds, 1.0)) + 1
    wanted = {resource.RLIMIT_AS: limits.memory, resource.RLIMIT_CPU: deadline, resource.RLIMIT_CORE: 0}
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    for kind, value in wanted.items():
        hard = before[kind][1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action kills the process even within C code
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        if not _lacks_memory(error):
            raise
        memory = f"{limits.memory / _MIB:.0f} MiB of memory"
        raise MediaError(MediaFault.OVER_LIMITS, f"it needs more than {memory}, the limit") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        for kind, both in before.items():
            resource.setrlimit(kind, both)


@contextlib.contextmanager
def clock_stopped() -> Iterator[None]:
    """Pause the wall-clock limit of the surrounding `confined`, during a wait that is not caused by the file."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


def check_process_limits(limits: ProcessLimits) -> None:
    """Check that the limits allow any work at all.

    Raises:
        ValueError: if they do not; the message gives the limits.
    """
    for name, value in zip(limits._fields, limits, strict=True):
        if not value > 0:
            raise ValueError(f"the process limit {name} must be positive, got {value}")


def exit_error(exit_code: int | None, limits: ProcessLimits) -> MediaError:
    """Convert the exit code of a process that ended within `confined` to an error; negative codes are signals."""
    if exit_code == -signal.SIGXCPU:
        return MediaError(MediaFault.OVER_LIMITS, f"it needs more than {limits.cpu_seconds:g} s of CPU time, the limit")
    if exit_code == -signal.SIGALRM:
        return MediaError(MediaFault.OVER_LIMITS, f"it takes longer than {limits.seconds:g} s, the limit")
    if exit_code == -signal.SIGKILL:
        return MediaError(MediaFault.OVER_LIMITS, "its process was killed, probably because memory ran out")
    if exit_code is not None and -exit_code in _CRASHES:
        return MediaError(
            MediaFault.UNDECODABLE, f"the process that read it crashed ({signal.Signals(-exit_code).name})"
        )
    return MediaError(MediaFault.UNDECODABLE, f"the process that read it exited with code {exit_code}")


def _lacks_memory(error: Exception) -> bool:
    """Return whether numpy, FFmpeg, dlib or OpenCV report running out of memory by this error."""
    return isinstance(error, MemoryError) or "Insufficient memory" in str(error) or "bad_alloc" in str(error)


HEADER_BYTES = 16 * 2**20
"""Maximum size of a message without its arrays, in bytes."""

PASSED_ON = ("FileNotFoundError", "PermissionError", "OSError", "ImportError", "TypeError", "ValueError")
"""Exceptions re-raised with their own type; others become RuntimeError."""

_KINDS = "biuf"
"""Kinds of numeric array types: bool, integers, floats."""

_CODE = re.compile(r"\|[biu]1|[<>][iuf][248]|[<>]f16")
"""numpy's codes of these types; its own parser is not safe for untrusted input."""


class Call(NamedTuple):
    """A request to run a function in another process."""

    module: str
    function: str
    """Qualified name within the module."""
    arguments: tuple
    options: dict[str, Any]
    limits: tuple | None
    """Fields of `ProcessLimits`; None for a function that applies limits itself."""
    streamed: bool
    """Whether the function returns an iterator, whose items are sent one by one."""


def send_plain(pipe: Connection, value: Any) -> None:
    """Send None, booleans, numbers, text, paths, arrays, and lists, tuples and text-keyed dicts of them.

    Named tuples arrive as tuples, string enums as text.

    Raises:
        TypeError: if the value has another type; nothing is sent in that case.
        EOFError: if the other end is closed.
    """
    arrays: list[np.ndarray] = []
    header = json.dumps(_described(value, arrays)).encode()
    with _other_end():
        pipe.send_bytes(header)
        for array in arrays:
            if array.size:
                pipe.send_bytes(array.data.cast("B"))


def receive_plain(pipe: Connection, *, most: int) -> Any:
    """Receive a value whose arrays have at most `most` bytes in total.

    Raises:
        ValueError: if the message is not one of `send_plain`, or is too large; nothing is allocated for it in that
            case.
        EOFError: if the other end is closed, or sends more than announced; nothing more can be read after that.
    """
    arrays: list[np.ndarray] = []
    with _other_end():
        header = pipe.recv_bytes(HEADER_BYTES)
    value = _restored(parse_json(header, name="a message", max_bytes=HEADER_BYTES), arrays, [most])
    for array in arrays:
        if array.size:
            # The message is bounded: receiving into the array would first read everything that is sent.
            with _other_end():
                content = np.frombuffer(pipe.recv_bytes(array.nbytes), np.uint8)
            if content.size != array.nbytes:
                raise ValueError("an array has fewer bytes than its shape requires")
            array.reshape(-1).view(np.uint8)[:] = content
    return value


@contextlib.contextmanager
def _other_end() -> Iterator[None]:
    """Convert every error of a closed other end to EOFError.

    The system reports it as the end of a file, a broken pipe or a reset, depending on the operation and unread data,
    and a process that dies while sending leaves an incomplete message.
    """
    try:
        yield
    except OSError as error:
        raise EOFError(f"the other end of the pipe was closed ({error})") from error


def failure_of(error: Exception) -> tuple[str, str]:
    """Convert an exception for sending: to its fault or class name, and its message."""
    if isinstance(error, MediaError):
        return error.fault.value, str(error)
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__name__ in PASSED_ON]
    return kinds[0] if kinds else type(error).__name__, str(error)


def error_of(kind: str, message: str) -> Exception:
    """Convert the output of `failure_of` back to an exception."""
    if kind in set(MediaFault):
        return MediaError(MediaFault(kind), message)
    if kind in PASSED_ON:
        return getattr(builtins, kind)(message)
    return RuntimeError(f"{kind}: {message}")


def _described(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        array = np.ascontiguousarray(value)
        arrays.append(array)
        return {"array": [array.dtype.str, list(value.shape)]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_described(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {str(name): _described(item, arrays) for name, item in value.items()}}
    raise TypeError(f"only numbers, text, arrays, and lists, tuples and dicts of these can be sent, got {type(value)}")


def _restored(described: Any, arrays: list[np.ndarray], left: list[int]) -> Any:
    """Rebuild a value with empty arrays, filled in order of arrival; `left` is the number of bytes allowed for them."""
    match described:
        case None | bool() | int() | float() | str():
            return described
        case {"array": [str(code), list(shape)]} if all(type(length) is int and length >= 0 for length in shape):
            if not _CODE.fullmatch(code):
                raise ValueError(f"an array has the invalid type {code!r}")
            dtype = np.dtype(code)
            left[0] -= math.prod(shape) * dtype.itemsize
            if left[0] < 0:
                raise ValueError("arrays exceed their size limit")
            arrays.append(np.empty(shape, dtype))
            return arrays[-1]
        case {"float": "nan" | "inf" | "-inf" as written}:
            return float(written)
        case {"path": str(path)}:
            return Path(path)
        case {"list": list(items)}:
            return [_restored(item, arrays, left) for item in items]
        case {"tuple": list(items)}:
            return tuple(_restored(item, arrays, left) for item in items)
        case {"dict": dict(items)}:
            return {name: _restored(item, arrays, left) for name, item in items.items()}
    raise ValueError(f"a message contains {type(described)}")


_GRACE = 5.0
"""Seconds after which a process that should have exited is killed."""

MAX_ITEM_BYTES = 2**28
"""Default maximum size of a stream's item, in bytes: a frame of 80 million pixels."""

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Each thread of a numerical library reserves tens of megabytes of address space."""


class Child(NamedTuple):
    """A process that runs calls (`th_jax.media.isolation_child`), and this end of its pipe."""

    process: subprocess.Popen
    pipe: Connection


class Sandbox:
    """A process with limits, started at the first call; a context manager. Calls from several threads are queued."""

    def __init__(self) -> None:
        """Create the sandbox without starting its process."""
        self._child: Child | None = None
        self._settings: dict[str, str] = {}  # of the child
        self._turn = threading.Lock()

    def __enter__(self) -> "Sandbox":
        """Return the sandbox itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop its process."""
        self.close()

    def close(self) -> None:
        """Stop its process; the next call starts a new one."""
        with self._turn:
            self._end()

    def run(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        within: ProcessLimits = DEFAULT_PROCESS_LIMITS,
        **options: Any,
    ) -> Any:
        """Run a function in the sandbox and return its result.

        The process imports the function by name and runs it `within` limits. Results may be numbers, text, arrays, and
        lists, tuples and dicts of them; named tuples are returned as tuples.

        Raises:
            MediaError: if the function raises it, or the process dies: OVER_LIMITS when time or memory runs out,
                UNDECODABLE for a crash.
            ValueError: if the function cannot be imported or raises it, or the limits are invalid.
            TypeError, ImportError, OSError: if the function raises it.
            RuntimeError: if the function raises another exception, or no process can be started.
        """
        check_process_limits(within)
        call = call_of(function, arguments, options, within)
        with self._turn:
            return self._answer(call, within, most=within.memory)[1]

    def _answer(self, call: Call | None, within: ProcessLimits, *, most: int) -> tuple[str, Any]:
        """Make a call, or continue the last one, and return "done" or "item" with the value; other answers are raised."""
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
                    raise ValueError("a message is not a valid answer")
        except EOFError:
            raise exit_error(self._end(wait=_GRACE), within) from None
        except ValueError as nonsense:
            self._end()
            raise MediaError(
                MediaFault.UNDECODABLE, f"the process that read it sent an invalid answer: {nonsense}"
            ) from nonsense
        except BaseException:  # an interrupt leaves the process in an unknown state
            self._end()
            raise
        finally:
            watchdog.cancel()
        raise error

    def _ready(self) -> Child:
        if self._child is not None and (self._child.process.poll() is not None or self._settings != _settings()):
            self._end()  # it was killed between two calls, or would work with other settings
        if self._child is None:
            self._child, self._settings = start_child(), _settings()
            try:
                receive_plain(self._child.pipe, most=0)
            except EOFError as error:
                code = self._end(wait=_GRACE)
                raise RuntimeError(
                    f"the sandbox process did not start (exit code {code}): see its error above"
                ) from error
        return self._child

    def _end(self, *, wait: float = 0.0) -> int | None:
        """Stop the process, at once or after some seconds in which it may exit itself; returns its exit code."""
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
    """Call `Sandbox.run` in a sandbox shared within this process.

    Raises:
        MediaError, ValueError, TypeError, ImportError, OSError, RuntimeError: as `Sandbox.run`.
    """
    return _shared(os.getpid()).run(function, *arguments, within=within, **options)


def stream_limited(
    function: Callable[..., Iterator[Any]],
    *arguments: Any,
    within: ProcessLimits = DEFAULT_PROCESS_LIMITS,
    most: int = MAX_ITEM_BYTES,
    **options: Any,
) -> Generator[Any, None, None]:
    """Run a function that returns an iterator in an isolated process, and yield its items as they are produced.

    Nothing happens before the first item is requested. The process is at most one item and a pipe's buffer ahead. Its
    wall-clock limit is paused while the caller is busy. It ends with the iteration, even if that is abandoned
    (`contextlib.closing` does so at once).

    Args:
        function: function, imported by name in the process; its items may have the types that `Sandbox.run` returns.
        arguments: positional arguments of the function.
        within: limits of the whole iteration.
        most: maximum size in bytes of the arrays of an item.
        options: keyword arguments of the function.

    Raises:
        MediaError, ValueError, TypeError, ImportError, OSError, RuntimeError: as `Sandbox.run`, after the items before
        it.
    """
    check_process_limits(within)
    call: Call | None = call_of(function, arguments, options, within)._replace(streamed=True)
    with Sandbox() as sandbox:
        while (message := sandbox._answer(call, within, most=most))[0] == "item":
            call = None
            yield message[1]


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a file's name to a MediaError without one, such as that of a process that died.

    Raises:
        MediaError: the error with the name; also in place of a sandbox's RuntimeError, an unexpected decoder failure.
    """
    try:
        yield
    except MediaError as error:
        if escape_control_chars(os.fspath(path)) in str(error):
            raise
        raise MediaError(error.fault, f"cannot read {os.fspath(path)}: {error}") from error
    except RuntimeError as error:
        raise MediaError(MediaFault.UNDECODABLE, f"cannot read {os.fspath(path)}: {error}") from error


@functools.cache
def _shared(_: int) -> Sandbox:
    """Return this process's shared sandbox; keyed by process, because a fork must not use its parent's."""
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox


def call_of(
    function: Callable[..., Any], arguments: tuple, options: dict[str, Any], within: ProcessLimits | None
) -> Call:
    """Build the request for a child process, which imports the function by name.

    Raises:
        ValueError: if the function cannot be imported.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise ValueError(
            f"a sandbox imports its function by name, but {function!r} is not at the top level of a module"
        )
    return Call(module, name, arguments, options, within, streamed=False)


def _settings() -> dict[str, str]:
    """Return this package's environment variables and the working folder, which a child process keeps from its start."""
    named = {name: value for name, value in os.environ.items() if name.startswith("TH_JAX_")}
    folder = os.stat(".")  # unlike its path, also known of a deleted one
    return named | {"working folder": f"{folder.st_dev} {folder.st_ino}"}


def start_child(**environment: str) -> Child:
    """Start a process that sends "ready" first, computes with one thread, and exits when its pipe is closed.

    It has neither the user's environment, nor a network, nor other programs, where the system allows it
    (`th_jax.media.restrict`). `environment` adds variables.
    """
    here, there = Pipe()
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    with there:
        process = subprocess.Popen(  # noqa: S603 -- this interpreter and a module of this package
            [sys.executable, "-m", "th_jax.media.isolation_child", str(there.fileno())],
            pass_fds=[there.fileno()],
            env=kept_environment(os.environ) | _ONE_THREAD | {"PYTHONPATH": path} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C only reaches this process, which then stops the child
        )
    return Child(process, here)
