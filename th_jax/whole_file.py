"""Writes a file whole or not at all: under another name, down to the disk, and then in place."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which replaces that of the name when the block ends, unless it ends with an error.

    Raises:
        OSError: if the disk refuses; what was there stays, and nothing is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine could leave the name without the bytes
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
