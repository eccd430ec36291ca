"""Finds and removes what is left of a person below a folder: shots, rows of data sets, avatars, their pictures, and caches.

A person is known by names, which avatars and records of data sets carry, and by their consent record, whose hashes find their
pictures under any name. Links are not followed and nothing outside of the folder is touched.
"""

import json
import mmap
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.forget_rows import DATA_SET_FILES, WORK_FOLDER, forget
from th_jax.avatar_format import AvatarError, read_description, read_tensors
from th_jax.consent import ConsentError, ConsentRecord, consent_digest, file_digest
from th_jax.data.records import VideoRecords
from th_jax.data.video_list import load_video_list
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Provenance
from th_jax.media.provenance import SIDECAR_SUFFIX
from th_jax.whole_file import whole_file

# Names that th_jax.enrolment gives; importing it would bring the whole of training.
REPORT_FILE, PREVIEWS = "report.jsonl", "previews"
STAGING_SUFFIX = ".staging"  # of data_prep.staging.staging_folder

_MOST_SIDECAR_BYTES = 2**20


class Traces(NamedTuple):
    """What of a person was found below a folder, each sorted."""

    rows: dict[Path, tuple[str, ...]]
    """Videos, by the folder of their data set."""
    shots: tuple[Path, ...]
    """Files with the bytes that the consent record names."""
    avatars: tuple[Path, ...]
    pictures: tuple[Path, ...]
    """What these avatars made, with the provenance beside it."""
    caches: tuple[Path, ...]
    """Folders of previews, and files of videos that were prepared for a data set and not yet written into it."""
    reports: dict[Path, tuple[str, ...]]
    """Reports of fine-tuning, with the names that their lines are to lose."""

    def lines(self) -> list[str]:
        """One for each thing that is removed."""
        found = [f"{folder}: video {video}" for folder, videos in sorted(self.rows.items()) for video in videos]
        found += [str(path) for paths in (self.shots, self.avatars, self.pictures, self.caches) for path in paths]
        return found + [f"{path}: lines of {', '.join(names)}" for path, names in sorted(self.reports.items())]


class _Tree(NamedTuple):
    """Regular files, and the folders of data sets."""

    files: list[Path]
    data_sets: list[Path]
    staged: list[Path]
    """Files of runs that prepare a data set and were stopped."""


class _Avatar(NamedTuple):
    path: Path
    name: str
    consent: str | None
    inputs: frozenset[str]


def find_traces(root: Path, names: Collection[str], *, consent: ConsentRecord | None = None) -> Traces:
    """Look for a person, and change nothing.

    Avatars are theirs by their file's name, by the consent record, or because they share a shot with another of theirs.
    Pictures are an avatar's by the provenance beside them; one whose provenance was taken away is not found. Every picture
    and video is read if there is a consent record, and every record of every data set.

    Args:
        root: the folder.
        names: people, or ids of videos, as data sets and avatars call them.
        consent: their consent record.

    Raises:
        ValueError: if nobody is named, there is no such folder, or a data set is damaged.
        OSError: if something cannot be read.
    """
    if not names and consent is None:
        raise ValueError("nobody was named: give a person or a video, or their consent record")
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    tree = _walk(root)
    rows = {folder: videos for folder in tree.data_sets if (videos := _rows(folder, names, consent))}
    shots = _shots(tree.files, consent)
    avatars = _avatars(tree.files, names, consent)
    # Those that others were found by come last, so that a stop on the way loses none.
    gone = tuple(avatar.path for avatar in reversed(avatars))
    previews = {path: path.parent / PREVIEWS / name for path, name in ((a.path, a.name) for a in avatars)}
    caches = {folder for folder in previews.values() if folder.is_dir() and not folder.is_symlink()}
    marks = [text.encode() for text in (*names, *(consent.shots if consent is not None else ()))]
    caches |= {path for path in tree.staged if _holds(path, marks)}
    by_folder: dict[Path, set[str]] = {}
    for avatar in avatars:
        by_folder.setdefault(avatar.path.parent / REPORT_FILE, set()).add(avatar.name)
    reports = {path: tuple(sorted(named)) for path, names_ in by_folder.items() if (named := names_ & _reported(path))}
    inside = [path for path in tree.files if not any(path.is_relative_to(cache) for cache in caches)]
    pictures = _pictures(inside, avatars, consent)
    return Traces(rows, _sorted(set(shots) - set(gone)), gone, pictures, _sorted(caches), reports)


def remove_traces(traces: Traces) -> None:
    """Remove what `find_traces` found. A run that was stopped is completed by looking and removing again.

    Raises:
        ValueError: if a data set is damaged.
        OSError: if the disk refuses.
    """
    for folder, videos in traces.rows.items():
        forget(folder, videos, missing_is_error=False)
    # Avatars last: by them the rest is found again.
    for folder in traces.caches:
        if folder.is_dir():
            shutil.rmtree(folder)
    for path in (*(path for path in traces.caches if not path.is_dir()), *traces.pictures, *traces.shots):
        path.unlink(missing_ok=True)
    for path, names in traces.reports.items():
        _without_lines(path, names)
    for path in traces.avatars:
        path.unlink(missing_ok=True)


def _walk(root: Path) -> _Tree:
    found = _Tree([], [], [])
    for folder, folders, files in os.walk(root, onerror=_refuse):
        here = Path(folder)
        if WORK_FOLDER in folders:
            raise ValueError(f"a run of data_prep.forget was stopped in {here}: run it there again before you search")
        if set(DATA_SET_FILES) <= set(files):
            found.data_sets.append(here)
        folders.sort()
        paths = (here / name for name in sorted(files))
        regular = [path for path in paths if path.is_file() and not path.is_symlink()]
        staging = any(part[0] == "." and part.endswith(STAGING_SUFFIX) for part in here.parts)
        (found.staged if staging else found.files).extend(regular)
    return found


def _refuse(error: OSError) -> None:
    """A folder that cannot be looked into may hold what was to be found."""
    raise error


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


def _shots(files: Collection[Path], consent: ConsentRecord | None) -> Iterator[Path]:
    if consent is None:
        return
    known = frozenset(consent.shots)
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and path.stat().st_size:
            try:
                if file_digest(path) in known:
                    yield path
            except ConsentError as error:
                raise ValueError(f"{path} cannot be read, and may be one of the pictures: {error}") from error


def _holds(path: Path, marks: Collection[bytes]) -> bool:
    """Whether one of the texts stands in a file; found by chance, a cache is lost and nothing else."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(mark) >= 0 for mark in marks)


def _avatars(files: Collection[Path], names: Collection[str], consent: ConsentRecord | None) -> list[_Avatar]:
    every = [avatar for path in files if path.suffix == ".safetensors" and (avatar := _avatar(path)) is not None]
    theirs = [a for a in every if a.name in names or (consent is not None and a.consent == consent.digest)]
    while True:  # until no other shares a shot with one of them
        shots = frozenset[str]().union(*(avatar.inputs for avatar in theirs))
        more = [avatar for avatar in every if avatar not in theirs and avatar.inputs & shots]
        if not more:
            return theirs
        theirs += more


def _avatar(path: Path) -> _Avatar | None:
    """What an avatar's file says; None for other tensors."""
    try:
        description = read_description(path)
        inputs = Provenance.from_dict(description.get("provenance")).inputs
    except (AvatarError, ValueError):
        return None
    name = path.stem[1:].removesuffix(".whole") if path.name.startswith(".") else path.stem
    return _Avatar(path, name, consent_digest(description), frozenset(inputs))


def _pictures(files: Collection[Path], avatars: list[_Avatar], consent: ConsentRecord | None) -> tuple[Path, ...]:
    shots = frozenset[str]().union(*(avatar.inputs for avatar in avatars))
    made_by = set()
    for avatar in avatars:
        try:
            made_by.add(read_tensors(avatar.path)[2])
        except AvatarError:
            continue  # damaged: its shots still find its pictures
    found: set[Path] = set()
    for beside in (path for path in files if path.name.endswith(SIDECAR_SUFFIX)):
        record = _provenance(beside)
        if record is None:
            continue
        agreed = consent is not None and record.consent == consent.digest
        if agreed or record.avatar in made_by or shots & set(record.inputs):
            shown = beside.with_name(beside.name.removesuffix(SIDECAR_SUFFIX))
            found |= {beside} | ({shown} if shown.is_file() and not shown.is_symlink() else set())
    return _sorted(found)


def _provenance(beside: Path) -> Provenance | None:
    """What stands beside a picture; None for what is no provenance."""
    with beside.open("rb") as file:
        text = file.read(_MOST_SIDECAR_BYTES + 1)
    try:
        return Provenance.from_dict(json.loads(text)["provenance"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _reported(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {name for line in path.read_bytes().splitlines() if (name := _name_of(line)) is not None}


def _without_lines(path: Path, names: Collection[str]) -> None:
    kept = [line + b"\n" for line in path.read_bytes().splitlines() if _name_of(line) not in names]
    with whole_file(path) as file:
        file.writelines(kept)


def _name_of(line: bytes) -> str | None:
    try:
        outcome: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = outcome.get("name") if isinstance(outcome, dict) else None
    return name if isinstance(name, str) else None


def _sorted(paths: Collection[Path] | Iterator[Path]) -> tuple[Path, ...]:
    return tuple(sorted(paths))
