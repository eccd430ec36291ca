"""All bytes of a data set come in here: positional reads of local files, fsspec for gs://, memory:// and the like."""

import os
import stat

from th_jax.addresses import filesystem_of
from th_jax.addresses import is_remote as is_remote

_READ_AT_ONCE = 1 << 30  # Linux reads at most 2 GiB a call


def join(folder: str | os.PathLike[str], name: str) -> str:
    """Path or address of the file `name` in `folder`."""
    return f"{os.fspath(folder).rstrip('/')}/{name}"


def read_range(path: str, offset: int, length: int) -> bytes:
    """`length` bytes of the file from byte `offset` on; fewer only where the file ends. Safe to call from many threads.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the address needs a package that is not installed.
    """
    if length <= 0:
        return b""
    if is_remote(path):
        filesystem, inner = filesystem_of(path)
        return bytes(filesystem.cat_file(inner, start=offset, end=offset + length))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        data = os.pread(descriptor, min(length, _READ_AT_ONCE), offset)
        if len(data) == length:
            return data
        pieces = [data]
        missing = length - len(data)
        while data and missing > 0:
            data = os.pread(descriptor, min(missing, _READ_AT_ONCE), offset + length - missing)
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def file_size(path: str) -> int:
    """Size of the file in bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no regular file, or the address needs a package that is not installed.
    """
    if is_remote(path):
        filesystem, inner = filesystem_of(path)
        return int(filesystem.size(inner))
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no file, but a folder, a device or a pipe")
    return status.st_size


def read_file(path: str, *, most: int | None = None) -> bytes:
    """The whole file, which may have `most` bytes (any number by default).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is larger, a folder, or the address needs a package that is not installed.
    """
    size = file_size(path)
    if most is not None and size > most:
        raise ValueError(f"{path} has {size} bytes, over the limit of {most}")
    return read_range(path, 0, size)
