"""Finds what evaluations keep of somebody: descriptors of their face, features, scores, and pictures for a user study."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from data_prep.forget_tree import Tree

# Names that th_jax.evaluation.protocol gives; importing it would bring all networks.
CHOSEN_FILE, STUDY_FOLDER = "chosen.json", "study"
_FILES_AT = {"faces": 2, "cells": 4, "networks": 4}  # parts of the path from the run's folder

_PERSON_FILE = re.compile(r"(?P<name>.+)\.(?:npz|json)|\.(?P<left>.+)\.(?:npz|json)\.[0-9a-f]{8}\.partial")
_MOST_BYTES = 2**24


class Evaluated(NamedTuple):
    """What evaluations keep of somebody."""

    files: set[Path]
    folders: set[Path]
    """Of pictures of this person alone."""
    unreadable: set[Path]
    """Lists of who was chosen that do not say it."""


def find_evaluated(tree: Tree, names: Collection[str]) -> Evaluated:
    """Look for people by their names or their videos' ids, as chosen.json has them, which stays.

    Raises:
        OSError: if such a file cannot be read.
    """
    found = Evaluated(set(), set(), set())
    for path in (path for path in tree.files if path.name == CHOSEN_FILE):
        people = _called(path, names)
        if people is None:
            if any(path.with_name(part) in tree.folders for part in (*_FILES_AT, STUDY_FOLDER)):
                found.unreadable.add(path)
            continue
        for file in tree.files:
            parts = _below(file, path.parent)
            if parts and _FILES_AT.get(parts[0]) == len(parts) and _person(file.name) in people:
                found.files.add(file)
        for folder in tree.folders:
            parts = _below(folder, path.parent)
            if len(parts) == 3 and parts[0] == STUDY_FOLDER and parts[2] in people:
                found.folders.add(folder)
                found.files.update(tree.numbered_pictures(folder))
    return found


def _called(path: Path, names: Collection[str]) -> frozenset[str] | None:
    """What these people's files are called in an evaluation; None if its list cannot be read."""
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES + 1)
    try:
        people = json.loads(text)["people"]
        return frozenset(
            str(person["name"])
            for person in people
            if any(person[field] in names for field in ("name", "video_id", "identity"))
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def _person(file_name: str) -> str | None:
    found = _PERSON_FILE.fullmatch(file_name)
    return None if found is None else found["name"] or found["left"]
