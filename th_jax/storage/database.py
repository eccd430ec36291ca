"""SQLite databases whose commits survive a crash of the process or the machine."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUSY_SECONDS = 20.0


@contextmanager
def durable_connection(path: Path, *, flush: bool = True) -> Iterator[sqlite3.Connection]:
    """Open a connection with explicit commits, which reach the disk before they return.

    Threads and processes may each open their own. Closing it without a COMMIT rolls back.

    Args:
        path: file of the database.
        flush: whether commits wait for the disk; otherwise a power failure, but no crash of the process, may undo the last.

    Raises:
        sqlite3.Error: if the file cannot be opened, or is not a database.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # WAL's usual NORMAL may lose the last commits in a power failure.
        connection.execute("PRAGMA synchronous = FULL" if flush else "PRAGMA synchronous = NORMAL")
        yield connection
    finally:
        connection.close()
