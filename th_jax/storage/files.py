"""File access: atomic writes, checks of output paths, and reads of local files and remote storage (gs://, memory://).

Local files are read by position, remote ones through fsspec.
"""

import contextlib
import hashlib
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from th_jax.optional import install_command


def user_cache_folder() -> Path | None:
    """Return the folder of this package's caches; None if the user has no home folder."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if sys.platform == "darwin":
        base = None if home is None else home / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ["LOCALAPPDATA"]) if os.environ.get("LOCALAPPDATA") else None
    else:
        written = os.environ.get("XDG_CACHE_HOME")
        base = Path(written) if written else None if home is None else home / ".cache"
    return None if base is None else base / "th_jax"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an address that fsspec reads; everything without a scheme is a local path."""
    return "://" in os.fspath(path)


def filesystem_of(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path within it.

    Raises:
        ValueError: if the address is invalid, or needs a package that is not installed.
    """
    import fsspec  # imported here, because local files do not need it

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        extra = f" ({install_command('gcs')})" if address.startswith(("gs://", "gcs://")) else ""
        raise ValueError(f"{address} requires a package that is not installed{extra}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{address} cannot be reached: {error}") from error


def check_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Check, before any work, that a file or folder can be created.

    Args:
        path: path of a file, which may exist and whose folder must exist; or path of a folder.
        folder: whether the path is that of a folder, which would be created with its missing parents.

    Raises:
        FileNotFoundError: if a file's folder does not exist.
        NotADirectoryError, IsADirectoryError: if the path, or a folder above it, exists as the wrong kind of entry.
        PermissionError: if this user may not write there, or the file system is read-only.
        FileExistsError: if the path is that of a device or a pipe.
    """
    path = Path(path)
    there = path if folder else path.parent
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"cannot create {path}: {there} is not a folder; choose another location")
    if not (folder and there == path) and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot create {path}: {there} is not writable; choose another location")
    if folder:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: create it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file")
    if path.exists() and not path.is_file():  # the finished file would take its place
        raise FileExistsError(f"{path} is a device or a pipe: name a file")


_LONGEST_NAME = 255
"""Length of the longest file name on common file systems, in bytes."""


@contextlib.contextmanager
def whole_path(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Write a file atomically by its path, as `whole_file` does by an open file: for libraries that open files themselves.

    Args:
        path: path of the file; its folder must exist.
        replace: whether the file replaces an existing one.

    Yields:
        The path of the temporary file, which the block must create. It has another suffix.

    Raises:
        FileExistsError: if the file exists at the end of the block, and `replace` is False.
        OSError: if the file cannot be written; an existing file is unchanged, and no partial file remains.
    """
    path = Path(path)
    ending = f".{secrets.token_hex(4)}.partial"  # on shared storage, process IDs are not unique
    name = f".{path.name}"
    if len(os.fsencode(name + ending)) > _LONGEST_NAME:
        name = os.fsencode(name)[: _LONGEST_NAME - len(ending)].decode(errors="ignore")
    partial = path.with_name(name + ending)
    try:
        yield partial
        flush_to_disk(partial)  # otherwise a system crash could leave an empty file under this name
        if replace:
            partial.replace(path)
        else:
            os.link(partial, path)  # unlike renaming, linking does not replace an existing file
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, mode: int = 0o666, replace: bool = True) -> Iterator[BinaryIO]:
    """Write a file atomically: temporary file, fsync, rename.

    The file replaces an existing one when the block ends, unless it ends with an error.

    Args:
        path: path of the file; its folder must exist.
        mode: permissions of the file from the start, restricted by the process's umask.
        replace: whether the file replaces an existing one.

    Yields:
        The temporary file, open for writing.

    Raises:
        FileExistsError, OSError: as `whole_path`.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with whole_path(path, replace=replace) as partial, os.fdopen(os.open(partial, flags, mode), "wb") as file:
        yield file


_READ_AT_ONCE = 1 << 30  # Linux reads at most 2 GiB per call


def join(folder: str | os.PathLike[str], name: str) -> str:
    """Return the path or address of the file `name` in `folder`."""
    return f"{os.fspath(folder).rstrip('/')}/{name}"


def read_range(path: str, offset: int, length: int) -> bytes:
    """Read `length` bytes from byte `offset` on, fewer only at the end of the file. Thread-safe.

    Raises:
        FileNotFoundError: if the file does not exist.
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
    """Return the size of a file in bytes.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a regular file, or the address needs a package that is not installed.
    """
    if is_remote(path):
        filesystem, inner = filesystem_of(path)
        return int(filesystem.size(inner))
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file, but a folder, a device or a pipe")
    return status.st_size


def file_sha256(file: str | os.PathLike[str] | io.BufferedIOBase) -> str:
    """Compute the SHA-256 digest of a local file's bytes, in hexadecimal.

    Args:
        file: path of the file, or the open file, which is read from its start.

    Raises:
        OSError: if the file cannot be read.
    """
    if isinstance(file, io.BufferedIOBase):
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def flush_to_disk(*paths: str | os.PathLike[str]) -> None:
    """Wait until files, or the entries of folders, are on the disk (fsync).

    Raises:
        OSError: if one cannot be opened or flushed.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: str, *, most: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: path or address of the file.
        most: maximum size in bytes, by default unlimited.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is too large or not a regular file, or the address needs a package that is not installed.
    """
    size = file_size(path)
    if most is not None and size > most:
        raise ValueError(f"{path} has {size} bytes, over the limit of {most}")
    return read_range(path, 0, size)
