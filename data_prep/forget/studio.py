"""Finds what the folders of studios keep of a person: images, points, uploads, drivers, results, consent and jobs."""

import json
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from data_prep.forget.avatars import FoundAvatar
from data_prep.forget.tree import Tree
from th_jax.consent import ConsentError, ConsentRecord, file_digest, read_consent
from th_jax.consent.record import RECORD_SUFFIX
from th_jax.studio.folder import (
    AVATARS,
    CONSENTS,
    DATABASE_FILE,
    DRAFTS,
    DRIVERS,
    LOCK_FILE,
    POINTS,
    RESULTS,
    SHOTS,
    UPLOADS,
    USERS,
)


class FoundInStudios(NamedTuple):
    """Files and jobs of a person in the folders of studios."""

    files: set[Path]
    records: set[Path]
    """Consent records, which identify uploads."""
    folders: set[Path]
    """Folders of images of this person only."""
    jobs: dict[Path, tuple[int, ...]]
    """Numbers of jobs by their database."""
    unreadable: set[Path]
    """Databases that cannot be read."""


def find_in_studios(
    tree: Tree, names: Collection[str], avatars: Collection[FoundAvatar], consent: ConsentRecord | None
) -> FoundInStudios:
    """Find what studios keep of people, by the names of their avatars.

    Args:
        tree: content of the searched folder.
        names: names of the people.
        avatars: avatars of these people, also under other names.
        consent: their record, which stays.

    Raises:
        ValueError: if a studio is running.
        OSError: if a file cannot be read.
    """
    found = FoundInStudios(set(), set(), set(), {}, set())
    for database in (path for path in tree.files if path.name == DATABASE_FILE):
        root = database.parent
        _check_closed(root)
        homes = {"": root} | {path.name: path for path in tree.folders if path.parent == root / USERS}
        called: dict[str, set[str]] = {
            user: {*names, *(one.name for one in avatars if one.path.parent == home / AVATARS and one.name)}
            for user, home in homes.items()
        }
        try:
            jobs = list(_jobs(database, called))
        except (sqlite3.Error, ValueError, TypeError, IndexError):
            found.unreadable.add(database)
            jobs = []
        if jobs:
            found.jobs[database] = tuple(number for number, _, _ in jobs)
        below: dict[Path, list[Path]] = {}
        for path in (path for path in tree.files if path.is_relative_to(root)):
            for folder in path.parents:
                below.setdefault(folder, []).append(path)
        for user, home in homes.items():
            options = [given for _, owner, given in jobs if owner == user]
            _find_files(found, home, called[user], options, below)
            records = {home / CONSENTS / f"{name}{RECORD_SUFFIX}" for name in called[user]}
            digests = _agreed(found, records.intersection(below.get(home / CONSENTS, ())), consent)
            uploads = [path for folder in (root, home) for path in below.get(folder / UPLOADS, ())]
            for path in {*uploads, *below.get(home / DRAFTS, ())} if digests else ():
                if path.stat().st_size and file_digest(path) in digests:
                    found.files.add(path)
                    found.folders.add(path.parent)
        found.folders.difference_update(home / folder for home in homes.values() for folder in (UPLOADS, DRAFTS))
    return found


def delete_jobs(database: Path, numbers: Collection[int]) -> None:
    """Delete jobs from a studio's database, and their text from its file.

    Raises:
        OSError: if it cannot be written.
    """
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.executemany("DELETE FROM jobs WHERE number = ?", [(number,) for number in numbers])
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise OSError(f"{database} cannot be written: {error}") from error


def _check_closed(root: Path) -> None:
    if not (root / LOCK_FILE).is_file():
        return
    lock = FileLock(root / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"a studio uses {root}: close it first") from None
    lock.release()


def _jobs(database: Path, called: Mapping[str, Collection[str]]) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Yield number, user and options of each job for an avatar of these people."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM jobs ORDER BY number").fetchall():
            user = row["user"] if "user" in row.keys() else ""  # noqa: SIM118 -- a row's `in` looks at its values
            if row["avatar"] in called.get(user, called[""]):
                try:
                    options = dict(json.loads(row["options"]).items())
                except (ValueError, TypeError, AttributeError):
                    options = {}  # damaged; the row goes nevertheless
                yield int(row["number"]), user, options


def _find_files(
    found: FoundInStudios,
    home: Path,
    names: Collection[str],
    options: Collection[Mapping[str, object]],
    below: Mapping[Path, list[Path]],
) -> None:
    """Find files of these names, and those that their jobs name, which the walk has found too."""
    there = {path for path in below.get(home, ()) if path.parent in (home / DRIVERS, home / RESULTS, home / POINTS)}
    for name in names:
        found.files.update(path for path in there if path == home / POINTS / f"{name}.txt")
        result = re.compile(re.escape(name) + r"-\d{8}-\d{6}-\d\d+\..*")
        found.files.update(path for path in there if path.parent.name == RESULTS and result.fullmatch(path.name))
    for given in options:
        # Bundled drivers, which others use too, have no number of the upload in their name.
        driver = home / str(given.get("driver", ""))
        if driver in there and re.fullmatch(r"[0-9a-f]{16}_.*", driver.name):
            found.files.add(driver)
        if home / str(given.get("out", "")) in there:
            found.files.add(home / str(given["out"]))
    drafts = {str(given["draft"]) for given in options if given.get("draft")}
    for folder in (*(home / SHOTS / name for name in names), *(home / DRAFTS / draft for draft in drafts)):
        found.files.update(below.get(folder, ()))
        if folder in below:
            found.folders.add(folder)


def _agreed(found: FoundInStudios, records: Collection[Path], consent: ConsentRecord | None) -> set[str]:
    """Return the digests of the images in these records, which go, except for the one that was given."""
    digests = set[str]()
    for path in records:
        try:
            record = read_consent(path)
        except ConsentError:
            found.records.add(path)
            continue
        digests.update(record.shots)
        if consent is None or record.digest != consent.digest:
            found.records.add(path)
    return digests
