"""Reads the text files that people hand in: UTF-8 with or without a byte-order mark, or a sentence that says what to do."""

import os
from pathlib import Path


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, without its byte-order mark.

    Raises:
        ValueError: if it is in another encoding, as some spreadsheets and editors save, with the line.
        OSError: if it cannot be read.
    """
    return utf8(Path(path).read_bytes(), name=os.fspath(path))


def utf8(content: bytes, *, name: str) -> str:
    """The text in UTF-8 bytes, without its byte-order mark.

    Args:
        content: of the file.
        name: what the sentence calls it.

    Raises:
        ValueError: if it is in another encoding, with the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name} is no text in UTF-8 (the first trouble is in line {line}): save it as UTF-8"
        ) from None
