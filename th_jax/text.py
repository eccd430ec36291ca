"""Text from untrusted sources: UTF-8 files with or without a byte-order mark, and characters that terminals interpret."""

import os
from pathlib import Path


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file, without its byte-order mark.

    Raises:
        ValueError: if the file has another encoding, as some spreadsheets and editors write; the message has the line.
        OSError: if the file cannot be read.
    """
    return utf8(Path(path).read_bytes(), name=os.fspath(path))


def utf8(content: bytes, *, name: str) -> str:
    """Decode UTF-8 bytes, without their byte-order mark.

    Args:
        content: content of the file.
        name: name of the file, for the error message.

    Raises:
        ValueError: if the content has another encoding; the message has the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{name} is not valid UTF-8 (first error in line {line}): save it as UTF-8") from None


def escape_control_chars(text: str, *, most: int | None = None) -> str:
    """Escape unprintable characters as in Python literals, so that text from a file cannot control a terminal.

    Args:
        text: untrusted text, such as a file name; line breaks are escaped too.
        most: maximum number of characters before escaping, by default unlimited; longer text ends in "...".
    """
    cut = text if most is None or len(text) <= most else text[:most] + "..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
