"""Stands in for decoders that a hostile video has got at: each comes to another bad end after a first good item."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np


def _begin(size: int | None) -> Any:
    """What comes first: an image of that size, or rate and channels of sound."""
    return (16000, 1) if size is None else np.zeros((size, size, 3), np.uint8)


def is_killed(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
    signal.raise_signal(signal.SIGKILL)


def crashes(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
    os.abort()


def hangs(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
    time.sleep(60)


def eats_memory(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
    yield np.ones(2**37, np.uint8)


def lies(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
    yield np.zeros((3, 2, 1), np.float32)


def sends_too_much(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
    yield np.zeros(10**6, np.uint8)


def stops(*_: Any, size: int | None = None) -> Iterator[Any]:
    yield _begin(size)
