"""The consent record: who agreed to what, on which pictures, until when; JSON that is read with distrust.

assets/consent.schema.json describes the file for other programs. What is here is stricter where a schema cannot be: times must
exist and lie in order, names hold nothing invisible. There is no signature: a record is somebody's word, no proof of it.
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
from th_jax.plain_text import utf8
from th_jax.whole_file import whole_file

CONSENT_SCHEMA = 1
"""Version of the JSON; a reader refuses any other."""

SCHEMA_FILE = Path(__file__).parent / "assets" / "consent.schema.json"
RECORD_SUFFIX = ".consent.json"
"""Ending of the records that are looked for in a folder of them."""

MAX_RECORD_BYTES = 2**20
MAX_SHOTS = 10_000
MAX_SUBJECT, MAX_SCOPE = 200, 2000
"""Characters."""

TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})"
DIGEST, NONCE = r"[0-9a-f]{64}", r"[0-9a-f]{32}"


class ConsentError(ValueError):
    """A consent record is missing, malformed, expired, revoked, or not of these pictures; the message says which."""


class Basis(enum.StrEnum):
    """Why pictures of this subject may be used."""

    SELF = "self"
    """The subject is the one who uses them."""
    CONSENT_GIVEN = "consent_given"
    """The subject agreed; whoever made the record keeps the evidence of it."""
    PUBLIC_DOMAIN = "public_domain"
    """The pictures are free of copyright. Of the subject's own rights this says nothing."""
    SYNTHETIC = "synthetic"
    """There is no such person."""


class Use(enum.StrEnum):
    """What an avatar may be used for. Programs write it down and cannot enforce it."""

    PRIVATE = "private"
    """Shown to the subject, and to whom the subject chooses."""
    RESEARCH = "research"
    EDUCATION = "education"
    ART = "art"
    PUBLICATION = "publication"
    """Shown to everybody."""
    COMMERCIAL = "commercial"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsentRecord:
    """One subject's consent. Times are ISO 8601 with seconds and a zone.

    Raises:
        ConsentError: for a field that is malformed.
    """

    subject: str
    """Who is shown: a name or a pseudonym."""
    basis: Basis
    uses: tuple[Use, ...] = (Use.PRIVATE,)
    scope: str = ""
    """What was agreed to, in words."""
    created: str
    expires: str | None = None
    """From this moment on nothing is made any more."""
    revoked: str | None = None
    """When it was taken back. A record with any such time counts as revoked, whatever the clock says."""
    shots: tuple[str, ...]
    """SHA-256 of the files of the pictures, in hexadecimal."""
    nonce: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))
    """Random: so that nobody finds the subject by trying names until the digest fits."""

    def __post_init__(self) -> None:
        """Check every field, and bring lists into one order."""
        for name, value in _checked(
            {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        ).items():
            object.__setattr__(self, name, value)

    @property
    def digest(self) -> str:
        """SHA-256 of the record's canonical JSON as if it had not been revoked, in hexadecimal.

        So an avatar's record is still found by this digest after it was revoked; any other change makes another record.
        """
        given = self.to_dict() | {"revoked": None}
        canonical = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, with its schema version."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {"basis": self.basis.value, "uses": [use.value for use in self.uses], "shots": list(self.shots)}
        return {"schema": CONSENT_SCHEMA} | fields | plain

    @classmethod
    def from_dict(cls, record: Any) -> "ConsentRecord":
        """The record that `to_dict` wrote.

        Raises:
            ConsentError: for another schema version, and for missing, unknown or malformed fields.
        """
        if not isinstance(record, Mapping):
            _refuse(f"it must be a JSON object, but is {type(record).__name__}")
        schema = record.get("schema")
        if type(schema) is not int or schema != CONSENT_SCHEMA:  # JSON's true is not 1
            _refuse(f"schema {CONSENT_SCHEMA} is read here, but another one came")
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(record) - {"schema"}:
            wrong = ", ".join(sorted(names ^ (set(record) - {"schema"})))
            _refuse(f"missing or unknown fields: {wrong[:200]!a}")
        return cls(**_checked({name: record[name] for name in names}))


def read_consent(path: str | Path) -> ConsentRecord:
    """The record in a file.

    Raises:
        ConsentError: if there is none, if it is larger than `MAX_RECORD_BYTES`, and if it is malformed.
    """
    path = Path(path)
    try:
        with check_file(path, Limits(file_bytes=MAX_RECORD_BYTES)).open("rb") as file:
            content = file.read(MAX_RECORD_BYTES + 1)
    except (MediaError, OSError) as error:
        raise ConsentError(f"no consent record: {error}") from error
    try:
        return parse_consent(content)
    except ConsentError as error:
        raise ConsentError(f"{path}: {error}") from error


def parse_consent(content: bytes) -> ConsentRecord:
    """The record in a JSON text.

    Raises:
        ConsentError: saying what is wrong; nothing is ever mended or left out.
    """
    if len(content) > MAX_RECORD_BYTES:
        _refuse(f"it has more than {MAX_RECORD_BYTES} bytes")
    try:
        record = json.loads(utf8(content, name="its content"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ConsentError("no consent record: it is nested too deeply") from error
    except ConsentError:
        raise
    except ValueError as error:
        raise ConsentError(f"no consent record: it is not JSON in UTF-8: {error}") from error
    return ConsentRecord.from_dict(record)


def write_consent(path: str | Path, record: ConsentRecord, *, overwrite: bool = False) -> None:
    """Write a record, whole or not at all, readable by its owner alone.

    Raises:
        ConsentError: if there is a file already and it may not be overwritten.
        OSError: if the disk refuses; nothing is left behind.
    """
    path = Path(path)
    if not overwrite and os.path.lexists(path):
        raise ConsentError(f"{path} is there already: a record is not overwritten, choose another name")
    text = json.dumps(record.to_dict(), indent=2, ensure_ascii=False) + "\n"
    with whole_file(path, mode=0o600) as file:
        file.write(text.encode())


def parse_time(name: str, written: Any) -> datetime:
    """The moment that a field says.

    Raises:
        ConsentError: if it is not ISO 8601 with seconds and a zone, such as 2026-11-23T12:00:00+00:00, or does not exist.
    """
    _matching(name, TIME, written, "a time as 2026-11-23T12:00:00+00:00")
    try:
        # In UTC, so that the first and last hours of the calendar are refused here and not where moments are compared.
        return datetime.fromisoformat(written).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConsentError(f"no consent record: {name} is no time: {error}") from error


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, whatever they were, as a record has them."""
    _text("subject", fields["subject"], 1, MAX_SUBJECT)
    _text("scope", fields["scope"], 0, MAX_SCOPE)
    _matching("nonce", NONCE, fields["nonce"])
    created = parse_time("created", fields["created"])
    expires, revoked = fields["expires"], fields["revoked"]
    if expires is not None and parse_time("expires", expires) <= created:
        _refuse(f"expires ({expires}) must be later than created ({fields['created']})")
    if revoked is not None and parse_time("revoked", revoked) < created:
        _refuse(f"revoked ({revoked}) may not be earlier than created ({fields['created']})")
    uses = _each("uses", fields["uses"], len(Use), lambda use: _member("uses", Use, use))
    shots = _each("shots", fields["shots"], MAX_SHOTS, lambda digest: _matching("a shot", DIGEST, digest))
    lists = {"uses": tuple(sorted(uses)), "shots": tuple(sorted(shots))}
    return {**fields, "basis": _member("basis", Basis, fields["basis"]), **lists}


def _refuse(reason: str) -> NoReturn:
    raise ConsentError(f"no consent record: {reason}")


def _text(name: str, value: Any, least: int, most: int) -> None:
    # Whoever shows a record on a terminal shows these: control and direction characters could make it lie.
    if (
        not isinstance(value, str)
        or not least <= len(value) <= most
        or not value.isprintable()
        or value != value.strip()
    ):
        _refuse(f"{name} must be {least} to {most} printable characters in one line, without spaces around them")


def _member(name: str, kinds: type[enum.StrEnum], value: Any) -> Any:
    if not isinstance(value, str) or value not in list(kinds):
        _refuse(f"{name} must be of {', '.join(kinds)}")
    return kinds(value)


def _matching(name: str, pattern: str, value: Any, wanted: str = "") -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        _refuse(f"{name} must be {wanted or 'lower-case hexadecimal digits of the right number'}")
    return value


def _each(name: str, values: Any, most: int, check: Any) -> list[Any]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= most:
        _refuse(f"{name} must be a list of 1 to {most}")
    checked = [check(value) for value in values]
    if len(set(checked)) < len(checked):
        _refuse(f"{name} names something twice")
    return checked


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a field come twice, and readers differ in which they believe."""
    if len({name for name, _ in pairs}) < len(pairs):
        _refuse("a field comes twice")
    return dict(pairs)


def _no_number(constant: str) -> NoReturn:
    _refuse(f"{constant} is no JSON")
