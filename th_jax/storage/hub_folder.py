"""The folder layout of model hubs: model.safetensors, config.json, README.md and SHA256SUMS, also in a local cache."""

import re
from collections.abc import Mapping
from pathlib import Path

from th_jax.storage.files import file_sha256, read_file
from th_jax.text import utf8

WEIGHTS, CONFIG, CARD, SUMS = "model.safetensors", "config.json", "README.md", "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9_.\-]+)")
_CACHED = "models--"

_MAX_TEXT = 2**16


class HubFolderError(ValueError):
    """A hub folder is incomplete or altered; the message names the file and what to do."""


def hub_weights(folder: Path) -> Path | None:
    """Return the weights' file of a hub folder, or of the newest snapshot in a hub's cache; None for any other path.

    In a cache (`models--OWNER--NAME`), this is the snapshot that `refs/main` names, or else the only one. If the folder has
    SHA256SUMS, the files listed there are verified.

    Raises:
        HubFolderError: if a cache has no such snapshot, or a file does not match its checksum.
        OSError: if a file cannot be read.
    """
    if not folder.is_dir():
        return None
    if folder.name.startswith(_CACHED) and (folder / "snapshots").is_dir():
        folder = _snapshot(folder)
    elif not (folder / WEIGHTS).is_file():
        return None
    if not (folder / WEIGHTS).is_file():
        raise HubFolderError(f"{folder} has no {WEIGHTS}: download the model again")
    if (folder / SUMS).is_file():
        _check_sums(folder)
    return folder / WEIGHTS


def sums_text(folder: Path, names: tuple[str, ...]) -> str:
    """Return the text of SHA256SUMS, as `sha256sum --check` reads it."""
    return "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names)


def _snapshot(cache: Path) -> Path:
    reference = cache / "refs" / "main"
    if reference.is_file():
        revision = _text(reference).strip()
        if re.fullmatch(r"[0-9A-Za-z_.\-]{1,100}", revision) and revision.strip("."):
            found = cache / "snapshots" / revision
            if found.is_dir():
                return found
    snapshots = sorted(path for path in (cache / "snapshots").iterdir() if path.is_dir())
    if len(snapshots) != 1 or reference.is_file():
        raise HubFolderError(
            f"{cache} has {len(snapshots)} snapshots and none that refs/main names: give the path of one in "
            f"{cache / 'snapshots'}"
        )
    return snapshots[0]


def _check_sums(folder: Path) -> None:
    sums = _read_sums(folder / SUMS)
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise HubFolderError(f"{folder / name} is missing, but {SUMS} lists it: download the model again")
        if file_sha256(folder / name) != digest:
            raise HubFolderError(f"{folder / name} does not match its checksum in {SUMS}: download the model again")
    if WEIGHTS not in sums:
        raise HubFolderError(f"{folder / SUMS} does not list {WEIGHTS}: download the model again")


def _read_sums(path: Path) -> Mapping[str, str]:
    lines = [_LINE.fullmatch(line) for line in _text(path).splitlines() if line.strip()]
    found = [line for line in lines if line is not None]
    if len(found) < len(lines):
        raise HubFolderError(f"{path} is not a list of checksums: expected lines of a SHA-256 and a file name")
    return {line[2]: line[1] for line in found}


def _text(path: Path) -> str:
    return utf8(read_file(str(path), most=_MAX_TEXT), name=str(path))
