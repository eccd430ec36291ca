"""Requests for avatars: one person by name and images, or a CSV file of many people, checked before any work."""

import csv
import io
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from th_jax.consent import NO_CONSENT
from th_jax.text import read_text

PEOPLE_FILE_COLUMNS = ("name", "shots", "landmarks", "face", "consent")
"""`landmarks` is optional: a file of 68 hand-marked points for a single photo. So is `face`: the number of the face in a photo
or video of several people. `consent` is the path of a consent record, or "none"."""

MAX_PEOPLE_FILE_BYTES = 64 * 2**20

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, end a line or change the text direction; names with them would be displayed
as other names."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")


class PersonRequest(NamedTuple):
    """A person to fine-tune; the name becomes the avatar's file name."""

    name: str
    shots: Path
    """A photo, a folder of photos, or a video."""
    landmarks: Path | None = None
    """68 hand-marked points, for a single photo."""
    consent: Path | None = None
    """Path of the consent record. None is an explicit choice, which the avatar and its outputs then state."""
    face: int | None = None
    """Number of the face in a photo or video of several people (`th_jax.data.people`)."""


def check_name(name: str) -> str:
    """Check a person's name, which becomes a file name, and return it.

    Raises:
        ValueError: if the name has characters other than letters, digits, `_`, `-` and `.`, or starts with a dot or
            dash.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} is not a valid avatar name: use 1 to 100 letters, digits, _, - and ., not starting "
            "with a dot or dash"
        )
    return name


def one_person(
    shots: Path,
    *,
    name: str | None = None,
    landmarks: Path | None = None,
    consent: Path | None = None,
    face: int | None = None,
) -> PersonRequest:
    """Make the request for one person, named after their folder or file by default.

    Raises:
        ValueError: if the images do not exist, if the name is not a valid file name, or if converting it would drop
            letters: Анна and Пётр must not both become "_".
    """
    if not shots.exists():
        raise ValueError(f"there are no images at {shots}: give a photo, a folder of photos or a video")
    if name is None:
        called = shots.resolve().name if shots.is_dir() else shots.resolve().stem  # ada.2023 is a folder's full name
        name = re.sub(r"[^A-Za-z0-9_.\-]+", "_", called).lstrip("-.")
        if not called.isascii() or not _NAME.fullmatch(name):
            raise ValueError(
                f"{called[:100]!r} is not a valid avatar name: choose one of up to 100 letters A to Z, digits, _, "
                "- and . with --name"
            )
    return PersonRequest(check_name(name), shots, landmarks, consent, face)


def read_people_file(path: Path, *, unrecorded: bool = False) -> list[PersonRequest]:
    """Read a CSV file of people, with a header and the columns name, shots, and optionally landmarks, face and consent.

    Paths are relative to the file's folder and may not leave it, so that a file from another source can only read the
    data that it was distributed with. Images and consent records are checked later, person by person. With
    `unrecorded`, people without a consent entry are treated as if "none" were written there.

    Raises:
        ValueError: if the file is malformed, or a person has no consent entry; the message gives the line.
        FileNotFoundError: if the file does not exist.
        OSError: if the file cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no people file at {path}")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file: a people file is a CSV file")
    if status.st_size > MAX_PEOPLE_FILE_BYTES:
        raise ValueError(f"{path} is larger than {MAX_PEOPLE_FILE_BYTES // 2**20} MiB, the limit of a people file")
    text = read_text(path)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is not a valid CSV file: {error}") from error
    header = [column.strip() for column in rows[0]] if rows else []
    if not {"name", "shots"} <= set(header) <= set(PEOPLE_FILE_COLUMNS) or len(set(header)) < len(header):
        raise ValueError(
            f"{path} must start with a header of the columns name and shots (optionally also landmarks, "
            f"face and consent), but starts with {','.join(header)[:100]!r}"
        )
    people: list[PersonRequest] = []
    lines: dict[str, int] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        person = _person(path, line, header, row, unrecorded)
        if (first := lines.setdefault(person.name.lower(), line)) != line:
            raise ValueError(f"{path}, line {line}: duplicate name {person.name!r}, first used in line {first}")
        people.append(person)
    if not people:
        raise ValueError(f"{path} has no entries: add at least one person")
    return people


def _person(path: Path, line: int, header: Sequence[str], row: Sequence[str], unrecorded: bool) -> PersonRequest:
    if len(row) != len(header):
        raise ValueError(f"{path}, line {line}: expected {len(header)} columns, got {len(row)}")
    cells = {column: cell.strip() for column, cell in zip(header, row, strict=True)}
    try:
        name = check_name(cells["name"])
        landmarks = _inside(path.parent, cells["landmarks"]) if cells.get("landmarks") else None
        shots, recorded = _inside(path.parent, cells["shots"]), cells.get("consent", "")
        if not recorded and not unrecorded:
            raise ValueError(
                'there is no consent record: add a consent column with its path or "none", or pass --consent none '
                "for everyone"
            )
        consent = _inside(path.parent, recorded) if recorded not in ("", NO_CONSENT) else None
        face = cells.get("face") or None
        if face is not None and not re.fullmatch("[1-9][0-9]{0,2}", face):
            raise ValueError(f"face must be a number from 1 to 999, but is {face[:20]!r}")
        return PersonRequest(name, shots, landmarks, consent, None if face is None else int(face))
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from error


def _inside(folder: Path, written: str) -> Path:
    if not written or "\0" in written:
        raise ValueError("the images are missing: give a photo, a folder of photos or a video")
    if _CONTROL.search(written):
        raise ValueError(f"{written[:100]!a} has unprintable characters: rename the file")
    inside = folder / written
    try:
        leaves = Path(written).is_absolute() or not inside.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a symlink loop, or a name that is too long
        raise ValueError(f"{written[:100]!r} cannot be found: {error}") from error
    if leaves:
        raise ValueError(f"{written[:100]!r} is outside the folder of the people file: move it inside")
    return inside
