"""The answer key of a study: which image of each triplet is the fake. It is kept outside the folder that raters get."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.evaluation.user_study.frames import CHECK
from th_jax.evaluation.user_study.triplets import Triplet
from th_jax.storage.strict_json import check_object, from_json, read_json

KEY_FILE = "key.json"
PAGE_FOLDER = "page"
KEY_SCHEMA = 1

_KEY_LIMIT = 64 * 2**20
"""Maximum number of bytes."""


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
        record = check_object(read_json(path, max_bytes=_KEY_LIMIT), ("schema", *StudyKey._fields), where="it")
        if (schema := record.pop("schema")) != KEY_SCHEMA:
            raise ValueError(f"expected schema {KEY_SCHEMA}, got {schema!r}")
        entries = record.pop("triplets")
        key = from_json(StudyKey, record | {"triplets": dict(map(_triplet, entries))}, where="it")
        if len(key.triplets) != len(entries) or not key.triplets:
            raise ValueError("it has no triplets or a duplicate one")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return key


def _triplet(entry: Any) -> tuple[str, Triplet]:
    fields = dict(check_object(entry, ("triplet", *Triplet._fields), where="a triplet"))
    name = fields.pop("triplet")
    triplet = from_json(Triplet, fields, where="a triplet")
    if triplet.fake not in (1, 2, 3):
        raise ValueError(f"the fake of {name!r} must be 1, 2 or 3, got {triplet.fake!r}")
    return name, triplet
