"""The record of what made a file: required for everything that is written, kept beside it as JSON."""

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from th_jax.media.ingredients import MAX_INGREDIENTS, Ingredient, check_digests, check_ingredients
from th_jax.version import __version__

PROVENANCE_SCHEMA = 2
"""Version of the JSON; a reader refuses later ones."""

_SINCE_SCHEMA_2 = ("person", "ingredients", "watermark")

SIDECAR_SUFFIX = ".provenance.json"
_SIDECAR_LIMIT = 2**20

MAX_NOTES = 2**16
"""Bytes of the notes in UTF-8."""

MAX_RECORD = 800_000
"""Bytes of a record as JSON, without archives. A manifest of 1 MB can be signed, and a record of 1 MiB is read again."""

_WATERMARK = re.compile(r"[0-9a-f]{1,64}")


class Kind(enum.StrEnum):
    """What the pixels are."""

    GENERATED = "generated"
    """Made by a generator network: a picture of somebody that no camera took."""
    COMPOSITE = "composite"
    """Generated pictures beside others: a contact sheet, a film beside its driver."""
    SYNTHETIC_RENDER = "synthetic_render"
    """Rendered from a synthetic head: shows nobody."""
    REAL_CROP = "real_crop"
    """A camera's picture, cropped and resized."""
    TRAINING_GRID = "training_grid"
    """Samples beside their sources, made to watch a training run."""
    FIGURE = "figure"
    """A chart, a drawing of landmarks, or a contact sheet without generated pictures."""


class Person(enum.StrEnum):
    """Whose generated pictures these are."""

    SYNTHETIC = "synthetic"
    """Nobody's: the person does not exist."""
    REAL = "real"
    UNKNOWN = "unknown"
    """Treated as real."""


@runtime_checkable
class PicturesWithMask(Protocol):
    """The part of `th_jax.types.Shots` that provenance needs."""

    @property
    def frames(self) -> Any:
        """UInt8 `[T, H, W, 3]`."""

    @property
    def mask(self) -> Any:
        """`[T]`, 0 where a picture is padding."""


def now() -> str:
    """The present time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def pixel_digest(frame: Any) -> str:
    """SHA-256 of an array's shape, type and values, in hexadecimal."""
    array = np.ascontiguousarray(frame)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a picture or a video. Digests are SHA-256 in hexadecimal.

    Raises:
        ValueError: for an unknown kind, a time that is not ISO 8601 with a zone, a malformed digest, text that is none in
            UTF-8, and more of anything than `MAX_NOTES` and `MAX_RECORD` allow.
    """

    kind: Kind
    software: str = "th_jax"
    version: str = __version__
    created: str = dataclasses.field(default_factory=now)
    """ISO 8601 with its zone."""
    avatar: str | None = None
    """Digest of the avatar that was rendered."""
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Digest of each set of weights by its name."""
    inputs: tuple[str, ...] = ()
    """Digests of the pictures of the person: of their files, or of their pixels (`pixel_digest`)."""
    consent: str | None = None
    """Digest of the consent record of the person shown."""
    notes: str = ""
    person: Person = Person.UNKNOWN
    """Whose pictures they are, where they are generated."""
    ingredients: tuple[Ingredient, ...] = ()
    """Those of the inputs, and of the driver, that carry manifests."""
    watermark: str | None = None
    """The message that the pixels carry, in hexadecimal."""

    def __post_init__(self) -> None:
        """Check what a caller may have got wrong."""
        object.__setattr__(self, "kind", Kind(self.kind))
        try:
            zone = datetime.fromisoformat(self.created).tzinfo
        except (TypeError, ValueError):
            zone = None
        if zone is None:
            raise ValueError(f"provenance: created must be ISO 8601 with a time zone, but is {self.created!r}")
        object.__setattr__(self, "person", Person(self.person))
        check_digests(self.avatar, self.consent, *self.weights.values(), *self.inputs)
        if self.watermark is not None and not _WATERMARK.fullmatch(self.watermark):
            raise ValueError(f"provenance: a watermark's message must be hexadecimal, but is {self.watermark!r}")
        check_ingredients(self.ingredients)
        self._check_text()

    def _check_text(self) -> None:
        """Refuse what could be neither signed nor read again, before hours of work end with it."""
        for text in (self.software, self.version, self.notes, *self.weights):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"provenance: {text[:100]!a} is no text in UTF-8") from error
        if (size := len(self.notes.encode())) > MAX_NOTES:
            raise ValueError(f"provenance: the notes have {size} bytes: at most {MAX_NOTES} are kept")
        long = [self.software, self.version, self.created, self.notes, dict(self.weights), list(self.inputs)]
        size = len(json.dumps([*long, [[one.role.value, one.file] for one in self.ingredients]]))
        if size > MAX_RECORD:
            raise ValueError(
                f"provenance: a record of {len(self.inputs)} inputs and {len(self.weights)} weights has {size} bytes: at most "
                f"{MAX_RECORD} are kept"
            )

    @property
    def shows_generated(self) -> bool:
        """Whether the pixels were made by a machine, so that the file is marked.

        A figure counts if it names an avatar or weights. Grids of a training run do not: they stay beside their run.
        """
        if self.kind is Kind.FIGURE:
            return self.avatar is not None or bool(self.weights)
        return self.kind in (Kind.GENERATED, Kind.COMPOSITE, Kind.SYNTHETIC_RENDER)

    def of(self, shots: PicturesWithMask) -> "Provenance":
        """The same record with the digests of a person's pictures as its inputs; padding is left out."""
        frames, mask = np.asarray(shots.frames), np.asarray(shots.mask)
        inputs = tuple(pixel_digest(frame) for frame, real in zip(frames, mask, strict=True) if real)
        return dataclasses.replace(self, inputs=inputs)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, with its schema version."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain: dict[str, Any] = {"kind": self.kind.value, "weights": dict(self.weights), "inputs": list(self.inputs)}
        plain |= {"person": self.person.value, "ingredients": [one.to_dict() for one in self.ingredients]}
        return {"schema": PROVENANCE_SCHEMA} | fields | plain

    @classmethod
    def from_dict(cls, record: Any) -> "Provenance":
        """The record that `to_dict` wrote, of this schema version or an earlier one.

        Raises:
            ValueError: for a later schema version, and for missing, unknown or malformed fields.
        """
        schema = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
        if type(schema) is not int or not 1 <= schema <= PROVENANCE_SCHEMA:
            raise ValueError(f"provenance: schemas 1 to {PROVENANCE_SCHEMA} are read here, but {schema!r} came")
        names = {field.name for field in dataclasses.fields(cls)} - set(_SINCE_SCHEMA_2 if schema < 2 else ())
        if names != set(record) - {"schema"}:
            wrong = ", ".join(sorted(map(str, names ^ (set(record) - {"schema"}))))
            raise ValueError(f"provenance: missing or unknown fields: {wrong[:200]!a}")
        values = {"person": "unknown", "ingredients": [], "watermark": None} | {name: record[name] for name in names}
        strings = all(
            isinstance(values[name], str) for name in ("kind", "software", "version", "created", "notes", "person")
        )
        optional = all(isinstance(values[name], str | None) for name in ("avatar", "consent", "watermark"))
        lists = isinstance(values["inputs"], list) and isinstance(values["ingredients"], list)
        groups = isinstance(values["weights"], Mapping) and lists
        digests = [*values["weights"].values(), *values["inputs"]] if groups else [None]
        if not (strings and optional and all(isinstance(digest, str) for digest in digests)):
            raise ValueError("provenance: a field has the wrong type")
        ingredients = tuple(map(Ingredient.from_dict, values["ingredients"][: MAX_INGREDIENTS + 1]))
        plain = {"kind": Kind(values["kind"]), "person": Person(values["person"]), "inputs": tuple(values["inputs"])}
        return cls(**values | plain | {"ingredients": ingredients})


def sidecar_path(path: str | Path) -> Path:
    """Where the provenance of a written file stands."""
    path = Path(path)
    return path.with_name(path.name + SIDECAR_SUFFIX)


class Sidecar(NamedTuple):
    """What stands in the JSON beside a file."""

    provenance: Provenance
    digest: str
    """SHA-256 of the file as it was written, marks and all."""
    marks: tuple[str, ...]
    """The marks that were put into the file beside its pixels: "c2pa"."""
    unmarked_for_research: bool
    """Whether marks were left out because somebody asked for it."""


def sidecar_text(
    path: Path, digest: str, provenance: Provenance, *, marks: Sequence[str] = (), unmarked_for_research: bool = False
) -> str:
    """The JSON that stands beside a file whose SHA-256 is `digest`."""
    bare = tuple(dataclasses.replace(one, archive=None) for one in provenance.ingredients)
    record = {"file": path.name, "sha256": digest, "marks": list(marks), "unmarked_for_research": unmarked_for_research}
    record["provenance"] = dataclasses.replace(provenance, ingredients=bare).to_dict()
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse_sidecar(text: bytes) -> Sidecar:
    """The record in the JSON beside a file.

    Raises:
        ValueError: if it is none.
    """
    try:
        record = json.loads(text)
        provenance = Provenance.from_dict(record["provenance"])
        # Neither was written before there were marks.
        digest, marks, unmarked = record["sha256"], record.get("marks", []), record.get("unmarked_for_research", False)
        known = isinstance(marks, list) and all(isinstance(mark, str) for mark in marks) and isinstance(unmarked, bool)
        if not known or not isinstance(digest, str):
            raise ValueError("a field has the wrong type")
        check_digests(digest)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is malformed ({type(error).__name__}: {error})") from error
    return Sidecar(provenance, digest, tuple(marks), unmarked)


def open_sidecar(path: str | Path) -> Sidecar:
    """The record that stands beside a file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    beside = sidecar_path(path)
    if beside.exists() and not beside.is_file():  # opening a pipe would wait for ever
        raise ValueError(f"{beside} is no provenance record: it is no file")
    with beside.open("rb") as file:
        text = file.read(_SIDECAR_LIMIT + 1)
    if len(text) > _SIDECAR_LIMIT:
        raise ValueError(f"{beside} is larger than {_SIDECAR_LIMIT} bytes: no provenance record")
    try:
        return parse_sidecar(text)
    except ValueError as error:
        raise ValueError(f"{beside} is no provenance record: {error}") from error


def read_sidecar(path: str | Path) -> tuple[Provenance, bool]:
    """The provenance of a written file, and whether the file is still the one that was written.

    Raises:
        FileNotFoundError: if the file or its record is missing.
        ValueError: if the record cannot be read.
    """
    record = open_sidecar(path)
    with Path(path).open("rb") as file:
        return record.provenance, hashlib.file_digest(file, "sha256").hexdigest() == record.digest
