"""Finds a person's avatars and their outputs: images by their provenance, previews, logs, lines of reports."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from data_prep.forget.tree import Tree, avatar_name
from th_jax.avatars.file import AvatarError, read_description, read_tensors
from th_jax.avatars.output import MAX_LINE_BYTES, REPORT_FILE
from th_jax.avatars.shards import SHARD_REPORT
from th_jax.consent import ConsentRecord, consent_digest
from th_jax.provenance import Provenance
from th_jax.provenance.record import SIDECAR_SUFFIX
from th_jax.storage.files import file_sha256, whole_file
from th_jax.storage.strict_json import parse_json, read_json

# Names that th_jax.avatars and th_jax.driving give; importing them would bring the whole of training.
PREVIEWS, LOG_SUFFIX = "previews", ".log.jsonl"

_MOST_SIDECAR_BYTES = 2**20
_REPORT = re.compile(rf"{re.escape(REPORT_FILE)}|{SHARD_REPORT.pattern}")
_REPORT_LEFT = re.compile(rf"\.(?:{_REPORT.pattern})\.[0-9a-f]{{8}}\.partial")
_CUT_LINE = re.compile(rb'\s*\{"name": ("(?:[^"\\]|\\.)*")')


class FoundAvatar(NamedTuple):
    """An avatar's file, or its temporary file."""

    path: Path
    name: str | None
    """Name from the file name; None if it is not that of an avatar."""
    consent: str | None = None
    inputs: frozenset[str] = frozenset()


class FoundImages(NamedTuple):
    """Files with a provenance record of a person's avatars beside them."""

    files: set[Path]
    """Images, videos and pages, with these records."""
    others: set[Path]
    """Files that do not match the record beside them; they are not removed."""


def find_avatars(tree: Tree, names: Collection[str], consent: ConsentRecord | None) -> list[FoundAvatar]:
    """Find avatars by name, consent record or shots, and all that share a shot with one of them, transitively."""
    every = [found for path in tree.files if (found := _avatar(path, names)) is not None]
    theirs = [a for a in every if a.name in names or (consent is not None and a.consent == consent.digest)]
    while True:
        shots = frozenset(consent.shots if consent is not None else ()).union(*(avatar.inputs for avatar in theirs))
        more = [avatar for avatar in every if avatar not in theirs and avatar.inputs & shots]
        if not more:
            return theirs
        theirs += more


def _avatar(path: Path, names: Collection[str]) -> FoundAvatar | None:
    """Read an avatar's description; None for other files, unless they have one of the names."""
    name = avatar_name(path.name)
    if name is None and not path.name.endswith(".safetensors"):
        return None
    try:
        description = read_description(path)
        inputs = Provenance.from_dict(description.get("provenance")).inputs
    except (AvatarError, ValueError):  # truncated, or of an unknown version
        return FoundAvatar(path, name) if name in names else None
    return FoundAvatar(path, name, consent_digest(description), frozenset(inputs))


def find_logs(tree: Tree, names: Collection[str], avatars: Collection[FoundAvatar]) -> set[Path]:
    """Find logs of unmarked output beside avatars; by name also where the avatar no longer exists."""
    called = {avatar.path.with_name(avatar.path.name + LOG_SUFFIX) for avatar in avatars}
    logs = (path for path in tree.files if path.name.endswith(LOG_SUFFIX))
    return {path for path in logs if path in called or avatar_name(path.name.removesuffix(LOG_SUFFIX)) in names}


def find_previews(tree: Tree, names: Collection[str], avatars: Collection[FoundAvatar]) -> set[Path]:
    """Find folders of previews, by one of the names or of avatars beside the previews folder."""
    beside = {(avatar.path.parent, avatar.name) for avatar in avatars}
    folders = (folder for folder in tree.folders if folder.parent.absolute().name == PREVIEWS)
    return {folder for folder in folders if folder.name in names or (folder.parent.parent, folder.name) in beside}


def find_reports(tree: Tree, names: Collection[str], avatars: Collection[FoundAvatar]) -> dict[Path, tuple[str, ...]]:
    """Find reports of fine-tuning, each with the names whose lines are to be removed."""
    found = {}
    for path in (path for path in tree.files if _REPORT.fullmatch(path.name)):
        theirs = {*names, *(a.name for a in avatars if a.path.parent == path.parent and a.name is not None)}
        if named := theirs.intersection(filter(None, map(_name_of, path.read_bytes().splitlines()))):
            found[path] = tuple(sorted(named))
    return found


def find_left_reports(tree: Tree) -> set[Path]:
    """Find temporary files of `without_lines`: copies of a report."""
    return {path for path in tree.files if _REPORT_LEFT.fullmatch(path.name)}


def without_lines(path: Path, names: Collection[str]) -> None:
    """Rewrite a report without the lines of these names.

    Raises:
        OSError: if it cannot be written; the report is unchanged in that case.
    """
    kept = [line + b"\n" for line in path.read_bytes().splitlines() if _name_of(line) not in names]
    with whole_file(path, mode=path.stat().st_mode & 0o777) as file:
        file.writelines(kept)


def _name_of(line: bytes) -> str | None:
    """Return the name in a line of a report, even if the line is truncated; None for other lines."""
    try:
        outcome = parse_json(line, max_bytes=MAX_LINE_BYTES)
    except ValueError:
        cut = _CUT_LINE.match(line)
        return None if cut is None else _name_of(b'{"status": "failed", "name": ' + cut[1] + b"}")
    name = outcome.get("name") if isinstance(outcome, dict) and "status" in outcome else None
    return name if isinstance(name, str) else None


def find_images(
    files: Collection[Path], avatars: Collection[FoundAvatar], consent: ConsentRecord | None
) -> FoundImages:
    """Find files made by these avatars, from their shots or those of the record, or under the record.

    Raises:
        OSError: if a file cannot be read.
    """
    known = frozenset(consent.shots if consent is not None else ()).union(*(avatar.inputs for avatar in avatars))
    made_by = set()
    for avatar in avatars:
        try:
            made_by.add(read_tensors(avatar.path)[2])
        except AvatarError:
            continue  # damaged, but its shots still identify its images
    there = frozenset(files)
    found = FoundImages(set(), set())
    for beside in (path for path in files if path.name.endswith(SIDECAR_SUFFIX)):
        record, digest = _provenance(beside)
        if record is None:
            continue
        agreed = consent is not None and record.consent == consent.digest
        if agreed or record.avatar in made_by or known & set(record.inputs):
            found.files.add(beside)
            shown = beside.with_name(beside.name.removesuffix(SIDECAR_SUFFIX))
            if shown in there:
                (found.files if file_sha256(shown) == digest else found.others).add(shown)
    return found


def _provenance(beside: Path) -> tuple[Provenance | None, object]:
    """Read the provenance beside an image, and the digest of the image; None if it is not a provenance record."""
    try:
        record = read_json(beside, max_bytes=_MOST_SIDECAR_BYTES)
        return Provenance.from_dict(record["provenance"]), record.get("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None
