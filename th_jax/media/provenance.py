"""The record of what made a file: required for everything that is written, kept beside it as JSON."""

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from th_jax.version import __version__

PROVENANCE_SCHEMA = 1
"""Version of the JSON; a reader refuses any other."""

SIDECAR_SUFFIX = ".provenance.json"
_SIDECAR_LIMIT = 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Kind(enum.StrEnum):
    """What the pixels are."""

    GENERATED = "generated"
    """Made by a generator network: a picture of somebody that no camera took."""
    SYNTHETIC_RENDER = "synthetic_render"
    """Rendered from a synthetic head: shows nobody."""
    REAL_CROP = "real_crop"
    """A camera's picture, cropped and resized."""
    TRAINING_GRID = "training_grid"
    """Samples beside their sources, made to watch a training run."""
    FIGURE = "figure"
    """A chart, a drawing of landmarks, or a contact sheet."""


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
        ValueError: for an unknown kind, a time that is not ISO 8601 with a zone, or a malformed digest.
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

    def __post_init__(self) -> None:
        """Check what a caller may have got wrong."""
        object.__setattr__(self, "kind", Kind(self.kind))
        try:
            zone = datetime.fromisoformat(self.created).tzinfo
        except (TypeError, ValueError):
            zone = None
        if zone is None:
            raise ValueError(f"provenance: created must be ISO 8601 with a time zone, but is {self.created!r}")
        for digest in (self.avatar, self.consent, *self.weights.values(), *self.inputs):
            if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
                raise ValueError(f"provenance: a digest must be 64 hexadecimal digits, but is {digest!r}")

    def of(self, shots: PicturesWithMask) -> "Provenance":
        """The same record with the digests of a person's pictures as its inputs; padding is left out."""
        frames, mask = np.asarray(shots.frames), np.asarray(shots.mask)
        inputs = tuple(pixel_digest(frame) for frame, real in zip(frames, mask, strict=True) if real)
        return dataclasses.replace(self, inputs=inputs)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, with its schema version."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {"kind": self.kind.value, "weights": dict(self.weights), "inputs": list(self.inputs)}
        return {"schema": PROVENANCE_SCHEMA} | fields | plain

    @classmethod
    def from_dict(cls, record: Any) -> "Provenance":
        """The record that `to_dict` wrote.

        Raises:
            ValueError: for another schema version, and for missing, unknown or malformed fields.
        """
        if not isinstance(record, Mapping) or record.get("schema") != PROVENANCE_SCHEMA:
            found = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
            raise ValueError(f"provenance: schema {PROVENANCE_SCHEMA} is read here, but {found!r} came")
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(record) - {"schema"}:
            wrong = ", ".join(sorted(names ^ (set(record) - {"schema"})))
            raise ValueError(f"provenance: missing or unknown fields: {wrong}")
        strings = all(isinstance(record[name], str) for name in ("kind", "software", "version", "created", "notes"))
        optional = all(isinstance(record[name], str | None) for name in ("avatar", "consent"))
        groups = isinstance(record["weights"], Mapping) and isinstance(record["inputs"], list)
        if not (strings and optional and groups and all(isinstance(digest, str) for digest in record["inputs"])):
            raise ValueError("provenance: a field has the wrong type")
        values = {name: record[name] for name in names}
        return cls(**values | {"kind": Kind(record["kind"]), "inputs": tuple(record["inputs"])})


def sidecar_path(path: str | Path) -> Path:
    """Where the provenance of a written file stands."""
    path = Path(path)
    return path.with_name(path.name + SIDECAR_SUFFIX)


def sidecar_text(path: Path, digest: str, provenance: Provenance) -> str:
    """The JSON that stands beside a file whose SHA-256 is `digest`."""
    record = {"file": path.name, "sha256": digest, "provenance": provenance.to_dict()}
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_sidecar(path: str | Path) -> tuple[Provenance, bool]:
    """The provenance of a written file, and whether the file is still the one that was written.

    Raises:
        FileNotFoundError: if the file or its record is missing.
        ValueError: if the record cannot be read.
    """
    beside = sidecar_path(path)
    with beside.open("rb") as file:
        text = file.read(_SIDECAR_LIMIT + 1)
    if len(text) > _SIDECAR_LIMIT:
        raise ValueError(f"{beside} is larger than {_SIDECAR_LIMIT} bytes: no provenance record")
    try:
        record = json.loads(text)
        provenance, digest = Provenance.from_dict(record["provenance"]), record["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{beside} is no provenance record: {error}") from error
    with Path(path).open("rb") as file:
        return provenance, hashlib.file_digest(file, "sha256").hexdigest() == digest
