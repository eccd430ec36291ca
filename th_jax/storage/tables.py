"""Tables that users write: CSV files with a header, whose cells name files beside them."""

import csv
import io
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from th_jax.text import read_text

MAX_TABLE_BYTES = 64 * 2**20

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, end a line or change the text direction; names with them would be displayed
as other names."""


def read_table(
    path: Path, *, called: str, required: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header; empty lines are skipped.

    Args:
        path: local file.
        called: what the file is in messages, such as "people file".
        required: columns that must be there.
        optional: columns that may be there.

    Returns:
        The number of each line, from 2, and its stripped cells by column.

    Raises:
        ValueError: if the file is too large, malformed, or has other columns; the message gives the line.
        FileNotFoundError: if the file does not exist.
        OSError: if the file cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {called} at {path}")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file: a {called} is a CSV file")
    if status.st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{path} is larger than {MAX_TABLE_BYTES // 2**20} MiB, the limit of a {called}")
    text = read_text(path)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is not a valid CSV file: {error}") from error
    header = [column.strip() for column in rows[0]] if rows else []
    if not {*required} <= {*header} <= {*required, *optional} or len({*header}) < len(header):
        raise ValueError(
            f"{path} must start with a header of the columns {_listed(required)} (optionally also {_listed(optional)}), "
            f"but starts with {','.join(header)[:100]!r}"
        )
    lines = []
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: expected {len(header)} columns, got {len(row)}")
        lines.append((line, {column: cell.strip() for column, cell in zip(header, row, strict=True)}))
    return lines


def file_beside(table: Path, written: str, *, called: str, missing: str) -> Path:
    """Return the path that a cell names, relative to the table's folder.

    It may not leave the folder, so that a table from another source can only read the data that it was distributed with.

    Args:
        table: path of the table.
        written: the cell.
        called: what the table is in messages.
        missing: message for an empty cell.

    Raises:
        ValueError: if the cell is empty, has unprintable characters, or names a file outside the folder.
    """
    if not written or "\0" in written:
        raise ValueError(missing)
    if _CONTROL.search(written):
        raise ValueError(f"{written[:100]!a} has unprintable characters: rename the file")
    folder = table.parent
    inside = folder / written
    try:
        leaves = Path(written).is_absolute() or not inside.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a symlink loop, or a name that is too long
        raise ValueError(f"{written[:100]!r} cannot be found: {error}") from error
    if leaves:
        raise ValueError(f"{written[:100]!r} is outside the folder of the {called}: move it inside")
    return inside


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
