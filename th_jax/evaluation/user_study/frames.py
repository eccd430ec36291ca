"""Reads study_frames.json: the real and generated frames of each method and person, all inside one folder."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from th_jax.storage.strict_json import check_object, from_json, parse_json

INDEX_FILE = "study_frames.json"
INDEX_SCHEMA = 1

CHECK = "check"
"""Used as the method of an attention check."""

_INDEX_LIMIT = 64 * 2**20
_SUFFIXES = (".png", ".jpg", ".jpeg")
_SIZES = range(16, 4097)
_DIGEST = re.compile(r"[0-9a-f]{64}")


class RealFrame(NamedTuple):
    """A held-out frame of a person, as recorded."""

    path: str
    """Path inside the folder, with forward slashes."""
    video: str
    """Video that the frame comes from."""


class GeneratedFrame(NamedTuple):
    """A method's image of a person."""

    path: str
    redraws: str
    """Path of the real frame whose landmarks drove it; the two are never shown together."""


class Cell(NamedTuple):
    """Images by one method from T shots: a cell of the paper's tables."""

    method: str
    shots: int
    people: Mapping[str, tuple[GeneratedFrame, ...]]


class StudyFrames(NamedTuple):
    """The frames that a study may show."""

    folder: Path
    name: str
    size: int
    """Height and width of every frame, in pixels."""
    real: Mapping[str, tuple[RealFrame, ...]]
    """Frames by person, three or more each."""
    cells: tuple[Cell, ...]
    weights: Mapping[str, str]
    """SHA-256 digest of each set of weights that made the generated frames, by name."""
    digest: str
    """SHA-256 digest of the index."""


def read_study_frames(folder: str | Path) -> StudyFrames:
    """Read and validate the index of a folder of frames; images are not decoded yet.

    Raises:
        FileNotFoundError: if the folder, index or a listed file does not exist.
        ValueError: if the index is damaged, lists too little, or names a file outside the folder.
    """
    folder = Path(folder)
    path = folder / INDEX_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} contains no frames for a user study: {INDEX_FILE} is missing")
    if path.stat().st_size > _INDEX_LIMIT:
        raise ValueError(f"{path} is larger than {_INDEX_LIMIT} bytes, the limit of a frame index")
    content = path.read_bytes()
    index = parse_json(content, name=str(path), max_bytes=_INDEX_LIMIT)
    try:
        return _parse(folder, index, hashlib.sha256(content).hexdigest())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse(folder: Path, index: Any, digest: str) -> StudyFrames:
    if isinstance(index, dict) and index.get("schema") != INDEX_SCHEMA:
        raise ValueError(f"expected schema {INDEX_SCHEMA}, got {index.get('schema')!r}")
    index = check_object(
        index, ("schema", "name", "size", "real", "generated"), where="the index", optional=["weights"]
    )
    size = index["size"]
    if type(size) is not int or size not in _SIZES:
        raise ValueError(f"size must be an integer of {_SIZES[0]} to {_SIZES[-1]} pixels, got {size!r}")
    real = {person: _real(folder, person, frames) for person, frames in _items(index["real"], "real")}
    cells = tuple(_cell(folder, entry, real) for entry in _list(index["generated"], "generated"))
    names = [(cell.method, cell.shots) for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"method {name[0]!r} with T = {name[1]} is listed twice")
    paths = [frame.path for cell in cells for frames in cell.people.values() for frame in frames]
    if len(set(paths)) != len(paths):
        raise ValueError("generated lists an image twice")
    weights = index.get("weights", {})
    if not isinstance(weights, dict) or not all(_DIGEST.fullmatch(str(digest)) for digest in weights.values()):
        raise ValueError("weights must be an object of SHA-256 digests in hexadecimal")
    return StudyFrames(folder, _text(index["name"], "name"), size, real, cells, weights, digest)


def _real(folder: Path, person: str, frames: Any) -> tuple[RealFrame, ...]:
    where = f"real frames of {person!r}"
    found = []
    for entry in _list(frames, where):
        frame = from_json(RealFrame, entry, where=f"an entry of the {where}")
        found.append(RealFrame(_inside(folder, frame.path), _text(frame.video, f"a video of the {where}")))
    paths = {frame.path for frame in found}
    if len(paths) != len(found):
        raise ValueError(f"the {where} list an image twice")
    if len(paths) < 3:
        raise ValueError(f"a triplet needs 3 {where} (two to show, one to reenact), but {len(paths)} are listed")
    return tuple(found)


def _cell(folder: Path, entry: Any, real: Mapping[str, tuple[RealFrame, ...]]) -> Cell:
    entry = check_object(entry, Cell._fields, where="an entry of generated")
    method, shots = _text(entry["method"], "method"), entry["shots"]
    if method == CHECK:
        raise ValueError(f"the method name {CHECK!r} is reserved for attention checks: choose another one")
    if type(shots) is not int or shots < 1:
        raise ValueError(f"shots of method {method!r} must be a positive integer, got {shots!r}")
    where = f"{method!r} with T = {shots}"
    people = {}
    for person, frames in _items(entry["people"], f"people of {where}"):
        if person not in real:
            raise ValueError(f"{where} has {person!r}, for whom no real frames are listed")
        known = {frame.path for frame in real[person]}
        generated = []
        for record in _list(frames, f"frames of {person!r} by {where}"):
            frame = from_json(GeneratedFrame, record, where=f"a frame of {person!r} by {where}")
            if frame.redraws not in known:
                raise ValueError(
                    f"a frame of {person!r} by {where} redraws {frame.redraws!r}, which is not a real frame of this person"
                )
            generated.append(frame._replace(path=_inside(folder, frame.path)))
        if known & {frame.path for frame in generated}:
            raise ValueError(f"an image of {person!r} is listed both as real and as generated by {where}")
        people[person] = tuple(generated)
    return Cell(method, shots, people)


def _inside(folder: Path, path: Any) -> str:
    """Validate that a path is an image in the folder, even after links are resolved."""
    text = _text(path, "a path")
    plain = PurePosixPath(text)
    if plain.is_absolute() or ".." in plain.parts or "\\" in text or ":" in text:
        raise ValueError(
            f"the path {text!r} is outside the folder: give it relative to the index, with forward slashes"
        )
    if plain.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{text!r} must end in {' or '.join(_SUFFIXES)}")
    target = folder / plain
    if not target.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the path {text!r} leads outside the folder through a link")
    if not target.is_file():
        raise FileNotFoundError(f"{folder / INDEX_FILE} lists {text!r}, which does not exist")
    return plain.as_posix()


def _items(value: Any, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{where} must be an object with one or more people")
    return [(_text(person, "a person's name"), entry) for person, entry in value.items()]


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} must be a list with one or more entries")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 500 or not value.isprintable():
        raise ValueError(f"{where} must be a string of 1 to 500 printable characters, got {str(value)[:60]!r}")
    return value
