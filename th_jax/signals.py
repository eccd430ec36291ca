"""Signals and errors that end a run: graceful stop, immediate stop with cleanup, and out-of-memory detection."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

INTERRUPTED = 75
"""Exit code of a process that a signal ended, and that the same command continues: EX_TEMPFAIL."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has only SIGTERM


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C within the block, so that partial files are removed.

    Only the main thread can set signal handlers; in other threads nothing changes.

    Raises:
        KeyboardInterrupt: if such a signal arrives.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, interrupt) for number in _ENDING if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest:
    """Graceful stop: `with StopRequest() as stop:` … `if stop.agreed(step): save and return`.

    The first signal requests a stop after the current step. A second one ends the process at once, as SIGKILL does, which
    harms nothing: files are written atomically.

    Attributes:
        signal: name of the received signal, or "".
    """

    def __init__(self) -> None:
        """Create a request without a signal."""
        self.signal = ""
        self._before: dict[signal.Signals, Any] = {}

    def agreed(self, step: int) -> bool:
        """Return whether to stop before this step; several processes all get the same answer at the same step.

        With several processes, jax.distributed listens to SIGTERM (on any host) and finds a step that none of them has
        reached.
        """
        import jax  # here: commands that need no devices are interrupted too
        from jax.experimental import multihost_utils

        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return bool(self.signal)

    def __enter__(self) -> "StopRequest":
        """Install the signal handlers, unless jax.distributed has installed its own; only the main thread may do so."""
        import jax

        if jax.process_count() == 1:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        else:  # JAX listens to SIGTERM alone
            self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._pass_on)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous signal handlers."""
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os.write(2, b"ended at once by a second signal; run the same command again to continue\n")
            os._exit(INTERRUPTED)
        self.signal = signal.Signals(number).name
        os.write(2, b"stopping after this step; a second signal ends the process at once\n")

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            self._note(number, frame)
        self.signal = signal.Signals(number).name
        os.kill(os.getpid(), signal.SIGTERM)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def is_out_of_memory(error: BaseException) -> bool:
    """Detect out-of-memory errors on the host or a device; XLA has no exception type for them."""
    if isinstance(error, MemoryError):
        return True
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
