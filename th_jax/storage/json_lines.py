"""Reports of one JSON object per line, which survive a process that is killed while it writes."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line, with its end; file names in it need not be valid Unicode."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


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


def read_lines(path: Path, parse: Callable[[bytes], T]) -> list[T]:
    """Parse the lines of a report, and skip those that cannot be parsed, such as the last one of a killed process.

    Args:
        path: the report.
        parse: reads a line, and raises a ValueError or TypeError if it cannot.

    Raises:
        OSError: if the file cannot be read.
    """
    parsed = []
    for line in path.read_bytes().splitlines():
        try:
            parsed.append(parse(line))
        except (ValueError, TypeError):
            continue
    return parsed


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
