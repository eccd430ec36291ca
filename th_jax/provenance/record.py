"""The provenance record of a file: what generated it. It is required for every output, and stored beside it as JSON."""

import base64
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

from th_jax.storage.files import file_sha256
from th_jax.storage.strict_json import check_object, from_json, parse_json
from th_jax.version import __version__

PROVENANCE_SCHEMA = 2
"""Version of the JSON format; readers reject later ones."""

_SINCE_SCHEMA_2 = ("person", "ingredients", "watermark")

SIDECAR_SUFFIX = ".provenance.json"
_SIDECAR_LIMIT = 2**20

MAX_NOTES = 2**16
"""Maximum size of the notes in UTF-8, in bytes."""

MAX_RECORD = 800_000
"""Maximum size of a record as JSON without archives, in bytes. Manifests of 1 MB can be signed, and records of 1 MiB
can be read."""

_WATERMARK = re.compile(r"[0-9a-f]{1,64}")


MAX_INGREDIENTS = 256

MAX_ARCHIVES = 16 * 2**20
"""Maximum total size of all ingredients' archives, in bytes."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Role(enum.StrEnum):
    """Role of an input file."""

    SHOT = "shot"
    """An image of the person."""
    DRIVER = "driver"
    """A video whose motion, and possibly sound, was used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredient:
    """An input file that carries C2PA manifests.

    Raises:
        ValueError: if the role is unknown or the digest is malformed.
    """

    role: Role
    file: str
    """SHA-256 digest of the file."""
    archive: bytes | None = None
    """The file's manifests, as c2pa's archive of one ingredient; None if they are too large or unusable
    (`usable_ingredients`), and in the record beside a file that contains them."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        object.__setattr__(self, "role", Role(self.role))
        check_digests(self.file)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        archive = None if self.archive is None else base64.b64encode(self.archive).decode()
        return {"role": self.role.value, "file": self.file, "archive": archive}

    @classmethod
    def from_dict(cls, record: Any) -> "Ingredient":
        """Convert the output of `to_dict` back to an ingredient.

        Raises:
            ValueError: if fields are missing, unknown or malformed.
        """
        match record:
            case {"role": str(role), "file": str(file), "archive": None | str() as archive} if len(record) == 3:
                content = None if archive is None else base64.b64decode(archive, validate=True)
                return cls(role=Role(role), file=file, archive=content)
        raise ValueError("provenance: an ingredient is malformed")


def check_digests(*digests: Any) -> None:
    """Check that all values are None or SHA-256 digests in hexadecimal.

    Raises:
        ValueError: if one is not; the message gives it.
    """
    for digest in digests:
        if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            raise ValueError(f"provenance: a digest must be 64 hexadecimal digits, got {digest!r}")


def check_ingredients(ingredients: Sequence[Ingredient]) -> None:
    """Check the number of ingredients and the total size of their archives.

    Raises:
        ValueError: if there are too many; the message gives number and size.
    """
    size = sum(len(one.archive or b"") for one in ingredients)
    if len(ingredients) > MAX_INGREDIENTS or size > MAX_ARCHIVES:
        raise ValueError(
            f"provenance: {len(ingredients)} ingredients with {size} bytes of manifests exceed the limit of "
            f"{MAX_INGREDIENTS} with {MAX_ARCHIVES} bytes"
        )


class Kind(enum.StrEnum):
    """What the pixels show."""

    GENERATED = "generated"
    """Output of a generator network: an image of a person that was not taken by a camera."""
    COMPOSITE = "composite"
    """Generated images next to others: a contact sheet, or a video beside its driver."""
    SYNTHETIC_RENDER = "synthetic_render"
    """Rendering of a synthetic head, which shows no real person."""
    REAL_CROP = "real_crop"
    """Camera image, cropped and resized."""
    TRAINING_GRID = "training_grid"
    """Samples beside their sources, made to monitor a training run."""
    FIGURE = "figure"
    """A chart, a drawing of landmarks, or a contact sheet without generated images."""


class Person(enum.StrEnum):
    """Whether the person in generated images exists."""

    SYNTHETIC = "synthetic"
    """The person does not exist."""
    REAL = "real"
    UNKNOWN = "unknown"
    """Treated as real."""


@runtime_checkable
class ImagesWithMask(Protocol):
    """The fields of `th_jax.types.Shots` that provenance needs."""

    @property
    def frames(self) -> Any:
        """UInt8 `[T, H, W, 3]`."""

    @property
    def mask(self) -> Any:
        """`[T]`, 0 for padding."""


def now() -> str:
    """Return the present time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def pixel_digest(frame: Any) -> str:
    """Compute the SHA-256 digest of an array's shape, type and values, in hexadecimal."""
    array = np.ascontiguousarray(frame)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of an image or video. Digests are SHA-256 in hexadecimal.

    Raises:
        ValueError: if the kind is unknown, the time is not ISO 8601 with a time zone, a digest is malformed, text
            cannot be encoded as UTF-8, or the limits `MAX_NOTES` and `MAX_RECORD` are exceeded.
    """

    kind: Kind
    software: str = "th_jax"
    version: str = __version__
    created: str = dataclasses.field(default_factory=now)
    """Time of creation, ISO 8601 with a time zone."""
    avatar: str | None = None
    """Digest of the rendered avatar."""
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Digest of each set of weights, by name."""
    inputs: tuple[str, ...] = ()
    """Digests of the person's images: of their files, or of their pixels (`pixel_digest`)."""
    consent: str | None = None
    """Digest of the consent record of the person shown."""
    notes: str = ""
    person: Person = Person.UNKNOWN
    """Whether the person in generated images is real."""
    ingredients: tuple[Ingredient, ...] = ()
    """Inputs and driver that carry manifests."""
    watermark: str | None = None
    """Watermark message in the pixels, in hexadecimal."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        object.__setattr__(self, "kind", Kind(self.kind))
        try:
            zone = datetime.fromisoformat(self.created).tzinfo
        except (TypeError, ValueError):
            zone = None
        if zone is None:
            raise ValueError(f"provenance: created must be ISO 8601 with a time zone, got {self.created!r}")
        object.__setattr__(self, "person", Person(self.person))
        check_digests(self.avatar, self.consent, *self.weights.values(), *self.inputs)
        if self.watermark is not None and not _WATERMARK.fullmatch(self.watermark):
            raise ValueError(f"provenance: a watermark message must be hexadecimal, got {self.watermark!r}")
        check_ingredients(self.ingredients)
        self._check_text()

    def _check_text(self) -> None:
        """Check that text can be signed and read again, before hours of work."""
        for text in (self.software, self.version, self.notes, *self.weights):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"provenance: {text[:100]!a} is not valid UTF-8") from error
        if (size := len(self.notes.encode())) > MAX_NOTES:
            raise ValueError(f"provenance: the notes have {size} bytes, over the limit of {MAX_NOTES}")
        long = [self.software, self.version, self.created, self.notes, dict(self.weights), list(self.inputs)]
        size = len(json.dumps([*long, [[one.role.value, one.file] for one in self.ingredients]]))
        if size > MAX_RECORD:
            raise ValueError(
                f"provenance: a record of {len(self.inputs)} inputs and {len(self.weights)} weights has {size} "
                f"bytes, over the limit of {MAX_RECORD}"
            )

    @property
    def shows_generated(self) -> bool:
        """Whether the pixels were generated by a machine, so that the file must be marked.

        A figure counts if it names an avatar or weights. Grids of a training run do not count: they stay beside their
        run.
        """
        if self.kind is Kind.FIGURE:
            return self.avatar is not None or bool(self.weights)
        return self.kind in (Kind.GENERATED, Kind.COMPOSITE, Kind.SYNTHETIC_RENDER)

    def of(self, shots: ImagesWithMask) -> "Provenance":
        """Return the record with the digests of a person's images as inputs, without padding."""
        frames, mask = np.asarray(shots.frames), np.asarray(shots.mask)
        inputs = tuple(pixel_digest(frame) for frame, real in zip(frames, mask, strict=True) if real)
        return dataclasses.replace(self, inputs=inputs)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values, including the schema version."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain: dict[str, Any] = {"kind": self.kind.value, "weights": dict(self.weights), "inputs": list(self.inputs)}
        plain |= {"person": self.person.value, "ingredients": [one.to_dict() for one in self.ingredients]}
        return {"schema": PROVENANCE_SCHEMA} | fields | plain

    @classmethod
    def from_dict(cls, record: Any) -> "Provenance":
        """Convert the output of `to_dict`, of this schema version or an earlier one, back to a record.

        Raises:
            ValueError: if the schema version is later, or fields are missing, unknown or malformed.
        """
        schema = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
        if type(schema) is not int or not 1 <= schema <= PROVENANCE_SCHEMA:
            raise ValueError(f"provenance: expected schema 1 to {PROVENANCE_SCHEMA}, got {schema!r}")
        names = {field.name for field in dataclasses.fields(cls)} - set(_SINCE_SCHEMA_2 if schema < 2 else ())
        check_object(record, names | {"schema"}, where="provenance")
        values = {name: record[name] for name in names - {"ingredients"}}
        listed = record.get("ingredients", [])
        if not isinstance(listed, list):
            raise ValueError("provenance: ingredients must be a list")
        ingredients = tuple(map(Ingredient.from_dict, listed[: MAX_INGREDIENTS + 1]))
        return dataclasses.replace(from_json(cls, values, where="provenance"), ingredients=ingredients)


def sidecar_path(path: str | Path) -> Path:
    """Return the path of the provenance record beside a file."""
    path = Path(path)
    return path.with_name(path.name + SIDECAR_SUFFIX)


class Sidecar(NamedTuple):
    """Contents of the JSON file beside a file."""

    provenance: Provenance
    digest: str
    """SHA-256 digest of the file as written, including marks."""
    marks: tuple[str, ...]
    """Marks in the file besides its pixels: "c2pa"."""
    unmarked_for_research: bool
    """Whether marks were left out on request."""


def sidecar_text(
    path: Path, digest: str, provenance: Provenance, *, marks: Sequence[str] = (), unmarked_for_research: bool = False
) -> str:
    """Serialize the record beside a file whose SHA-256 digest is `digest`."""
    bare = tuple(dataclasses.replace(one, archive=None) for one in provenance.ingredients)
    record = {"file": path.name, "sha256": digest, "marks": list(marks), "unmarked_for_research": unmarked_for_research}
    record["provenance"] = dataclasses.replace(provenance, ingredients=bare).to_dict()
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse_sidecar(text: bytes) -> Sidecar:
    """Parse the record beside a file.

    Raises:
        ValueError: if it is malformed.
    """
    try:
        record = parse_json(text, name="it", max_bytes=_SIDECAR_LIMIT)
        provenance = Provenance.from_dict(record["provenance"])
        # Records from before there were marks lack these fields.
        digest, marks, unmarked = record["sha256"], record.get("marks", []), record.get("unmarked_for_research", False)
        known = isinstance(marks, list) and all(isinstance(mark, str) for mark in marks) and isinstance(unmarked, bool)
        if not known or not isinstance(digest, str):
            raise ValueError("a field has the wrong type")
        check_digests(digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is malformed ({type(error).__name__}: {error})") from error
    return Sidecar(provenance, digest, tuple(marks), unmarked)


def open_sidecar(path: str | Path) -> Sidecar:
    """Read the record beside a file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    beside = sidecar_path(path)
    if beside.exists() and not beside.is_file():  # opening a pipe would block
        raise ValueError(f"{beside} is not a provenance record: it is not a regular file")
    with beside.open("rb") as file:
        text = file.read(_SIDECAR_LIMIT + 1)
    if len(text) > _SIDECAR_LIMIT:
        raise ValueError(f"{beside} is larger than {_SIDECAR_LIMIT} bytes, the limit of a provenance record")
    try:
        return parse_sidecar(text)
    except ValueError as error:
        raise ValueError(f"{beside} is not a valid provenance record: {error}") from error


def read_sidecar(path: str | Path) -> tuple[Provenance, bool]:
    """Return the provenance of a written file, and whether the file is unchanged.

    Raises:
        FileNotFoundError: if the file or its record is missing.
        ValueError: if the record cannot be read.
    """
    record = open_sidecar(path)
    return record.provenance, file_sha256(path) == record.digest
