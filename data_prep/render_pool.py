"""Renders people in worker processes and keeps each finished one as a file, so that a stopped run can go on.

Records depend on seeds and settings alone: how often a run was stopped and how many workers it had leaves no trace.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from data_prep import head_records, synthetic_heads
from data_prep.head_records import HeadRecord, HeadSettings, head_name, head_record
from data_prep.synthetic_heads.mesh import SHA256 as MESH_SHA256
from data_prep.synthetic_heads.people import Style
from data_prep.workers import Died, run_in_processes
from th_jax.data.schema import SCHEMA_VERSION, parse, serialise


class HeadFile(NamedTuple):
    """Who is to be rendered, how, and where the finished record is kept."""

    seed: int
    settings: HeadSettings
    path: Path


def head_file(folder: Path, seed: int, settings: HeadSettings) -> HeadFile:
    """A person's file, in a folder named after all that decides its bytes: nothing older or other is taken for it."""
    return HeadFile(seed, settings, folder / _fingerprint(settings) / f"{head_name(seed, style=settings.style)}.record")


@functools.cache
def _fingerprint(settings: HeadSettings) -> str:
    sources = [*sorted(Path(synthetic_heads.__path__[0]).glob("*.py")), Path(head_records.__file__)]
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    decisive = [settings, code, MESH_SHA256, SCHEMA_VERSION, cv2.__version__, np.__version__]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def render_missing(heads: Sequence[HeadFile], *, workers: int) -> None:
    """Render those people whose files are missing or damaged, with a progress bar over the frames of all.

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
        # What was finished before says nothing about the speed of what follows.
        bar.initial = bar.n = bar.total - sum(head.settings.frames for head in missing)
        bar.unpause()
        for folder in {head.path.parent for head in missing}:
            folder.mkdir(parents=True, exist_ok=True)
        _render_all(missing, workers, bar)


def read_head(head: HeadFile) -> HeadRecord:
    """A finished person.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    content = _read(head.path)
    if content is None:
        raise ValueError(f"{head.path} was lost or changed since it was rendered: run the same command again")
    return HeadRecord(parse(content[0]), content[1])


def _render_all(heads: Sequence[HeadFile], workers: int, bar: tqdm) -> None:
    with contextlib.closing(run_in_processes(render_one, heads, workers=workers)) as results:
        for number, result in results:
            if isinstance(result, Died):
                raise RuntimeError(
                    "a worker was killed, perhaps for want of memory (each needs about 0.5 GB): run the same command "
                    "again with fewer workers; finished people are kept"
                )
            bar.update(heads[number].settings.frames)


def render_one(task: tuple[int, tuple, Path]) -> None:
    """Write a person's file, whole or not at all: a line with its digest, then the serialised record.

    Args:
        task: the fields of a `HeadFile`, as a worker gets them.
    """
    settings = HeadSettings(*task[1])
    head = HeadFile(task[0], settings._replace(style=Style(settings.style)), task[2])
    record, not_found = head_record(head.seed, head.settings)
    data = serialise(record)
    line = json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "not_found": not_found})
    partial = head.path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(line.encode() + b"\n" + data)
    os.replace(partial, head.path)


def _read(path: Path) -> tuple[bytes, int] | None:
    """The record's bytes and how often the face was not found; None if the file is missing or damaged."""
    try:
        line, _, data = path.read_bytes().partition(b"\n")
        head = json.loads(line)
        whole = head["sha256"] == hashlib.sha256(data).hexdigest()
        return (data, int(head["not_found"])) if whole else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
