"""Moves whole files between the local disk and addresses that fsspec knows, such as gs://; both ends may be local."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from th_jax.storage.files import is_remote, join


def remote_files(address: str) -> list[str]:
    """Names of all files below an address, relative to it, sorted.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if the address needs a package that is not installed.
    """
    filesystem, inner = _filesystem(address)
    start = inner.rstrip("/") + "/"
    names = sorted(path[len(start) :] for path in filesystem.find(inner) if path.startswith(start))
    if not names:
        raise FileNotFoundError(f"the source {address} holds no file, or does not exist")
    return names


def exists(address: str) -> bool:
    """Whether there is a file or a folder.

    Raises:
        ValueError: if the address needs a package that is not installed.
    """
    if not is_remote(address):
        return os.path.lexists(address)
    filesystem, inner = _filesystem(address)
    return bool(filesystem.exists(inner))


def fetch(folder: str, names: Iterable[str], into: Path) -> None:
    """Copy files of a remote folder to the same names below a local one.

    Raises:
        OSError: if one cannot be read or written.
    """
    filesystem, inner = _filesystem(folder)
    for name in names:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(join(inner, name), str(target))


def store(path: Path, address: str) -> None:
    """Copy a local file to an address, local or remote; it appears there whole or not at all.

    Raises:
        OSError: if it cannot be read or written.
    """
    if is_remote(address):
        filesystem, inner = _filesystem(address)
        filesystem.put_file(str(path), inner)  # object stores show a file when all of it has come
        return
    # Several workers may store the same file, each for itself.
    partial = f"{address}.{os.getpid()}.partial"
    shutil.copyfile(path, partial)
    os.replace(partial, address)


def remove(address: str) -> None:
    """Delete a file, or a folder with all that is in it; nothing happens if there is none."""
    if not exists(address):
        return
    if is_remote(address):
        filesystem, inner = _filesystem(address)
        filesystem.rm(inner, recursive=True)
    elif os.path.isdir(address):
        shutil.rmtree(address)
    else:
        os.unlink(address)


def _filesystem(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        extra = " (pip install 'th_jax[gcs]')" if address.startswith(("gs://", "gcs://")) else ""
        raise ValueError(f"{address} cannot be reached{extra}: {error}") from error
