"""Reports of one JSON object per line, which survive a process that is killed while it writes."""

import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Append a line, which ends in a newline, and wait until it is on the disk.

    A last line that a killed process left without its end is ended first, so that only that line is lost.

    Raises:
        OSError: if the file cannot be written.
    """
    with path.open("a+b") as file:
        if file.tell() and not _ends_with_newline(path):
            file.write(b"\n")
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
