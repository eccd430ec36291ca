"""The process behind `th_jax.media.sandbox`: runs one call after the other within its limits, until its pipe closes."""

import contextlib
import importlib
import operator
import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from th_jax.media.confinement import ProcessLimits, clock_stopped, confined
from th_jax.media.messages import Call, failure_of, receive_plain, send_plain


def serve(pipe: Connection) -> None:
    """Answer calls until the caller is gone, which may be at any moment, also in the midst of an answer."""
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
    """The last message of an answer, after the items of a stream."""
    try:
        # Loading is no work on the file.
        function = operator.attrgetter(call.function)(importlib.import_module(call.module))
        with contextlib.nullcontext() if call.limits is None else confined(ProcessLimits(*call.limits)):
            answer = function(*call.arguments, **call.options)
            if not call.streamed:
                return "done", answer
            for item in answer:
                with clock_stopped():  # a full pipe waits for whoever reads it
                    send_plain(pipe, ("item", item))
            return "done", None
    except Exception as error:  # goes to the caller; if that is gone, sending it says so
        return "failed", failure_of(error)


def _end_with_caller(descriptor: int) -> None:
    """End this process once the other end is closed: a caller that was killed cannot stop it, and work may take hours."""
    hang_up = select.poll()
    hang_up.register(descriptor, 0)  # no events but that one
    hang_up.poll()
    os._exit(0)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
