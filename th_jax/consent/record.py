"""The consent record: who agreed to what, for which images, until when; a JSON file that is validated strictly.

assets/consent.schema.json describes the file for other programs. The checks here are stricter where a schema cannot be:
times must exist and be in order, and names must not contain invisible characters. Records are not signed: they state a
claim and do not prove it.
"""

import dataclasses
import enum
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from th_jax.media.limits import Limits, MediaError, check_file
from th_jax.storage.files import whole_file
from th_jax.storage.strict_json import check_object, parse_json

CONSENT_SCHEMA = 1
"""Version of the JSON format; other versions are rejected."""

SCHEMA_FILE = Path(__file__).parent.parent / "assets" / "consent.schema.json"
RECORD_SUFFIX = ".consent.json"
"""Suffix of the records that are looked for in a folder."""

MAX_RECORD_BYTES = 2**20
MAX_SHOTS = 10_000
MAX_SUBJECT, MAX_SCOPE = 200, 2000
"""Maximum number of characters."""

TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})"
DIGEST, NONCE = r"[0-9a-f]{64}", r"[0-9a-f]{32}"


class ConsentError(ValueError):
    """A consent record is missing, malformed, expired, revoked, or does not cover these images; the message says which."""


class Basis(enum.StrEnum):
    """Basis on which images of the subject may be used."""

    SELF = "self"
    """The user is the subject."""
    CONSENT_GIVEN = "consent_given"
    """The subject agreed; the record's author keeps the evidence."""
    PUBLIC_DOMAIN = "public_domain"
    """The images are free of copyright. This says nothing about the subject's own rights."""
    SYNTHETIC = "synthetic"
    """The person does not exist."""


class Use(enum.StrEnum):
    """Permitted uses of an avatar. They are recorded, but cannot be enforced."""

    PRIVATE = "private"
    """Shown to the subject and people chosen by the subject."""
    RESEARCH = "research"
    EDUCATION = "education"
    ART = "art"
    PUBLICATION = "publication"
    """Shown to the public."""
    COMMERCIAL = "commercial"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsentRecord:
    """One subject's consent. Times are ISO 8601 with seconds and a time zone.

    Raises:
        ConsentError: if a field is malformed.
    """

    subject: str
    """Name or pseudonym of the person shown."""
    basis: Basis
    uses: tuple[Use, ...] = (Use.PRIVATE,)
    scope: str = ""
    """Description of what the subject agreed to."""
    created: str
    expires: str | None = None
    """Time from which on nothing may be generated any more."""
    revoked: str | None = None
    """Time of the revocation. A record with any such time counts as revoked, whatever the clock says."""
    shots: tuple[str, ...]
    """SHA-256 digests of the image files, in hexadecimal."""
    nonce: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))
    """Random, so that the subject cannot be found by trying names until the digest matches."""

    def __post_init__(self) -> None:
        """Validate every field, and sort lists."""
        for name, value in _checked(
            {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        ).items():
            object.__setattr__(self, name, value)

    @property
    def digest(self) -> str:
        """SHA-256 digest of the record's canonical JSON as if it had not been revoked, in hexadecimal.

        A revoked record thus still has the digest by which avatars refer to it; any other change gives another digest.
        """
        given = self.to_dict() | {"revoked": None}
        canonical = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values, including the schema version."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {"basis": self.basis.value, "uses": [use.value for use in self.uses], "shots": list(self.shots)}
        return {"schema": CONSENT_SCHEMA} | fields | plain

    @classmethod
    def from_dict(cls, record: Any) -> "ConsentRecord":
        """Convert the output of `to_dict` back to a record.

        Raises:
            ConsentError: if the schema version is another one, or fields are missing, unknown or malformed.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        schema = record.get("schema") if isinstance(record, dict) else CONSENT_SCHEMA
        if type(schema) is not int or schema != CONSENT_SCHEMA:  # JSON's true is not 1
            _invalid(f"expected schema {CONSENT_SCHEMA}, got another one")
        check_object(record, {"schema", *names}, where="invalid consent record: it", error=ConsentError)
        return cls(**_checked({name: record[name] for name in names}))


def read_consent(path: str | Path) -> ConsentRecord:
    """Read a consent record from a file.

    Raises:
        ConsentError: if the file does not exist, is larger than `MAX_RECORD_BYTES`, or is malformed.
    """
    path = Path(path)
    try:
        with check_file(path, Limits(file_bytes=MAX_RECORD_BYTES)).open("rb") as file:
            content = file.read(MAX_RECORD_BYTES + 1)
    except (MediaError, OSError) as error:
        raise ConsentError(f"invalid consent record: {error}") from error
    try:
        return parse_consent(content)
    except ConsentError as error:
        raise ConsentError(f"{path}: {error}") from error


def parse_consent(content: bytes) -> ConsentRecord:
    """Parse a consent record from JSON text.

    Raises:
        ConsentError: if the record is malformed; nothing is repaired or ignored.
    """
    record = parse_json(content, name="invalid consent record: it", max_bytes=MAX_RECORD_BYTES, error=ConsentError)
    return ConsentRecord.from_dict(record)


def write_consent(path: str | Path, record: ConsentRecord, *, overwrite: bool = False) -> None:
    """Write a record atomically, readable only by its owner.

    Raises:
        ConsentError: if the file exists and `overwrite` is False.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    path = Path(path)
    if not overwrite and os.path.lexists(path):
        raise ConsentError(f"{path} already exists: records are not overwritten, choose another name")
    text = json.dumps(record.to_dict(), indent=2, ensure_ascii=False) + "\n"
    with whole_file(path, mode=0o600) as file:
        file.write(text.encode())


def parse_time(name: str, written: Any) -> datetime:
    """Parse the time of a field, in UTC.

    Raises:
        ConsentError: if it is not ISO 8601 with seconds and a time zone, such as 2026-11-23T12:00:00+00:00, or does not
            exist.
    """
    _matching(name, TIME, written, "a time such as 2026-11-23T12:00:00+00:00")
    try:
        # Converted to UTC, so that the first and last hours of the calendar fail here and not in later comparisons.
        return datetime.fromisoformat(written).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConsentError(f"invalid consent record: {name} is not a valid time: {error}") from error


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Validate fields of any type and return them as a record stores them."""
    _text("subject", fields["subject"], 1, MAX_SUBJECT)
    _text("scope", fields["scope"], 0, MAX_SCOPE)
    _matching("nonce", NONCE, fields["nonce"])
    created = parse_time("created", fields["created"])
    expires, revoked = fields["expires"], fields["revoked"]
    if expires is not None and parse_time("expires", expires) <= created:
        _invalid(f"expires ({expires}) must be later than created ({fields['created']})")
    if revoked is not None and parse_time("revoked", revoked) < created:
        _invalid(f"revoked ({revoked}) must not be earlier than created ({fields['created']})")
    uses = _each("uses", fields["uses"], len(Use), lambda use: _member("uses", Use, use))
    shots = _each("shots", fields["shots"], MAX_SHOTS, lambda digest: _matching("a shot", DIGEST, digest))
    lists = {"uses": tuple(sorted(uses)), "shots": tuple(sorted(shots))}
    return {**fields, "basis": _member("basis", Basis, fields["basis"]), **lists}


def _invalid(reason: str) -> NoReturn:
    raise ConsentError(f"invalid consent record: {reason}")


def _text(name: str, value: Any, least: int, most: int) -> None:
    # Programs print these on terminals, where control and direction characters could misrepresent the record.
    if (
        not isinstance(value, str)
        or not least <= len(value) <= most
        or not value.isprintable()
        or value != value.strip()
    ):
        _invalid(
            f"{name} must be {least} to {most} printable characters on one line, without leading or trailing spaces"
        )


def _member(name: str, kinds: type[enum.StrEnum], value: Any) -> Any:
    if not isinstance(value, str) or value not in list(kinds):
        _invalid(f"{name} must be one of {', '.join(kinds)}")
    return kinds(value)


def _matching(name: str, pattern: str, value: Any, wanted: str = "") -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        _invalid(f"{name} must be {wanted or 'lowercase hexadecimal digits of the right length'}")
    return value


def _each(name: str, values: Any, most: int, check: Any) -> list[Any]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= most:
        _invalid(f"{name} must be a list of 1 to {most} entries")
    checked = [check(value) for value in values]
    if len(set(checked)) < len(checked):
        _invalid(f"{name} has duplicate entries")
    return checked
