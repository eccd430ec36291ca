"""Writes a file whole or not at all: under another name, down to the disk, and then in place; says first if it cannot."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def check_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuse, before any work, a place where no file or folder can be made.

    Args:
        path: of a file, whose folder must be there; one that exists may be replaced.
        folder: whether it is a folder, which would be made with those above it where they are missing.

    Raises:
        FileNotFoundError: if a file's folder is not there.
        NotADirectoryError, IsADirectoryError: if something else stands in the way.
        PermissionError: if this user may not write there, or nobody may.
    """
    path = Path(path)
    there = path if folder else path.parent
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be made: {there} is no folder; choose another place")
    if not (folder and there == path) and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be made: {there} may not be written to; choose another place")
    if folder:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")


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
