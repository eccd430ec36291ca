"""Finds and removes what is left of a person below a folder: shots, rows of data sets, avatars, their pictures, and caches.

A person is known by names, which avatars, records of data sets and evaluations carry, and by their consent record, whose
hashes find their pictures under any name. Links are not followed and nothing outside of the folder is touched: what is removed
is one file after the other that the walk through it met, and folders that are empty then.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data_prep.forget_avatars import (
    PREVIEWS,
    FoundAvatar,
    find_avatars,
    find_left_reports,
    find_logs,
    find_pictures,
    find_previews,
    find_reports,
    without_lines,
)
from data_prep.forget_evaluations import find_evaluated
from data_prep.forget_rows import can_go_on, check_names, forget
from data_prep.forget_staged import find_staged
from data_prep.forget_tree import Tree, avatar_name, emptied, is_left, walk
from th_jax.consent import ConsentError, ConsentRecord, file_digest
from th_jax.data.records import VideoRecords
from th_jax.data.video_list import load_video_list
from th_jax.media.limits import DEFAULT_LIMITS


class Traces(NamedTuple):
    """What of a person was found below a folder, each sorted; no path occurs twice."""

    rows: dict[Path, tuple[str, ...]]
    """Videos, by the folder of their data set."""
    shots: tuple[Path, ...]
    """Files with the bytes that the consent record names."""
    avatars: tuple[Path, ...]
    """Those by which others were found come last."""
    pictures: tuple[Path, ...]
    """What these avatars made, or was made of the shots, with the provenance beside it."""
    caches: tuple[Path, ...]
    """Previews, logs of avatars, what evaluations keep, and videos that were prepared and not yet written into a data set."""
    folders: tuple[Path, ...]
    """That are empty without these files, and called by the person."""
    reports: dict[Path, tuple[str, ...]]
    """Reports of fine-tuning, with the names that their lines are to lose."""
    doubts: dict[Path, str]
    """What stays and should be looked at, with the reason."""

    def lines(self) -> list[str]:
        """One for each thing that is removed."""
        found = [f"{folder}: video {video}" for folder, videos in sorted(self.rows.items()) for video in videos]
        found += [str(path) for paths in (self.shots, self.avatars, self.pictures, self.caches) for path in paths]
        found += [f"{folder}/" for folder in self.folders]
        return found + [f"{path}: lines of {', '.join(names)}" for path, names in sorted(self.reports.items())]


def find_traces(root: Path, names: Collection[str], *, consent: ConsentRecord | None = None) -> Traces:
    """Look for a person, and change nothing.

    Avatars are theirs by their file's name, by the consent record, by a shot of the record, or because they share a shot with
    another of theirs. Pictures are theirs by the provenance beside them; one whose provenance was taken away is not found.
    Every file is read if there is a consent record, and every record of every data set.

    Args:
        root: the folder.
        names: people, or ids of videos, as data sets and avatars call them.
        consent: their consent record.

    Raises:
        ValueError: if nobody is named or a name is blank, there is no such folder, or a data set is damaged.
        OSError: if something cannot be read.
    """
    check_request(root, names, consent)
    tree = walk(root)
    if tree.stopped:
        raise ValueError(
            f"a run of data_prep.forget was stopped in {tree.stopped[0]}: run it there again before you search"
        )
    rows = {folder: videos for folder in tree.data_sets if (videos := _rows(folder, names, consent))}
    avatars = find_avatars(tree, names, consent)
    gone = {avatar.path for avatar in avatars}
    evaluated = find_evaluated(tree, {*names, *(video for videos in rows.values() for video in videos)})
    previews = find_previews(tree, names, avatars)
    caches = find_staged(tree.staged, names, consent.shots if consent is not None else ())
    caches |= find_logs(tree, names, avatars) | find_left_reports(tree) | evaluated.files
    caches = caches.union(*map(tree.numbered_pictures, previews)) - gone
    made = find_pictures([path for path in tree.files if path not in caches], avatars, consent)
    pictures = made.files - gone
    going = caches | pictures | gone
    shots, large = _shots([path for path in (*tree.files, *tree.staged) if path not in going], consent)
    going |= shots
    called = previews | evaluated.folders
    folders = emptied(called, going)
    doubts = {folder: "holds other files, which stay" for folder in called.difference(folders)}
    doubts |= {path: "is not the file that the record beside it was written for" for path in made.others}
    doubts |= {path: "is too large to be compared with the consent record" for path in large}
    doubts |= {
        path: "does not say who was chosen, so that this evaluation was not searched" for path in evaluated.unreadable
    }
    doubts |= _links(tree, names, avatars, rows)
    left = "was left by a program that was killed, and does not say whose it is: delete it if nothing is at work there"
    doubts |= {path: left for path in (*tree.files, *tree.staged) if is_left(path)}
    return Traces(
        rows=rows,
        shots=tuple(sorted(shots)),
        avatars=tuple(avatar.path for avatar in reversed(avatars)),
        pictures=tuple(sorted(pictures)),
        caches=tuple(sorted(caches)),
        folders=folders,
        reports=find_reports(tree, names, avatars),
        doubts={path: why for path, why in sorted(doubts.items()) if path not in going},
    )


def check_request(root: Path, names: Collection[str], consent: ConsentRecord | None) -> None:
    """Whether it is known who is to be forgotten, and where.

    Raises:
        ValueError: if nobody is named or a name is blank, or there is no such folder.
    """
    check_names(names)
    if not names and consent is None:
        raise ValueError("nobody was named: give a person or a video, or their consent record")
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")


def complete_stopped(root: Path) -> None:
    """Bring to an end what an earlier run began in data sets below a folder and was stopped in.

    Raises:
        ValueError: if a data set is damaged.
        OSError: if the disk refuses.
    """
    for folder in walk(root).stopped:
        if can_go_on(folder):
            forget(folder, ())


def remove_traces(traces: Traces) -> None:
    """Remove what `find_traces` found. A run that was stopped is completed by looking and removing again.

    Raises:
        ValueError: if a data set is damaged.
        OSError: if the disk refuses.
    """
    # Before whatever it was found by: evaluations before rows, a picture before the record beside it, avatars last.
    for path in traces.caches:
        path.unlink(missing_ok=True)
    for folder in traces.folders:
        with suppress(OSError):  # something was put there meanwhile
            folder.rmdir()
    for folder, videos in traces.rows.items():
        forget(folder, videos, missing_is_error=False)
    for path in (*traces.pictures, *traces.shots):
        path.unlink(missing_ok=True)
    for path, names in traces.reports.items():
        without_lines(path, names)
    for path in traces.avatars:
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
    """Files that the record names, whatever they are called; and those that are larger than any that a record is made of."""
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
        raise ValueError(f"a file cannot be read, and may be one of the pictures: {error}") from error


def _links(
    tree: Tree, names: Collection[str], avatars: Collection[FoundAvatar], rows: Collection[Path]
) -> Iterator[tuple[Path, str]]:
    """Links that are called as what is removed, or lie in a data set with rows of the person."""
    called = {*names, *(avatar.name for avatar in avatars)} - {None}
    for path in tree.links:
        beside = path.name == PREVIEWS and any(avatar.path.parent == path.parent for avatar in avatars)
        if beside or path.parent in rows or path.name in called or avatar_name(path.name) in called:
            yield path, "is a link: look at what it leads to"
