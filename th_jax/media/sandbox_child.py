"""The process behind `th_jax.media.sandbox`: runs one call after the other within its limits, until its pipe closes."""

import importlib
import operator
import sys
from multiprocessing.connection import Connection
from typing import Any

from th_jax.media.confinement import ProcessLimits, confined
from th_jax.media.limits import MediaError
from th_jax.media.messages import send_plain

PASSED_ON = ("FileNotFoundError", "PermissionError", "OSError", "ImportError", "TypeError", "ValueError")
"""Exceptions that the caller gets as they are; others become RuntimeErrors."""


def serve(pipe: Connection) -> None:
    """Answer calls until the pipe is closed."""
    pipe.send_bytes(b"ready")
    while True:
        try:
            name, arguments, options, limits = pipe.recv()
        except EOFError:
            return
        answer = _call(name, arguments, options, limits)
        try:
            send_plain(pipe, answer)
        except TypeError as error:
            send_plain(pipe, _failure(error))


def _call(name: tuple[str, str], arguments: tuple, options: dict[str, Any], limits: ProcessLimits) -> tuple[str, Any]:
    try:
        # Loading is no work on the file.
        function = operator.attrgetter(name[1])(importlib.import_module(name[0]))
        with confined(limits):
            return "done", function(*arguments, **options)
    except Exception as error:  # goes to the caller
        return _failure(error)


def _failure(error: Exception) -> tuple[str, tuple[str, str]]:
    if isinstance(error, MediaError):
        return "failed", (error.fault, str(error))
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__name__ in PASSED_ON]
    return "failed", (kinds[0] if kinds else type(error).__name__, str(error))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
