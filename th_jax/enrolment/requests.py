"""Who is to be fine-tuned: one person by name and pictures, or a manifest of many, checked before any work."""

import csv
import io
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from th_jax.consent import NO_CONSENT
from th_jax.plain_text import read_text

MANIFEST_COLUMNS = ("name", "shots", "landmarks", "consent")
"""`landmarks` may be missing or empty: a file of 68 points by hand for a single picture. `consent` names a consent record, or
says none."""

MAX_MANIFEST_BYTES = 64 * 2**20

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, ends a line or turns the direction of letters: such a name would be shown as another."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")


class PersonRequest(NamedTuple):
    """Somebody to fine-tune; the avatar's file is called after the name."""

    name: str
    shots: Path
    """A folder of photos, a photo or a video."""
    landmarks: Path | None = None
    """68 points by hand, for a single photo."""
    consent: Path | None = None
    """Their consent record. None is somebody's decision to have none, which the avatar and its pictures then say."""


def check_name(name: str) -> str:
    """A person's name, which becomes a file's.

    Raises:
        ValueError: for a name of other characters than letters, digits, `_`, `-` and `.`, or a dot or dash at its start.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} cannot name an avatar: use 1 to 100 letters, digits, _, - and ., the first no dot or dash"
        )
    return name


def one_person(
    shots: Path, *, name: str | None = None, landmarks: Path | None = None, consent: Path | None = None
) -> PersonRequest:
    """The request for one person, called after their folder or file unless named.

    Raises:
        ValueError: if the pictures are not there, or the name cannot be a file's, or would lose letters as one: Анна and Пётр
            may not both become "_".
    """
    if not shots.exists():
        raise ValueError(f"there are no pictures at {shots}: give a folder of photos, a photo or a video")
    if name is None:
        called = shots.resolve().name if shots.is_dir() else shots.resolve().stem  # ada.2023 is a folder's whole name
        name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", called).lstrip("-.")
        if not called.isascii() or not _NAME.fullmatch(name):
            raise ValueError(
                f"{called[:100]!r} cannot name an avatar whole: give a name of up to 100 letters A to Z, digits, _, - and . "
                "with --name"
            )
    return PersonRequest(check_name(name), shots, landmarks, consent)


def read_manifest(path: Path, *, unrecorded: bool = False) -> list[PersonRequest]:
    """The people of a CSV file with a header: columns name and shots, and perhaps landmarks and consent.

    Paths are relative to the manifest's folder and may not leave it, so that a manifest from somebody else reads nothing but
    what came with it. Whether the pictures can be used, and the consent records hold, is found out person by person.

    Args:
        path: of the file.
        unrecorded: whether those without a consent record are taken as if "none" were written there.

    Raises:
        ValueError: for a file that is no such manifest, or with somebody without consent, naming the line.
        FileNotFoundError: if it is not there.
        OSError: if it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no manifest at {path}")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no file: a manifest of people is a CSV file")
    if status.st_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"{path} is larger than {MAX_MANIFEST_BYTES // 2**20} MiB: no manifest of people")
    text = read_text(path)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file: {error}") from error
    header = [column.strip() for column in rows[0]] if rows else []
    if not {"name", "shots"} <= set(header) <= set(MANIFEST_COLUMNS) or len(set(header)) < len(header):
        raise ValueError(
            f"{path} must begin with a header of the columns name,shots (and perhaps landmarks and consent), but begins "
            f"with {','.join(header)[:100]!r}"
        )
    people: list[PersonRequest] = []
    lines: dict[str, int] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        person = _person(path, line, header, row, unrecorded)
        if (first := lines.setdefault(person.name.lower(), line)) != line:
            raise ValueError(f"{path}, line {line}: {person.name!r} is already in line {first}")
        people.append(person)
    if not people:
        raise ValueError(f"{path} names nobody")
    return people


def _person(path: Path, line: int, header: Sequence[str], row: Sequence[str], unrecorded: bool) -> PersonRequest:
    if len(row) != len(header):
        raise ValueError(f"{path}, line {line}: {len(header)} columns were expected, but {len(row)} came")
    cells = {column: cell.strip() for column, cell in zip(header, row, strict=True)}
    try:
        name = check_name(cells["name"])
        landmarks = _inside(path.parent, cells["landmarks"]) if cells.get("landmarks") else None
        shots, recorded = _inside(path.parent, cells["shots"]), cells.get("consent", "")
        if not recorded and not unrecorded:
            raise ValueError(
                "there is no consent record: name it in a column consent or write none there, or add --consent none for all"
            )
        consent = _inside(path.parent, recorded) if recorded not in ("", NO_CONSENT) else None
        return PersonRequest(name, shots, landmarks, consent)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from error


def _inside(folder: Path, written: str) -> Path:
    if not written or "\0" in written:
        raise ValueError("the pictures are missing: name a folder of photos, a photo or a video")
    if _CONTROL.search(written):
        raise ValueError(f"{written[:100]!a} holds characters that cannot be shown: give the file another name")
    inside = folder / written
    try:
        leaves = Path(written).is_absolute() or not inside.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise ValueError(f"{written[:100]!r} cannot be found: {error}") from error
    if leaves:
        raise ValueError(f"{written[:100]!r} lies outside of the manifest's folder")
    return inside
