"""Walks a folder without following links, and recognizes file names of avatars and of interrupted writes."""

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from data_prep.forget.rows import DATA_SET_FILES, WORK_FOLDER

STAGING_SUFFIX = ".staging"  # of data_prep.build.staging.staging_folder

# An avatar, or the temporary file of an interrupted write or compression of an avatar.
_AVATAR_FILE = re.compile(
    r"(?P<name>[^.].*)\.safetensors|\.{1,2}(?P<left>[^.].*?)(?:\.whole)?\.safetensors(?:\.[0-9a-f]+)?(?:\.partial)?",
    re.DOTALL,
)
_MEDIA_LEFT = r"\.[0-9a-f]{16}\.(?:plain|partial)\.[a-z0-9]{1,5}"  # by th_jax.provenance
_LEFT = re.compile(rf"{_MEDIA_LEFT}|\..+\.[0-9a-f]{{8}}\.partial|\..+\.safetensors\.[0-9a-f]+", re.DOTALL)
_IMAGE = r"[0-9]{1,9}\.png(?:\.provenance\.json)?"
_NUMBERED_IMAGE = re.compile(rf"{_IMAGE}|\.{_IMAGE}\.[0-9a-f]{{8}}\.partial|{_MEDIA_LEFT}")


class Tree(NamedTuple):
    """The content of a folder in order; all paths begin with the folder, and no part below it is a link."""

    files: list[Path]
    """Regular files outside `staged`."""
    folders: list[Path]
    """Folders below the searched one."""
    staged: list[Path]
    """Files of interrupted preparations."""
    data_sets: list[Path]
    stopped: list[Path]
    """Data sets with an interrupted th-jax prepare forget."""
    links: list[Path]

    def numbered_images(self, folder: Path) -> set[Path]:
        """Return the files of a folder that are named by the number of a step or frame, and their temporary files."""
        return {path for path in self.files if path.parent == folder and _NUMBERED_IMAGE.fullmatch(path.name)}


def walk(root: Path) -> Tree:
    """List everything below a folder.

    Raises:
        OSError: if a folder cannot be read.
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
    """Return the name of the avatar that a file, or its temporary file, belongs to; None for other files.

    No name begins with a dot, so that none leads out of a folder.
    """
    found = _AVATAR_FILE.fullmatch(file_name)
    return None if found is None else found["name"] or found["left"]


def is_left(path: Path) -> bool:
    """Return whether a file has the name of an interrupted write."""
    return _LEFT.fullmatch(path.name) is not None


def emptied(folders: Collection[Path], going: Collection[Path]) -> tuple[Path, ...]:
    """Return the folders that contain only files to be removed."""
    return tuple(sorted(folder for folder in folders if all(folder / name in going for name in os.listdir(folder))))


def _refuse(error: OSError) -> None:
    raise error
