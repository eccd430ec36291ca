"""Finds and removes all files that derive from a person below a folder: shots, rows, avatars, outputs, caches.

A person is identified by names, which avatars, data sets and evaluations contain, and by their consent record, whose hashes
find their images under any name. Links are not followed, and nothing outside the folder is changed: only files that the walk
found are removed, one by one, and folders that are empty afterwards.
"""

import hashlib
import json
import mmap
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data_prep.build.drop_report import parse_drop
from data_prep.build.staging import MAX_HEAD_BYTES, read_framed
from data_prep.forget.avatars import (
    PREVIEWS,
    FoundAvatar,
    find_avatars,
    find_images,
    find_left_reports,
    find_logs,
    find_previews,
    find_reports,
    without_lines,
)
from data_prep.forget.rows import can_go_on, check_names, forget
from data_prep.forget.studio import delete_jobs, find_in_studios
from data_prep.forget.tree import STAGING_SUFFIX, Tree, avatar_name, emptied, is_left, walk
from th_jax.consent import ConsentError, ConsentRecord, file_digest
from th_jax.data.records import VideoRecords
from th_jax.data.schema import parse
from th_jax.data.tfrecord import scan
from th_jax.data.video_list import load_video_list
from th_jax.media.limits import DEFAULT_LIMITS
from th_jax.storage.strict_json import parse_json, read_json

_KEPT = ("settings.json", "lock")
"""Files of the staging folder itself, without which a continued run would reject the others."""

_NAME_BYTE = rb"[A-Za-z0-9_.\-\x80-\xff]"


def find_staged(files: Collection[Path], names: Collection[str], digests: Collection[str]) -> set[Path]:
    """Find staged files of these people or videos, or prepared from these source files.

    Readable files contain the names. The bytes of unreadable ones, and of a data set that is being assembled, are searched for
    whole names; after a false positive, the run prepares the video again.

    Raises:
        OSError: if a file cannot be read.
    """
    wanted = frozenset(names) | frozenset(digests)
    if not wanted:  # an empty pattern would match everywhere
        return set()
    keys = {hashlib.sha256(_bytes(name)).hexdigest() for name in names}  # as `row_key`, by which files are named
    pattern = re.compile(b"|".join(map(_whole, sorted(wanted))))
    found = set()
    for path in files:
        if path.name in _KEPT and path.absolute().parent.name.endswith(STAGING_SUFFIX):
            continue
        called = _called(path)
        if path.name.lstrip(".")[:64] in keys or (_holds(path, pattern) if called is None else called & wanted):
            found.add(path)
    return found


def _called(path: Path) -> set[str] | None:
    """Return all names and hashes in a staged file; None if it cannot be read."""
    try:
        index = scan(str(path))
        head = parse_json(read_framed(path, index, 0), max_bytes=MAX_HEAD_BYTES)
        drops = [parse_drop(line) for line in head["lines"]]
        record = parse(read_framed(path, index, 1)) if head["usable"] else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    called = {name for drop in drops for name in _names_in(drop.path if drop.video_id is None else drop.video_id)}
    if record is not None:
        called |= {record.identity, record.source_sha256, *_names_in(record.video_id)}
    return called


def _names_in(video_id: str) -> set[str]:
    """Return a video's id and its person, as `data_prep.build.sources` derives them."""
    person, slash, _ = str(video_id).partition("/")
    return {str(video_id), person if slash else Path(person).stem}


def _whole(name: str) -> bytes:
    """Return a pattern of the whole name, plain or in nested JSON, or after its length as in protobuf."""
    plain = _bytes(name)
    in_json = json.dumps(name)[1:-1]
    ways = {plain, in_json.encode(), json.dumps(in_json)[1:-1].encode()}
    alone = b"|".join(re.escape(way) for way in sorted(ways))
    counted = re.escape(_varint(len(plain)) + plain)
    return b"(?<!" + _NAME_BYTE + b")(?:" + alone + b")(?!" + _NAME_BYTE + b")|" + counted


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + _varint(number // 128)


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return pattern.search(content) is not None


# Names of th_jax.evaluation.protocol, whose import would load all networks.
CHOSEN_FILE, STUDY_FOLDER = "chosen.json", "study"

_FILES_AT = {"faces": 2, "cells": 4, "networks": 4}  # depth of the path in the run's folder
_PERSON_FILE = re.compile(r"(?P<name>.+)\.(?:npz|json)|\.(?P<left>.+)\.(?:npz|json)\.[0-9a-f]{8}\.partial")
_MOST_BYTES = 2**24


class Evaluated(NamedTuple):
    """Files of a person in evaluations."""

    files: set[Path]
    folders: set[Path]
    """Folders of images of this person only."""
    unreadable: set[Path]
    """Unreadable lists of chosen people."""


def find_evaluated(tree: Tree, names: Collection[str]) -> Evaluated:
    """Find people by name or video id in chosen.json, which is not removed.

    Raises:
        OSError: if a file cannot be read.
    """
    found = Evaluated(set(), set(), set())
    for path in (path for path in tree.files if path.name == CHOSEN_FILE):
        people = _evaluated_names(path, names)
        if people is None:
            if any(path.with_name(part) in tree.folders for part in (*_FILES_AT, STUDY_FOLDER)):
                found.unreadable.add(path)
            continue
        for file in tree.files:
            parts = _below(file, path.parent)
            if parts and _FILES_AT.get(parts[0]) == len(parts) and _person(file.name) in people:
                found.files.add(file)
        for folder in tree.folders:
            parts = _below(folder, path.parent)
            if len(parts) == 3 and parts[0] == STUDY_FOLDER and parts[2] in people:
                found.folders.add(folder)
                found.files.update(tree.numbered_images(folder))
    return found


def _evaluated_names(path: Path, names: Collection[str]) -> frozenset[str] | None:
    """Return the names of these people's files in an evaluation; None if its list cannot be read."""
    try:
        people = read_json(path, max_bytes=_MOST_BYTES)["people"]
        return frozenset(
            str(person["name"])
            for person in people
            if any(person[field] in names for field in ("name", "video_id", "identity"))
        )
    except (ValueError, KeyError, TypeError):
        return None


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def _person(file_name: str) -> str | None:
    found = _PERSON_FILE.fullmatch(file_name)
    return None if found is None else found["name"] or found["left"]


class Traces(NamedTuple):
    """All files of a person below a folder, sorted; no path occurs twice."""

    rows: dict[Path, tuple[str, ...]]
    """Video ids by the folder of their data set."""
    shots: tuple[Path, ...]
    """Files whose digests are in the consent record."""
    avatars: tuple[Path, ...]
    """Avatars; those that identify others come last."""
    images: tuple[Path, ...]
    """Outputs of these avatars, or of the shots, with the provenance beside them."""
    caches: tuple[Path, ...]
    """Previews, logs of avatars, files of evaluations, and staged videos."""
    folders: tuple[Path, ...]
    """Folders named after the person that are empty without these files."""
    reports: dict[Path, tuple[str, ...]]
    """Reports of fine-tuning, with the names whose lines are to be removed."""
    records: tuple[Path, ...]
    """Consent records of studios."""
    jobs: dict[Path, tuple[int, ...]]
    """Numbers of jobs by the database of their studio."""
    doubts: dict[Path, str]
    """Paths that stay and need your attention, with the reason."""

    def lines(self) -> list[str]:
        """Return one line per item to remove."""
        found = [f"{folder}: video {video}" for folder, videos in sorted(self.rows.items()) for video in videos]
        every = (self.shots, self.avatars, self.images, self.caches, self.records)
        found += [str(path) for paths in every for path in paths]
        found += [f"{folder}/" for folder in self.folders]
        found += [f"{path}: job {number}" for path, numbers in sorted(self.jobs.items()) for number in numbers]
        return found + [f"{path}: lines of {', '.join(names)}" for path, names in sorted(self.reports.items())]


def find_traces(root: Path, names: Collection[str], *, consent: ConsentRecord | None = None) -> Traces:
    """Find all files of a person, and change nothing.

    Avatars are found by file name, consent record, a shot of the record, or a shot that they share with another one. Images
    are found by the provenance beside them, and not without it. With a consent record, every file and every record of every
    data set is read.

    Raises:
        ValueError: if no person is named, a name is blank, the folder does not exist, or a data set is damaged.
        OSError: if a file cannot be read.
    """
    check_request(root, names, consent)
    tree = walk(root)
    if tree.stopped:
        raise ValueError(
            f"th-jax prepare forget was interrupted in {tree.stopped[0]}: run it there again before you search"
        )
    rows = {folder: videos for folder in tree.data_sets if (videos := _rows(folder, names, consent))}
    avatars = find_avatars(tree, names, consent)
    gone = {avatar.path for avatar in avatars}
    evaluated = find_evaluated(tree, {*names, *(video for videos in rows.values() for video in videos)})
    previews = find_previews(tree, names, avatars)
    caches = find_staged(tree.staged, names, consent.shots if consent is not None else ())
    studios = find_in_studios(tree, names, avatars, consent)
    caches |= find_logs(tree, names, avatars) | find_left_reports(tree) | evaluated.files | studios.files
    caches = caches.union(*map(tree.numbered_images, previews)) - gone
    made = find_images([path for path in tree.files if path not in caches], avatars, consent)
    images = made.files - gone
    going = caches | images | gone | studios.records
    shots, large = _shots([path for path in (*tree.files, *tree.staged) if path not in going], consent)
    going |= shots
    called = previews | evaluated.folders | studios.folders
    folders = emptied(called, going)
    doubts = {folder: "contains other files, which stay" for folder in called.difference(folders)}
    doubts |= {path: "does not match the record beside it" for path in made.others}
    doubts |= {path: "is too large to compare with the consent record" for path in large}
    doubts |= {
        path: "does not list the chosen people, so this evaluation was not searched" for path in evaluated.unreadable
    }
    doubts |= {path: "cannot be read, so this studio was not searched completely" for path in studios.unreadable}
    doubts |= _links(tree, names, avatars, rows)
    left = (
        "is the temporary file of an interrupted program and contains no name: delete it if no program is running there"
    )
    doubts |= {path: left for path in (*tree.files, *tree.staged) if is_left(path)}
    return Traces(
        rows=rows,
        shots=tuple(sorted(shots)),
        avatars=tuple(avatar.path for avatar in reversed(avatars)),
        images=tuple(sorted(images)),
        caches=tuple(sorted(caches)),
        folders=folders,
        reports=find_reports(tree, names, avatars),
        records=tuple(sorted(studios.records)),
        jobs=studios.jobs,
        doubts={path: why for path, why in sorted(doubts.items()) if path not in going},
    )


def check_request(root: Path, names: Collection[str], consent: ConsentRecord | None) -> None:
    """Check that a person and an existing folder are named.

    Raises:
        ValueError: if no person is named, a name is blank, or the folder does not exist.
    """
    check_names(names)
    if not names and consent is None:
        raise ValueError("no person was named: give a person or a video, or their consent record")
    if not root.is_dir():
        raise ValueError(f"the folder {root} does not exist")


def complete_stopped(root: Path) -> None:
    """Complete interrupted removals from data sets below a folder.

    Raises:
        ValueError: if a data set is damaged.
        OSError: if a file cannot be written.
    """
    for folder in walk(root).stopped:
        if can_go_on(folder):
            forget(folder, ())


def remove_traces(traces: Traces) -> None:
    """Remove the files that `find_traces` found. To complete an interrupted removal, find and remove again.

    Raises:
        ValueError: if a data set is damaged.
        OSError: if a file cannot be removed.
    """
    # Each item before those that identify it: evaluations before rows, an image before its record, avatars last.
    for path in traces.caches:
        path.unlink(missing_ok=True)
    for folder in traces.folders:
        with suppress(OSError):  # another program added a file
            folder.rmdir()
    for folder, videos in traces.rows.items():
        forget(folder, videos, missing_is_error=False)
    for path in (*traces.images, *traces.shots):
        path.unlink(missing_ok=True)
    for path, names in traces.reports.items():
        without_lines(path, names)
    for database, numbers in traces.jobs.items():
        delete_jobs(database, numbers)
    for path in (*traces.avatars, *traces.records):
        path.unlink(missing_ok=True)


def _rows(folder: Path, names: Collection[str], consent: ConsentRecord | None) -> tuple[str, ...]:
    videos = load_video_list(folder)
    known = {entry.video_id for entries in videos.splits.values() for entry in entries if not entry.forgotten}
    theirs = {video for name in names for video in (name, *videos.videos_of(name)) if video in known}
    if consent is not None:
        for split in videos.splits:
            records = VideoRecords(folder, split)
            made = (records.read(number) for number in range(len(records)))
            theirs |= {record.video_id for record in made if record.source_sha256 in consent.shots}
    return tuple(sorted(theirs))


def _shots(files: Collection[Path], consent: ConsentRecord | None) -> tuple[set[Path], set[Path]]:
    """Return files whose digests are in the record, and files too large to be in one."""
    if consent is None:
        return set(), set()
    known = frozenset(consent.shots)
    sizes = {path: path.stat().st_size for path in files}
    large = {path for path, size in sizes.items() if size > DEFAULT_LIMITS.file_bytes}
    try:
        return {
            path for path, size in sizes.items() if size and path not in large and file_digest(path) in known
        }, large
    except ConsentError as error:
        raise ValueError(f"a file cannot be read, and may be one of the images: {error}") from error


def _links(
    tree: Tree, names: Collection[str], avatars: Collection[FoundAvatar], rows: Collection[Path]
) -> Iterator[tuple[Path, str]]:
    """Return links named like a removed item, or in a data set with rows of the person."""
    called = {*names, *(avatar.name for avatar in avatars)} - {None}
    for path in tree.links:
        beside = path.name == PREVIEWS and any(avatar.path.parent == path.parent for avatar in avatars)
        if beside or path.parent in rows or path.name in called or avatar_name(path.name) in called:
            yield path, "is a link: look at what it leads to"
