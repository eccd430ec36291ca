"""Copies files between the local disk and remote storage that fsspec supports, such as gs://."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from th_jax.storage.files import filesystem_of, is_remote, join, whole_file


def remote_files(address: str) -> list[str]:
    """List the names of all files below an address, relative to it, sorted.

    Raises:
        FileNotFoundError: if there are no files.
        ValueError: if the address needs a package that is not installed.
    """
    filesystem, inner = filesystem_of(address)
    start = inner.rstrip("/") + "/"
    names = sorted(path[len(start) :] for path in filesystem.find(inner) if path.startswith(start))
    if not names:
        raise FileNotFoundError(f"the source {address} does not exist, or contains no files")
    return names


def exists(address: str) -> bool:
    """Return whether a file or a folder exists.

    Raises:
        ValueError: if the address needs a package that is not installed.
    """
    if not is_remote(address):
        return os.path.lexists(address)
    filesystem, inner = filesystem_of(address)
    return bool(filesystem.exists(inner))


def fetch(folder: str, names: Iterable[str], into: Path) -> None:
    """Copy files of a remote folder to the same names below a local one.

    Raises:
        OSError: if one cannot be read or written.
    """
    filesystem, inner = filesystem_of(folder)
    for name in names:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(join(inner, name), str(target))


def store(path: Path, address: str) -> None:
    """Copy a local file to a local or remote address, where it appears atomically.

    Raises:
        OSError: if it cannot be read or written.
    """
    if is_remote(address):
        filesystem, inner = filesystem_of(address)
        filesystem.put_file(str(path), inner)  # object stores show complete files only
        return
    with path.open("rb") as source, whole_file(address) as target:
        shutil.copyfileobj(source, target)


def remove(address: str) -> None:
    """Delete a file, or a folder with its content, if it exists."""
    if not exists(address):
        return
    if is_remote(address):
        filesystem, inner = filesystem_of(address)
        filesystem.rm(inner, recursive=True)
    elif os.path.isdir(address):
        shutil.rmtree(address)
    else:
        os.unlink(address)
