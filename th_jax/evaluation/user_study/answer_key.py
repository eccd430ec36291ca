"""The answer key of a study: which image of each triplet is the fake. It is kept outside the folder that raters get."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.evaluation.user_study.frames import CHECK
from th_jax.evaluation.user_study.triplets import Triplet

KEY_FILE = "key.json"
PAGE_FOLDER = "page"
KEY_SCHEMA = 1


class StudyKey(NamedTuple):
    """All data of a study besides its answers."""

    study: str
    """32 random hexadecimal digits, so that answers to another study are not accepted."""
    name: str
    size: int
    """Side of the images, in pixels."""
    seed: int
    consent: str
    """SHA-256 digest of the text that raters agree to."""
    frames: str
    """SHA-256 digest of the index of frames."""
    created: str
    software: str
    triplets: dict[str, Triplet]
    """Triplets by the random name of their image, 16 hexadecimal digits."""

    @property
    def checks(self) -> frozenset[str]:
        """Names of the attention checks."""
        return frozenset(name for name, triplet in self.triplets.items() if triplet.method == CHECK)


def key_text(key: StudyKey) -> str:
    """Serialize the key as JSON."""
    triplets = [{"triplet": name} | triplet._asdict() for name, triplet in key.triplets.items()]
    return json.dumps({"schema": KEY_SCHEMA} | key._asdict() | {"triplets": triplets}, indent=1) + "\n"


def read_key(folder: str | Path) -> StudyKey:
    """Read the key in a folder made by `build`.

    Raises:
        FileNotFoundError: if the folder has none.
        ValueError: if it is damaged.
    """
    path = Path(folder) / KEY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a user study: {KEY_FILE} is missing; create one with build")
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != KEY_SCHEMA:
            raise ValueError(f"expected schema {KEY_SCHEMA}, got {record['schema']!r}")
        fields = {name: record[name] for name in StudyKey._fields}
        key = StudyKey(**fields | {"triplets": dict(_triplet(entry) for entry in record["triplets"])})
        if len(key.triplets) != len(record["triplets"]) or not key.triplets:
            raise ValueError("it has no triplets or a duplicate one")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return key


def _triplet(entry: dict[str, Any]) -> tuple[str, Triplet]:
    one, two, three = entry["paths"]
    triplet = Triplet(**{name: entry[name] for name in Triplet._fields} | {"paths": (one, two, three)})
    if triplet.fake not in (1, 2, 3):
        raise ValueError(f"the fake of {entry['triplet']!r} must be 1, 2 or 3, got {triplet.fake!r}")
    return entry["triplet"], triplet
