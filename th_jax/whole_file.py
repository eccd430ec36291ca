"""Writes a file whole or not at all: under another name, down to the disk, and then in place."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write to, which replaces that of the name when the block ends, unless it ends with an error.

    Args:
        path: its folder exists.
        mode: who may read and write it, from the start; the process's mask takes from it.

    Raises:
        OSError: if the disk refuses; what was there stays, and nothing is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine could leave the name without the bytes
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
