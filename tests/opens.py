"""Counts how often a file is opened, by any process: Linux's inotify tells."""

import contextlib
import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

OPENED, CLOSED = 0x20, 0x18
"""IN_OPEN, and IN_CLOSE_WRITE with IN_CLOSE_NOWRITE: of these an opening and its end are two events, which are not merged."""

_HEAD = struct.Struct("iIII")


class Opens(list[int]):
    """The opened and closed events of a file, in order."""

    @property
    def count(self) -> int:
        """Number of times that the file was opened."""
        return sum(1 for mask in self if mask & OPENED)


@contextlib.contextmanager
def counted_opens(path: Path) -> Iterator[Opens]:
    """Yield the openings of a file; they are complete at the end of the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(0)
    assert libc.inotify_add_watch(queue, os.fsencode(path), OPENED | CLOSED) >= 0, os.strerror(ctypes.get_errno())
    seen, last = Opens(), threading.Event()

    def read() -> None:
        while not last.is_set():
            events = os.read(queue, 1 << 16)
            while events:
                _, mask, _, length = _HEAD.unpack_from(events)
                seen.append(mask)
                events = events[_HEAD.size + length :]

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        last.set()
        path.open("rb").close()  # wakes the reader
        reader.join()
        os.close(queue)
        while seen and not seen.pop() & OPENED:  # that opening is not the block's
            pass
