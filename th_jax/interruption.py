"""Signals that ask a run to stop: it finishes its step, saves, and ends well; or it tidies up and ends at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one of them


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP do what Ctrl-C does, so that files which are half written are removed.

    Only the main thread may say what signals do: in another one, nothing changes.

    Raises:
        KeyboardInterrupt: when such a signal comes.
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
    """`with StopRequest() as stop:` … `if stop.agreed(step): save and return`. A second signal acts as it always does.

    Attributes:
        signal: name of the signal that came, or "".
    """

    def __init__(self) -> None:
        """No signal yet."""
        self.signal = ""
        self._before: dict[signal.Signals, Any] = {}

    def agreed(self, step: int) -> bool:
        """Whether to stop before this step. With several processes all of them get the same answer at the same step.

        There jax.distributed listens to SIGTERM (of any of the hosts) and finds a step that all have yet to reach.
        """
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return bool(self.signal)

    def __enter__(self) -> "StopRequest":
        """Take the signals over, unless jax.distributed has them; only the main thread may."""
        if jax.process_count() == 1:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back."""
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
