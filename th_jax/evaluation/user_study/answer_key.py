"""The answer key of a study: which picture of each triplet is the fake. It stays outside of the folder that raters get."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.evaluation.user_study.frames import CHECK
from th_jax.evaluation.user_study.triplets import Triplet

KEY_FILE = "key.json"
PAGE_FOLDER = "page"
KEY_SCHEMA = 1


class StudyKey(NamedTuple):
    """What is known of a study besides its answers."""

    study: str
    """32 hexadecimal digits, random: answers to another study do not fit."""
    name: str
    size: int
    """Of the pictures, pixels."""
    seed: int
    consent: str
    """SHA-256 of the text that raters agree to."""
    frames: str
    """SHA-256 of the index of frames."""
    created: str
    software: str
    triplets: dict[str, Triplet]
    """By the random name of their picture, 16 hexadecimal digits."""

    @property
    def checks(self) -> frozenset[str]:
        """Names of the attention checks."""
        return frozenset(name for name, triplet in self.triplets.items() if triplet.method == CHECK)


def key_text(key: StudyKey) -> str:
    """The key as JSON."""
    triplets = [{"triplet": name} | triplet._asdict() for name, triplet in key.triplets.items()]
    return json.dumps({"schema": KEY_SCHEMA} | key._asdict() | {"triplets": triplets}, indent=1) + "\n"


def read_key(folder: str | Path) -> StudyKey:
    """The key in a folder that `build` made.

    Raises:
        FileNotFoundError: if the folder holds none.
        ValueError: if it is damaged.
    """
    path = Path(folder) / KEY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no user study: there is no {KEY_FILE}; make one with build")
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != KEY_SCHEMA:
            raise ValueError(f"schema {KEY_SCHEMA} is read here, but {record['schema']!r} came")
        fields = {name: record[name] for name in StudyKey._fields}
        key = StudyKey(**fields | {"triplets": dict(_triplet(entry) for entry in record["triplets"])})
        if len(key.triplets) != len(record["triplets"]) or not key.triplets:
            raise ValueError("it has no triplets, or one twice")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return key


def _triplet(entry: dict[str, Any]) -> tuple[str, Triplet]:
    one, two, three = entry["paths"]
    triplet = Triplet(**{name: entry[name] for name in Triplet._fields} | {"paths": (one, two, three)})
    if triplet.fake not in (1, 2, 3):
        raise ValueError(f"the fake of {entry['triplet']!r} must be 1, 2 or 3, but is {triplet.fake!r}")
    return entry["triplet"], triplet
