"""Score storage of a run: one atomically written file per person and T, so that an interrupted run can be resumed."""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation.face_measures import FaceMeasures
from th_jax.evaluation.protocol.plan import Person, frame_name
from th_jax.media import MediaError, read_image
from th_jax.provenance import Provenance, Signer, write_image
from th_jax.storage.files import whole_file
from th_jax.storage.run_folder import write_whole
from th_jax.storage.strict_json import read_json

CELL_FOLDER = "cells"
FACE_FOLDER = "faces"
STUDY_FOLDER = "study"
CELL_SCHEMA = 4
"""Version of the measures in a cell; cells of another version are ignored."""
_MOST_BYTES = 2**28
"""Of a cell: some hundred measures of each shown frame."""
MethodAtShots = tuple[str, int]
REAL = "real"
"""The method of real frames, and their folder; its T is 0."""

Table = dict[str, Float[np.ndarray, " S"]]
"""Measures of one person by name, for each target; NaN where there is no value."""


class Cell(NamedTuple):
    """Results for one person at one T, by methods that ran together."""

    tables: Mapping[str, Table]
    """Tables by method."""
    about: Mapping[str, Any]
    """JSON values: steps, seconds, the fine-tuning curve."""


class ScoreStore:
    """The files of a run: OUT/cells/GROUP/T/PERSON.json, OUT/faces/PERSON.npz, OUT/study/METHOD-T/PERSON/FRAME.png."""

    def __init__(self, folder: Path, *, signer: Signer | None = None) -> None:
        """Open the run in `folder`; `signer` signs its images, and is chosen by `load_signer` by default."""
        self.folder, self.signer = folder, signer

    def read(self, group: str, shots: int, person: Person) -> Cell | None:
        """Read a cell; None if it is missing or damaged.

        The group is "ours", "real", or the name of another system; real frames have T = 0.
        """
        path = self._cell(group, shots, person)
        if not path.is_file():
            return None
        try:
            record = read_json(path, max_bytes=_MOST_BYTES)
            if record["schema"] != CELL_SCHEMA:
                return None
            tables = {
                method: {name: np.array(values, np.float64) for name, values in table.items()}
                for method, table in record["tables"].items()
            }
            whole = all(
                values.shape == (len(person.targets),) for table in tables.values() for values in table.values()
            )
            return Cell(tables, dict(record["about"])) if whole and tables else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, group: str, shots: int, person: Person, cell: Cell) -> None:
        """Write a cell.

        Raises:
            OSError: if the file cannot be written.
        """
        tables = {
            method: {name: [None if math.isnan(x) else x for x in values.tolist()] for name, values in table.items()}
            for method, table in cell.tables.items()
        }
        text = json.dumps({"schema": CELL_SCHEMA, "tables": tables, "about": dict(cell.about)}, allow_nan=False) + "\n"
        write_whole(str(self._cell(group, shots, person)), text.encode())

    def read_faces(self, person: Person) -> FaceMeasures | None:
        """Read the face measures of the person's real targets; None if they are missing or damaged."""
        path = self._faces(person)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                faces = FaceMeasures(arrays["landmarks"], arrays["descriptors"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
            return None
        return faces if len(faces.landmarks) == len(person.targets) else None

    def write_faces(self, person: Person, faces: FaceMeasures) -> None:
        """Write the face measures of the person's real targets.

        Raises:
            OSError: if the file cannot be written.
        """
        path = self._faces(person)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.savez(file, landmarks=faces.landmarks, descriptors=faces.descriptors)

    def image_folder(self, method: str, shots: int, person: Person) -> Path:
        """Return the folder of the person's images by a method."""
        return self.folder / STUDY_FOLDER / (method if method == REAL else f"{method}-{shots}") / person.name

    def write_images(
        self, method: str, shots: int, person: Person, frames: UInt8[np.ndarray, "S H W 3"], record: Provenance
    ) -> None:
        """Write an image for each target, with its provenance.

        Raises:
            OSError: if a file cannot be written.
        """
        folder = self.image_folder(method, shots, person)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = person.targets if method == REAL else person.driving
        for number, frame in zip(numbers, frames, strict=True):
            write_image(folder / frame_name(number), frame, provenance=record, signer=self.signer)

    def read_images(self, method: str, shots: int, person: Person) -> UInt8[np.ndarray, "S H W 3"]:
        """Read the images that `write_images` wrote.

        Raises:
            MediaError: a ValueError, if one is missing or damaged.
        """
        folder = self.image_folder(method, shots, person)
        numbers = person.targets if method == REAL else person.driving
        return np.stack([read_image(folder / frame_name(number)) for number in numbers])

    def _cell(self, group: str, shots: int, person: Person) -> Path:
        return self.folder / CELL_FOLDER / group / f"T{shots:02d}" / f"{person.name}.json"

    def _faces(self, person: Person) -> Path:
        return self.folder / FACE_FOLDER / f"{person.name}.npz"


def baseline_shots(folder: Path, shots: Sequence[int]) -> tuple[int, ...]:
    """Return those of the requested T that another system's folder contains now."""
    return tuple(count for count in shots if (folder / f"T{count}").is_dir())


def read_baseline(folder: Path, shots: int, person: Person, *, size: int) -> UInt8[np.ndarray, "S H W 3"] | None:
    """Read another system's images of a person: FOLDER/T8/PERSON/0008.png and so on; None if it lacks this T.

    `size` is the side of the images, in pixels.

    Raises:
        FileNotFoundError: if the T exists, but the person or one of the images does not.
        ValueError: if an image has another size or is damaged.
    """
    place = folder / f"T{shots}"
    if not baseline_shots(folder, [shots]):
        return None
    frames = []
    for number in person.driving:
        path = place / person.name / frame_name(number)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: {folder} must contain an image of every target in chosen.json for T = {shots}"
            )
        try:
            frame = read_image(path)
        except MediaError as error:
            raise ValueError(f"cannot read a baseline image: {error}") from error
        if frame.shape != (size, size, 3):
            height, width = frame.shape[:2]
            raise ValueError(f"{path} is {width}x{height} pixels, but expected {size}x{size}")
        frames.append(frame)
    return np.stack(frames)
