"""Bounds on memory, computing and waiting for work on files that nobody vouches for, set by the operating system.

`Limits` refuses what a file declares. This is for what it does not declare: a decoder that loops, waits for ever,
fills the memory or crashes. Such work belongs in a process that may be ended; the preparation's workers are such, and
`th_jax.media.sandbox` keeps one for everybody else. It is no prison: code that takes over a decoder can do what the
user can.
"""

import contextlib
import signal
from collections.abc import Iterator
from typing import NamedTuple

from th_jax.media.limits import MediaError, MediaFault


class ProcessLimits(NamedTuple):
    """What work on one file may cost its process."""

    memory: int = 6 * 2**30
    """Bytes of addresses, with those of the libraries (0.5 to 1 GB)."""
    cpu_seconds: float = 3600.0
    """Of computing, all threads together; at least 1."""
    seconds: float = 2 * 3600.0
    """On the clock, without the time for which whoever asked lets it wait."""


DEFAULT_PROCESS_LIMITS = ProcessLimits()
"""Generous, as `DEFAULT_LIMITS` is: whatever reaches these is broken or meant to do harm."""

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP}

_MIB = 2**20


@contextlib.contextmanager
def confined(limits: ProcessLimits) -> Iterator[None]:
    """Hold what is done inside to limits. Where time is up the system ends this process, without core dumps.

    So it is for a process that may die, and for its main thread; what its end means, `meaning_of_exit` says. Want of
    memory is an error, which some decoders take for damage of the file. All earlier limits are back in force
    afterwards. Needs POSIX; macOS does not limit memory.

    Raises:
        MediaError: OVER_LIMITS, if memory runs out.
        ValueError: for limits that are not positive.
    """
    import resource  # here: `th_jax.media` loads on systems without it

    check_process_limits(limits)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    deadline = int(usage.ru_utime + usage.ru_stime + max(limits.cpu_seconds, 1.0)) + 1
    wanted = {resource.RLIMIT_AS: limits.memory, resource.RLIMIT_CPU: deadline, resource.RLIMIT_CORE: 0}
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    for kind, value in wanted.items():
        hard = before[kind][1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action is the end, whatever C code runs
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
    """Stop the clock of the surrounding `confined`, for a wait that is not the file's fault."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


def check_process_limits(limits: ProcessLimits) -> None:
    """Refuse limits under which nothing can be done.

    Raises:
        ValueError: naming what came.
    """
    for name, value in zip(limits._fields, limits, strict=True):
        if not value > 0:
            raise ValueError(f"the limit {name} of a process must be positive, but is {value}")


def meaning_of_exit(exit_code: int | None, limits: ProcessLimits) -> MediaError:
    """What the end of a process in the middle of `confined` says about its file; a negative code is a signal's."""
    if exit_code == -signal.SIGXCPU:
        return MediaError(
            MediaFault.OVER_LIMITS, f"it needs more than {limits.cpu_seconds:g} s of computing, the limit"
        )
    if exit_code == -signal.SIGALRM:
        return MediaError(MediaFault.OVER_LIMITS, f"it takes longer than {limits.seconds:g} s, the limit")
    if exit_code == -signal.SIGKILL:
        return MediaError(MediaFault.OVER_LIMITS, "its process was killed, most likely for want of memory")
    if exit_code is not None and -exit_code in _CRASHES:
        return MediaError(MediaFault.UNDECODABLE, f"reading it crashed ({signal.Signals(-exit_code).name})")
    return MediaError(MediaFault.UNDECODABLE, f"the process that read it ended ({exit_code})")


def _lacks_memory(error: Exception) -> bool:
    """Whether this is how numpy, FFmpeg, dlib or OpenCV say that memory ran out."""
    return isinstance(error, MemoryError) or "Insufficient memory" in str(error) or "bad_alloc" in str(error)
