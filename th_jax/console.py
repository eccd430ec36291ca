"""Output of commands: what cannot be printed is left out, and neither stops a command's work nor changes its exit code.

Whoever reads the output may be gone (`| head`), the terminal may lack a letter of a file's name, and the disk that the
output goes to may be full. None of that is a fault of the film that was written before the command said so.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Forgiving:
    """A stream that writes as long as it can; then its file becomes the null device, which takes all that is left."""

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
        except (OSError, ValueError) as error:  # ValueError: it is closed, or cannot encode
            self.error = self.error or error
            # Else the interpreter would try once more as it ends, and end with an error.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self._stream.fileno())


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Within, errors of standard output and standard error are left out; to decorate a command's `main` with.

    Letters that a stream's encoding lacks become escapes. Of output that is lost for another reason than that nobody reads it,
    such as a full disk, standard error has a line.
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
                print(f"the output could not be written: {output.error}", file=sys.stderr)
        if errors is not None:
            errors.flush()
        sys.stdout, sys.stderr = before


def check_printed() -> None:
    """Refuse to go on with what may only be done once it was printed.

    Raises:
        OSError: if a part of the output was lost, or there is none.
    """
    if sys.stdout is None:
        raise OSError("there is no standard output to print to")
    sys.stdout.flush()
    if (error := getattr(sys.stdout, "error", None)) is not None:
        raise OSError(f"the output could not be written: {error}")
