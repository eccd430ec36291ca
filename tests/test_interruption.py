"""A signal is noted once; the second ends the process at once."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from th_jax.signals import StopRequest, interrupting


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_and_handlers_are_restored(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    with StopRequest() as stop:
        assert not stop.agreed(0)
        os.kill(os.getpid(), number)
        assert stop.agreed(1)
        assert stop.signal == number.name
    assert {n: signal.getsignal(n) for n in before} == before


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    """Whatever it is doing: neither `finally` nor anything after it runs."""
    program = (
        "import os, signal, sys; from th_jax.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        f"    try: print(stop.signal, flush=True); os.kill(os.getpid(), {int(second)}); print('still here')\n"
        "    finally: print('tidying up')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (75, "SIGTERM\n")
    assert done.stderr == (
        "stopping after this step; a second signal ends the process at once\n"
        "ended at once by a second signal; run the same command again to continue\n"
    )


def test_without_a_signal_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert signal.getsignal(signal.SIGTERM) != before
        assert stop.signal == ""
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_within_a_signal_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=number.name), interrupting():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_another_thread_leaves_signals_alone() -> None:
    def seen() -> object:
        with interrupting():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as other:
        assert other.submit(seen).result() == signal.getsignal(signal.SIGTERM)
