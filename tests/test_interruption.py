"""A signal is noted once; the second acts as it always does."""

import os
import signal
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
        assert {n: signal.getsignal(n) for n in before} == before, "a second one is not held back"
    assert {n: signal.getsignal(n) for n in before} == before


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
