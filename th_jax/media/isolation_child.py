"""The child process of `th_jax.media.isolation`: runs one call after another within limits, until its pipe is closed."""

import contextlib
import importlib
import operator
import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from th_jax.media.isolation import Call, ProcessLimits, clock_stopped, confined, failure_of, receive_plain, send_plain
from th_jax.media.restrict import restrict


def serve(pipe: Connection) -> None:
    """Answer calls until the other end is closed, which may happen at any time, even while sending an answer."""
    threading.Thread(target=_end_with_caller, args=(pipe.fileno(),), daemon=True).start()
    with contextlib.suppress(EOFError):
        send_plain(pipe, "ready")
        while True:
            call = Call(*receive_plain(pipe, most=sys.maxsize))
            answer = _answer(call, pipe)
            try:
                send_plain(pipe, answer)
            except TypeError as error:
                send_plain(pipe, ("failed", failure_of(error)))


def _answer(call: Call, pipe: Connection) -> tuple[str, Any]:
    """Run a call, send the items of a stream, and return the last message of the answer."""
    try:
        # Imported outside the limits, because loading is not work on the file.
        function = operator.attrgetter(call.function)(importlib.import_module(call.module))
        with contextlib.nullcontext() if call.limits is None else confined(ProcessLimits(*call.limits)):
            answer = function(*call.arguments, **call.options)
            if not call.streamed:
                return "done", answer
            for item in answer:
                with clock_stopped():  # a full pipe waits for its reader
                    send_plain(pipe, ("item", item))
            return "done", None
    except Exception as error:  # sent to the caller; if it is gone, sending fails
        return "failed", failure_of(error)


def _end_with_caller(descriptor: int) -> None:
    """Exit when the other end is closed: a killed caller cannot stop this process, and work may take hours."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)  # no events other than that one
    hang_up.poll()
    os._exit(0)


if __name__ == "__main__":
    restrict()
    serve(Connection(int(sys.argv[1])))
