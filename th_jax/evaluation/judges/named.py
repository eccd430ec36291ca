"""Parses NAME=FILE arguments of a command line: unique names for the networks' scores."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


def named_files(given: Sequence[str], *, taken: Collection[str] = ()) -> dict[str, Path]:
    """Parse files by name.

    Each is given in the form NAME=FILE; names in `taken` are reserved.

    Raises:
        ValueError: if an argument has another form, or a name is reserved or repeated.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not file or not _NAME.fullmatch(name):
            raise ValueError(
                f"a network must be given as NAME=FILE, with a NAME of letters, digits, _, . and -, got {text!r}"
            )
        if name in taken or name in files:
            raise ValueError(f"the network name {name!r} is already used: choose another one")
        files[name] = Path(file)
    return files
