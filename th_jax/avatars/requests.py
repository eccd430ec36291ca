"""Requests for avatars: one person by name and images, or a CSV file of many people, checked before any work."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from th_jax.consent import NO_CONSENT
from th_jax.storage.tables import file_beside, read_table

PEOPLE_FILE_COLUMNS = ("name", "shots", "landmarks", "face", "consent")
"""`landmarks` is optional: a file of 68 hand-marked points for a single photo. So is `face`: the number of the face in a photo
or video of several people. `consent` is the path of a consent record, or "none"."""

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


def check_name(name: str, *, of: str = "avatar") -> str:
    """Check a person's name, which becomes a file name, and return it.

    Raises:
        ValueError: if the name has characters other than letters, digits, `_`, `-` and `.`, or starts with a dot or
            dash.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} is not a valid {of} name: use 1 to 100 letters, digits, _, - and ., not starting "
            "with a dot or dash"
        )
    return name


def face_of_cell(written: str) -> int | None:
    """Parse a table's number of a face, from 1 to 999; None if the cell is empty.

    Raises:
        ValueError: if it is anything else.
    """
    if written and not re.fullmatch("[1-9][0-9]{0,2}", written):
        raise ValueError(f"face must be a number from 1 to 999, but is {written[:20]!r}")
    return int(written) if written else None


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
    rows = read_table(path, called="people file", required=PEOPLE_FILE_COLUMNS[:2], optional=PEOPLE_FILE_COLUMNS[2:])
    people: list[PersonRequest] = []
    lines: dict[str, int] = {}
    for line, cells in rows:
        person = _person(path, line, cells, unrecorded)
        if (first := lines.setdefault(person.name.lower(), line)) != line:
            raise ValueError(f"{path}, line {line}: duplicate name {person.name!r}, first used in line {first}")
        people.append(person)
    if not people:
        raise ValueError(f"{path} has no entries: add at least one person")
    return people


def _person(path: Path, line: int, cells: Mapping[str, str], unrecorded: bool) -> PersonRequest:
    def named(cell: str) -> Path:
        return file_beside(
            path,
            cell,
            called="people file",
            missing="the images are missing: give a photo, a folder of photos or a video",
        )

    try:
        name = check_name(cells["name"])
        landmarks = named(cells["landmarks"]) if cells.get("landmarks") else None
        shots, recorded = named(cells["shots"]), cells.get("consent", "")
        if not recorded and not unrecorded:
            raise ValueError(
                'there is no consent record: add a consent column with its path or "none", or pass --consent none '
                "for everyone"
            )
        consent = named(recorded) if recorded not in ("", NO_CONSENT) else None
        return PersonRequest(name, shots, landmarks, consent, face_of_cell(cells.get("face", "")))
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from error
