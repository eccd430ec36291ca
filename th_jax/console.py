"""Robust command output: output errors neither stop a command's work nor change its exit code.

The reader of the output may have exited (`| head`), the terminal may not support a character of a file name, and the disk that
the output is redirected to may be full. None of these affect a result that the command has already written.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Forgiving:
    """A stream that writes until an error; then its file becomes the null device, which discards all further output."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[..., Any], *arguments: str) -> None:
        try:
            action(*arguments)
        except (OSError, ValueError) as error:  # ValueError: closed, or cannot be encoded
            self.error = self.error or error
            # Otherwise the interpreter would retry at exit and exit with an error.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self._stream.fileno())


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Ignore errors of standard output and standard error within the block; used to decorate a command's `main`.

    Characters that a stream's encoding does not support are escaped. If output is lost for a reason other than a closed pipe,
    such as a full disk, a line is written to standard error.
    """
    before = sys.stdout, sys.stderr
    output, errors = (None if stream is None else _Forgiving(stream) for stream in before)
    sys.stdout, sys.stderr = output, errors
    try:
        yield
    finally:
        if output is not None:
            output.flush()
            if output.error is not None and not isinstance(output.error, BrokenPipeError):
                print(f"cannot write the output: {output.error}", file=sys.stderr)
        if errors is not None:
            errors.flush()
        sys.stdout, sys.stderr = before


def check_printed() -> None:
    """Check that all output was printed, before an action that depends on it.

    Raises:
        OSError: if a part of the output was lost, or there is no standard output.
    """
    if sys.stdout is None:
        raise OSError("there is no standard output to print to")
    sys.stdout.flush()
    if (error := getattr(sys.stdout, "error", None)) is not None:
        raise OSError(f"cannot write the output: {error}")
