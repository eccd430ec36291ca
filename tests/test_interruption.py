"""A signal is noted once; the second acts as it always does."""

import os
import signal

import pytest

from th_jax.interruption import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
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
