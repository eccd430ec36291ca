"""Paths and addresses: what has a scheme, such as gs://bucket/run or memory://run, is fsspec's; the rest is local."""

import os
from typing import Any


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether fsspec reads this address; everything without a scheme is a local path."""
    return "://" in os.fspath(path)


def filesystem_of(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path inside of it.

    Raises:
        ValueError: if the address needs a package that is not installed.
    """
    import fsspec  # here: local files need none of it

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        extra = " (pip install 'th_jax[gcs]')" if address.startswith(("gs://", "gcs://")) else ""
        raise ValueError(f"{address} needs a package that is not installed{extra}: {error}") from error
