"""Walks a folder for what may be somebody's, without following a link, and knows by which file names avatars go."""

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from data_prep.forget_rows import DATA_SET_FILES, WORK_FOLDER

STAGING_SUFFIX = ".staging"  # of data_prep.staging.staging_folder

# An avatar's file; or what a writer, of an avatar or of one that is to be made small, leaves when it is killed.
_AVATAR_FILE = re.compile(
    r"(?P<name>[^.].*)\.safetensors|\.{1,2}(?P<left>[^.].*?)(?:\.whole)?\.safetensors(?:\.[0-9a-f]+)?(?:\.partial)?",
    re.DOTALL,
)
_MEDIA_LEFT = r"\.[0-9a-f]{16}\.(?:plain|partial)\.[a-z0-9]{1,5}"  # by th_jax.media
_LEFT = re.compile(rf"{_MEDIA_LEFT}|\..+\.[0-9a-f]{{8}}\.partial|\..+\.safetensors\.[0-9a-f]+", re.DOTALL)
_NUMBERED_PICTURE = re.compile(rf"[0-9]{{1,9}}\.png(?:\.provenance\.json)?|{_MEDIA_LEFT}")


class Tree(NamedTuple):
    """What was met below a folder, in order; every path begins with that folder, and no part below it is a link."""

    files: list[Path]
    """Regular ones, outside of `staged`."""
    folders: list[Path]
    """Without the one that was searched."""
    staged: list[Path]
    """Files of runs that prepare a data set and were stopped."""
    data_sets: list[Path]
    stopped: list[Path]
    """Data sets in which a run of data_prep.forget was stopped."""
    links: list[Path]

    def numbered_pictures(self, folder: Path) -> set[Path]:
        """The files of a folder that are called by a step or a frame's number, and what writers of such left."""
        return {path for path in self.files if path.parent == folder and _NUMBERED_PICTURE.fullmatch(path.name)}


def walk(root: Path) -> Tree:
    """All that is below a folder.

    Raises:
        OSError: if a folder cannot be looked into: it may hold what is to be found.
    """
    tree = Tree([], [], [], [], [], [])
    above = root.resolve().parts
    for folder, folders, files in os.walk(root, onerror=_refuse):
        here = Path(folder)
        tree.links.extend(here / name for name in sorted(folders) if (here / name).is_symlink())
        if WORK_FOLDER in folders:
            folders.remove(WORK_FOLDER)
            tree.stopped.append(here)
        folders.sort()
        if here != root:
            tree.folders.append(here)
        if set(DATA_SET_FILES) <= set(files):
            tree.data_sets.append(here)
        staging = any(part[0] == "." and part.endswith(STAGING_SUFFIX) for part in above + here.relative_to(root).parts)
        for path in (here / name for name in sorted(files)):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                tree.links.append(path)
            elif stat.S_ISREG(mode):
                (tree.staged if staging else tree.files).append(path)
    return tree


def avatar_name(file_name: str) -> str | None:
    """Whose avatar a file is by its name, or that of what a killed writer left of it; None for other files.

    No name begins with a dot, so that none is a way out of a folder.
    """
    found = _AVATAR_FILE.fullmatch(file_name)
    return None if found is None else found["name"] or found["left"]


def is_left(path: Path) -> bool:
    """Whether a file is called as those are that a killed writer leaves."""
    return _LEFT.fullmatch(path.name) is not None


def emptied(folders: Collection[Path], going: Collection[Path]) -> tuple[Path, ...]:
    """Those of the folders that hold nothing but files that go."""
    return tuple(sorted(folder for folder in folders if all(folder / name in going for name in os.listdir(folder))))


def _refuse(error: OSError) -> None:
    raise error
