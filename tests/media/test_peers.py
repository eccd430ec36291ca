"""The other end of a pipe may close at any time, and no process prints a traceback."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
import pytest

from th_jax.media.isolation import DEFAULT_PROCESS_LIMITS, Child, call_of, receive_plain, send_plain, start_child


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def endless_megabytes() -> Iterator[np.ndarray]:
    while True:
        yield np.zeros(2**20, np.uint8)


def ask(child: Child, function: Callable, *arguments: object, streamed: bool = True) -> None:
    assert receive_plain(child.pipe, most=0) == "ready"
    send_plain(child.pipe, call_of(function, arguments, {}, DEFAULT_PROCESS_LIMITS)._replace(streamed=streamed))


def leaves_the_last_message_unread(child: Child) -> None:
    ask(child, numbers, 1)
    assert receive_plain(child.pipe, most=0) == ("item", 0)
    assert child.pipe.poll(30)  # the last message lies there


def leaves_an_answer_unread(child: Child) -> None:
    ask(child, abs, -1, streamed=False)
    assert child.pipe.poll(30)


def gives_up_a_stream(child: Child) -> None:
    ask(child, endless_megabytes)
    assert receive_plain(child.pipe, most=2**20)[0] == "item"
    time.sleep(0.2)  # the pipe is full, and the other process waits for it


def asks_nothing(child: Child) -> None:
    assert receive_plain(child.pipe, most=0) == "ready"


def is_gone_before_the_start(_: Child) -> None:
    pass


def waits_for_long_work(child: Child) -> None:
    ask(child, time.sleep, 600, streamed=False)
    time.sleep(0.2)


CALLERS = [
    leaves_the_last_message_unread, leaves_an_answer_unread, gives_up_a_stream, asks_nothing, is_gone_before_the_start,
    waits_for_long_work,
]  # fmt: skip


@pytest.mark.parametrize("caller", CALLERS)
def test_a_process_whose_caller_exited_ends_silently(
    caller: Callable[[Child], None], capfd: pytest.CaptureFixture[str]
) -> None:
    child = start_child()
    caller(child)
    child.pipe.close()
    assert child.process.wait(30) == 0
    assert capfd.readouterr() == ("", "")


def closes(there: Connection) -> None:
    there.close()


def closes_with_a_message_unread(there: Connection) -> None:
    assert there.poll(5)
    there.close()


def leaves_half_a_message(there: Connection) -> None:
    os.write(there.fileno(), b"\0\0\1\0half of it")
    there.close()


@pytest.mark.parametrize("end", [closes, closes_with_a_message_unread, leaves_half_a_message])
def test_every_way_to_disconnect_is_one_error(end: Callable[[Connection], None]) -> None:
    here, there = Pipe()
    send_plain(here, "a message")
    end(there)
    with pytest.raises(EOFError):
        receive_plain(here, most=0)
    with pytest.raises(EOFError):
        send_plain(here, np.zeros(10))


def test_a_call_to_a_process_that_was_just_killed_is_an_error_of_its_pipe() -> None:
    child = start_child()
    assert receive_plain(child.pipe, most=0) == "ready"
    child.process.send_signal(signal.SIGKILL)
    assert child.process.wait(30) == -signal.SIGKILL
    with pytest.raises(EOFError):
        send_plain(child.pipe, "a call")
    child.pipe.close()
