"""What consent records decide: whose pictures may be learned from, and whose avatar may still be driven.

An avatar's file carries what is needed to refuse later without the record: its digest, its basis and its expiry. Whether it
was revoked cannot stand there; that is looked up in a record or a folder of records, where one is given.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.consent_record import (
    DIGEST,
    MAX_SHOTS,
    RECORD_SUFFIX,
    Basis,
    ConsentError,
    ConsentRecord,
    parse_time,
    read_consent,
)
from th_jax.media import DEFAULT_LIMITS, IMAGE_SUFFIXES, MediaError, Person, Provenance
from th_jax.media.limits import check_file, spelt_out
from th_jax.media.manifest import NO_CONSENT_RECORDED

NO_CONSENT = "none"
"""What stands in the place of a record where there is none."""

NOT_RECORDED = NO_CONSENT_RECORDED
"""What the provenance of an avatar and of its pictures says then."""

FACTS = "consent"
"""The field of an avatar's description that holds `ConsentFacts`."""

CONSENTS_VARIABLE = "TH_JAX_CONSENTS"
"""Environment variable with the record or the folder of records that `check_driving` always looks into."""

MAX_RECORDS = 100_000


class ConsentFacts(NamedTuple):
    """What an avatar's file says of the consent record that it was made with."""

    digest: str
    """Of the record (`ConsentRecord.digest`)."""
    basis: Basis
    expires: str | None

    @classmethod
    def of(cls, record: ConsentRecord) -> "ConsentFacts":
        """The facts of a record."""
        return cls(record.digest, record.basis, record.expires)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"digest": self.digest, "basis": self.basis.value, "expires": self.expires}


def picture_files(path: Path) -> list[Path]:
    """The files that are looked at when shots are taken from a photo, a video or a folder of photos.

    Raises:
        OSError: if the folder cannot be read.
    """
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")


def shot_files(path: Path) -> list[Path]:
    """`picture_files`, as many as a consent record holds.

    Raises:
        ConsentError: if there are none, or more than a record holds.
        OSError: if the folder cannot be read.
    """
    photos = picture_files(path)
    if not 1 <= len(photos) <= MAX_SHOTS:
        raise ConsentError(f"the folder {path} holds {len(photos)} pictures: a consent record is of 1 to {MAX_SHOTS}")
    return photos


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ConsentError: if there is no such file, or it cannot be read.
    """
    try:
        with check_file(path, DEFAULT_LIMITS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (MediaError, OSError) as error:
        raise ConsentError(f"this picture cannot be compared with a consent record: {spelt_out(str(error))}") from error


def check_valid(record: ConsentRecord, *, now: datetime | None = None) -> None:
    """Whether a record still holds: at the present moment, or at `now`.

    Raises:
        ConsentError: if it was revoked or has expired, with the date.
    """
    if record.revoked is not None:
        raise ConsentError(f"this consent was revoked on {record.revoked}: nothing may be made of these pictures")
    _check_expiry(record.expires, now)


def check_shots(record: ConsentRecord, path: Path) -> None:
    """Whether every picture that would be looked at is one of the record's.

    Raises:
        ConsentError: naming how many are not.
    """
    files, known = shot_files(path), frozenset(record.shots)
    strange = [file for file in files if file_digest(file) not in known]
    if strange:
        raise ConsentError(
            f"{len(strange)} of {len(files)} files of {path} are not among the shots of the consent record (the first is "
            f"{strange[0].name!r}): take them out, or ask for consent to them and make a new record"
        )


def consent_to(record: str | Path, shots: Path) -> ConsentFacts:
    """What a record that is to be learned by says, if it holds and is of these pictures.

    Raises:
        ConsentError: if it cannot be read, was revoked, has expired, or is of other pictures.
    """
    read = read_consent(record)
    check_valid(read)
    check_shots(read, shots)
    return ConsentFacts.of(read)


def with_consent(provenance: Provenance, facts: ConsentFacts | None) -> Provenance:
    """The provenance with the record's digest and whether the person exists; else with `NOT_RECORDED` in its notes."""
    if facts is not None:
        person = Person.SYNTHETIC if facts.basis is Basis.SYNTHETIC else Person.REAL
        return dataclasses.replace(provenance, consent=facts.digest, person=person)
    notes = [note for note in provenance.notes.split("; ") if note not in ("", NOT_RECORDED)]
    return dataclasses.replace(provenance, consent=None, notes="; ".join([*notes, NOT_RECORDED]))


def consent_digest(description: Mapping[str, Any]) -> str | None:
    """The digest of the record that an avatar's provenance names."""
    provenance = description.get("provenance")
    digest = provenance.get("consent") if isinstance(provenance, Mapping) else None
    return digest if isinstance(digest, str) else None


def facts_of(description: Mapping[str, Any]) -> ConsentFacts | None:
    """What an avatar's description says of its consent; None if there is no record, or its maker wrote down none.

    Raises:
        ConsentError: if it contradicts itself: somebody changed it.
    """
    facts, bound = description.get(FACTS), consent_digest(description)
    if facts is None:
        if bound is None or FACTS not in description:
            return None
        raise _contradiction()
    if not isinstance(facts, Mapping) or set(facts) != set(ConsentFacts._fields):
        raise _contradiction()
    digest, basis, expires = facts["digest"], facts["basis"], facts["expires"]
    if not isinstance(digest, str) or not re.fullmatch(DIGEST, digest) or digest != bound:
        raise _contradiction()
    if not isinstance(basis, str) or basis not in list(Basis):
        raise _contradiction()
    if expires is not None:
        try:
            parse_time("expires", expires)
        except ConsentError as error:
            raise _contradiction() from error
    return ConsentFacts(digest, Basis(basis), expires)


def check_driving(
    description: Mapping[str, Any], *, consents: str | Path | None = None, now: datetime | None = None
) -> None:
    """Whether an avatar may still be driven, by what its file says and, where given, by the records.

    An avatar without a record may be: its pictures say so. Where records are given and the avatar's is not among them,
    nobody knows whether it was revoked, and it may not.

    Args:
        description: of the avatar (`LoadedAvatar.description`).
        consents: a record, or a folder with files that end in `RECORD_SUFFIX`, in letters of any case. What
            `CONSENTS_VARIABLE` names is looked into too: a revocation counts wherever it is found.
        now: the moment to judge by; the present one by default.

    Raises:
        ConsentError: if the consent has expired, was revoked, cannot be looked up, or contradicts itself.
    """
    facts = facts_of(description)
    if facts is not None:
        _check_expiry(facts.expires, now)
    digest = consent_digest(description)
    places = list(dict.fromkeys(Path(place) for place in (consents, os.environ.get(CONSENTS_VARIABLE)) if place))
    if digest is None or not places:
        return
    found = [record for place in places for record in _records(place) if record.digest == digest]
    if not found:
        others = "".join(f", nor does {place}" for place in places[1:])
        raise ConsentError(
            f"{places[0]} does not hold this avatar's consent record (sha256 {digest}){others}, so it cannot be known whether "
            "it was revoked: nothing is made"
        )
    for record in found:
        check_valid(record, now=now)


def _records(where: Path) -> Iterator[ConsentRecord]:
    """One record or those of a folder. A record that cannot be read may be the one that revokes: it is not passed over."""
    if not where.is_dir():
        yield read_consent(where)
        return
    try:
        files = sorted(path for path in where.iterdir() if path.name.lower().endswith(RECORD_SUFFIX))
    except OSError as error:
        raise ConsentError(f"the folder of consent records cannot be read: {error}") from error
    if len(files) > MAX_RECORDS:
        raise ConsentError(f"the folder {where} holds {len(files)} consent records, over the limit of {MAX_RECORDS}")
    for path in files:
        try:
            yield read_consent(path)
        except ConsentError as error:
            raise ConsentError(spelt_out(str(error))) from error


def _check_expiry(expires: str | None, now: datetime | None) -> None:
    if expires is not None and parse_time("expires", expires) <= (now or datetime.now(UTC)):
        raise ConsentError(f"this consent expired on {expires}: nothing may be made of these pictures any more")


def _contradiction() -> ConsentError:
    return ConsentError("what this avatar says of its consent contradicts itself: it was changed, take the original")
