"""Renders people in worker processes, and keeps each finished one as a file, so that an interrupted run can continue.

Records depend only on seeds and settings, not on interruptions or the number of workers.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from data_prep.heads.mesh import CHILDREN_SHA256
from data_prep.heads.mesh import SHA256 as MESH_SHA256
from data_prep.heads.people import Style
from data_prep.heads.records import RENDER_VERSION, HeadRecord, HeadSettings, head_name, head_record
from data_prep.workers import Died, InvalidAnswer, run_in_processes
from th_jax.data.schema import SCHEMA_VERSION, parse, serialise
from th_jax.storage.files import whole_file
from th_jax.storage.strict_json import parse_json


class HeadFile(NamedTuple):
    """A person to render, and the path of the finished record."""

    seed: int
    settings: HeadSettings
    path: Path


def head_file(folder: Path, seed: int, settings: HeadSettings) -> HeadFile:
    """Return the file of a person, in a folder named by a digest of everything else that determines its content."""
    return HeadFile(seed, settings, folder / _fingerprint(settings) / f"{head_name(seed, style=settings.style)}.record")


@functools.cache
def _fingerprint(settings: HeadSettings) -> str:
    meshes = [MESH_SHA256, *([CHILDREN_SHA256] if settings.style == Style.PHOTO else [])]
    inputs = [RENDER_VERSION, settings, meshes, SCHEMA_VERSION, cv2.__version__, np.__version__]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def render_missing(heads: Sequence[HeadFile], *, workers: int) -> None:
    """Render the people whose files are missing or damaged, with a progress bar over all frames.

    Raises:
        RuntimeError: if a worker was killed, or could not write a file.
    """
    with tqdm(
        total=sum(head.settings.frames for head in heads), unit="frame", desc="rendering", smoothing=0.05, disable=None
    ) as bar:
        missing = [head for head in heads if _read(head.path) is None]
        if not missing:
            bar.update(bar.total)
            return
        # People finished by an earlier run must not count in the estimate of the speed.
        bar.initial = bar.n = bar.total - sum(head.settings.frames for head in missing)
        bar.unpause()
        for folder in {head.path.parent for head in missing}:
            folder.mkdir(parents=True, exist_ok=True)
        _render_all(missing, workers, bar)


def read_head(head: HeadFile) -> HeadRecord:
    """Read a finished person.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    content = _read(head.path)
    if content is None:
        raise ValueError(f"{head.path} is missing or was changed since it was rendered: run the same command again")
    return HeadRecord(parse(content[0]), content[1])


def _render_all(heads: Sequence[HeadFile], workers: int, bar: tqdm) -> None:
    with contextlib.closing(run_in_processes(render_one, heads, workers=workers)) as results:
        for number, result in results:
            if isinstance(result, InvalidAnswer):
                raise RuntimeError(f"person {heads[number].path.stem} could not be rendered: {result}")
            if isinstance(result, Died):
                raise RuntimeError(
                    "a worker was killed, perhaps because memory ran out (each needs about 0.5 GB): run the same command "
                    "again with fewer workers; finished people are kept"
                )
            bar.update(heads[number].settings.frames)


def render_one(task: tuple[int, tuple, Path]) -> None:
    """Render a person and write the file atomically: a line with the digest, then the serialized record.

    The task has the fields of a `HeadFile`, as a worker receives them.
    """
    settings = HeadSettings(*task[1])
    head = HeadFile(task[0], settings._replace(style=Style(settings.style)), task[2])
    record, not_found = head_record(head.seed, head.settings)
    data = serialise(record)
    line = json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "not_found": not_found})
    with whole_file(head.path) as file:
        file.write(line.encode() + b"\n" + data)


def _read(path: Path) -> tuple[bytes, int] | None:
    """Return the record's bytes and its number of undetected faces; None if the file is missing or damaged."""
    try:
        line, _, data = path.read_bytes().partition(b"\n")
        head = parse_json(line)
        whole = head["sha256"] == hashlib.sha256(data).hexdigest()
        return (data, int(head["not_found"])) if whole else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
