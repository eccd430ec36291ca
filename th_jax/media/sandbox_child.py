"""The process behind `th_jax.media.sandbox`: runs one call after the other within its limits, until its pipe closes."""

import importlib
import operator
import sys
from multiprocessing.connection import Connection
from typing import Any

from th_jax.media.confinement import ProcessLimits, clock_stopped, confined
from th_jax.media.messages import failure_of, send_plain


def serve(pipe: Connection) -> None:
    """Answer calls until the pipe is closed."""
    pipe.send_bytes(b"ready")
    while True:
        try:
            streamed, name, arguments, options, limits = pipe.recv()
        except EOFError:
            return
        answer = _call(pipe if streamed else None, name, arguments, options, limits)
        try:
            _send(pipe, answer)
        except TypeError as error:
            _send(pipe, ("failed", failure_of(error)))


def _call(
    stream: Connection | None, name: tuple[str, str], arguments: tuple, options: dict[str, Any], limits: ProcessLimits
) -> tuple[str, Any]:
    """The last message of an answer, after the items of a stream."""
    try:
        # Loading is no work on the file.
        function = operator.attrgetter(name[1])(importlib.import_module(name[0]))
        with confined(limits):
            answer = function(*arguments, **options)
            if stream is None:
                return "done", answer
            for item in answer:
                with clock_stopped():  # a full pipe waits for whoever reads it
                    _send(stream, ("item", item))
            return "done", None
    except Exception as error:  # goes to the caller
        return "failed", failure_of(error)


def _send(pipe: Connection, message: tuple[str, Any]) -> None:
    try:
        send_plain(pipe, message)
    except ConnectionError:
        sys.exit()  # nobody listens any more


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
