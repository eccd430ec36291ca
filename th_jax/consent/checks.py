"""Checks of consent: which images may be used for an avatar, and whether an avatar may still be driven.

An avatar file stores what a later check needs without the record: its digest, basis and expiry. Revocation cannot be
stored there; it is looked up in a consent record or a folder of records, if one is given.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from th_jax.consent.record import (
    DIGEST,
    MAX_SHOTS,
    RECORD_SUFFIX,
    Basis,
    ConsentError,
    ConsentRecord,
    Use,
    parse_time,
    read_consent,
    write_consent,
)
from th_jax.media import DEFAULT_LIMITS, IMAGE_SUFFIXES, MediaError
from th_jax.media.limits import check_file
from th_jax.provenance import Person, Provenance
from th_jax.provenance.c2pa_write import NO_CONSENT_RECORDED
from th_jax.storage.files import file_sha256
from th_jax.text import escape_control_chars

NO_CONSENT = "none"
"""Placeholder for a consent record when there is none."""

NOT_RECORDED = NO_CONSENT_RECORDED
"""Note in the provenance of an avatar and its outputs when no consent record was given."""

FACTS = "consent"
"""Key of an avatar's description under which `ConsentFacts` are stored."""

CONSENTS_VARIABLE = "TH_JAX_CONSENTS"
"""Environment variable naming a consent record or folder of records that `check_driving` always consults."""

MAX_RECORDS = 100_000


class ConsentFacts(NamedTuple):
    """The facts in an avatar file about its consent record: the digest is stored in its provenance, the others beside it."""

    digest: str
    """Digest of the record (`ConsentRecord.digest`)."""
    basis: Basis
    expires: str | None

    @classmethod
    def of(cls, record: ConsentRecord) -> "ConsentFacts":
        """Extract the facts from a record."""
        return cls(record.digest, record.basis, record.expires)

    def to_dict(self) -> dict[str, Any]:
        """Convert what is stored beside the provenance to JSON values."""
        return {"basis": self.basis.value, "expires": self.expires}


def image_files(path: Path) -> list[Path]:
    """List the files to examine for shots, given a photo, a video or a folder of photos.

    Raises:
        OSError: if the folder cannot be read.
    """
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")


def shot_files(path: Path) -> list[Path]:
    """List the files as `image_files` does, and check that a consent record can hold as many.

    Raises:
        ConsentError: if there are no files, or more than a record can hold.
        OSError: if the folder cannot be read.
    """
    photos = image_files(path)
    if not 1 <= len(photos) <= MAX_SHOTS:
        raise ConsentError(f"the folder {path} has {len(photos)} images, but a consent record covers 1 to {MAX_SHOTS}")
    return photos


def file_digest(path: Path) -> str:
    """Compute the SHA-256 digest of a file's bytes, in hexadecimal.

    Raises:
        ConsentError: if the file does not exist or cannot be read.
    """
    try:
        return file_sha256(check_file(path, DEFAULT_LIMITS))
    except (MediaError, OSError) as error:
        raise ConsentError(
            f"this image cannot be compared with a consent record: {escape_control_chars(str(error))}"
        ) from error


def check_valid(record: ConsentRecord, *, now: datetime | None = None) -> None:
    """Check that a record is valid, now or at the time `now`.

    Raises:
        ConsentError: if it was revoked or has expired; the message gives the date.
    """
    if record.revoked is not None:
        raise ConsentError(f"this consent was revoked on {record.revoked}: these images must not be used")
    _check_expiry(record.expires, now)


def valid_consent(record: str | Path) -> ConsentRecord:
    """Read a record, and check that it is valid now.

    Raises:
        ConsentError: if it cannot be read, was revoked or has expired.
    """
    read = read_consent(record)
    check_valid(read)
    return read


def check_shots(record: ConsentRecord, path: Path) -> None:
    """Check that every file that would be examined is listed in the record.

    Raises:
        ConsentError: if some are not; the message gives their number.
    """
    check_covered(record, {file: file_digest(file) for file in shot_files(path)}, path)


def check_covered(record: ConsentRecord, digests: Mapping[Path, str], path: Path) -> None:
    """Check that files with these digests, found at `path`, are listed in the record.

    Raises:
        ConsentError: as `check_shots`.
    """
    known = frozenset(record.shots)
    strange = [file for file, digest in digests.items() if digest not in known]
    if strange:
        raise ConsentError(
            f"{len(strange)} of {len(digests)} files in {path} are not covered by the consent record (the first is "
            f"{strange[0].name!r}): remove them, or obtain consent for them and create a new record"
        )


def with_consent(provenance: Provenance, facts: ConsentFacts | None) -> Provenance:
    """Add the record's digest and whether the person is real to a provenance record, or `NOT_RECORDED` to its notes."""
    if facts is not None:
        person = Person.SYNTHETIC if facts.basis is Basis.SYNTHETIC else Person.REAL
        return dataclasses.replace(provenance, consent=facts.digest, person=person)
    notes = [note for note in provenance.notes.split("; ") if note not in ("", NOT_RECORDED)]
    return dataclasses.replace(provenance, consent=None, notes="; ".join([*notes, NOT_RECORDED]))


def consent_digest(description: Mapping[str, Any]) -> str | None:
    """Return the digest of the consent record named in an avatar's provenance."""
    provenance = description.get("provenance")
    digest = provenance.get("consent") if isinstance(provenance, Mapping) else None
    return digest if isinstance(digest, str) else None


def facts_of(description: Mapping[str, Any]) -> ConsentFacts | None:
    """Return the consent facts in an avatar's description; None if it has no record or was made with an explicit "none".

    Raises:
        ConsentError: if the facts contradict each other, which means that the file was modified.
    """
    facts, digest = description.get(FACTS), consent_digest(description)
    if facts is None and (digest is None or FACTS not in description):
        return None
    if not isinstance(facts, Mapping) or not {"basis", "expires"} <= set(facts) <= set(ConsentFacts._fields):
        raise _contradiction()
    basis, expires = facts["basis"], facts["expires"]
    if facts.get("digest", digest) != digest:  # avatars of version 0.1 store it here too
        raise _contradiction()
    if digest is None or not re.fullmatch(DIGEST, digest) or not isinstance(basis, str) or basis not in list(Basis):
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
    """Check that an avatar may still be driven, by its own facts and, if given, by the records.

    An avatar without a consent record may be driven, and its outputs state that there is none. If records are given and
    the avatar's record is not among them, its revocation status is unknown, and it may not be driven.

    Args:
        description: description of the avatar (`LoadedAvatar.description`).
        consents: consent record, or folder of files ending in `RECORD_SUFFIX`, in any case. The location in
            `CONSENTS_VARIABLE` is consulted too: a revocation counts wherever it is found.
        now: time to check against; the present time by default.

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
        others = "".join(f" or {place}" for place in places[1:])
        raise ConsentError(
            f"this avatar's consent record (sha256 {digest}) is not in {places[0]}{others}, so its revocation "
            "status is unknown and the avatar must not be driven: add the record"
        )
    for record in found:
        check_valid(record, now=now)


def _records(where: Path) -> Iterator[ConsentRecord]:
    """Read one record, or those of a folder; an unreadable one is an error, because it may be the one that is revoked."""
    if not where.is_dir():
        yield read_consent(where)
        return
    try:
        files = sorted(path for path in where.iterdir() if path.name.lower().endswith(RECORD_SUFFIX))
    except OSError as error:
        raise ConsentError(f"the folder of consent records cannot be read: {error}") from error
    if len(files) > MAX_RECORDS:
        raise ConsentError(f"the folder {where} has {len(files)} consent records, over the limit of {MAX_RECORDS}")
    for path in files:
        try:
            yield read_consent(path)
        except ConsentError as error:
            raise ConsentError(escape_control_chars(str(error))) from error


def _check_expiry(expires: str | None, now: datetime | None) -> None:
    if expires is not None and parse_time("expires", expires) <= (now or datetime.now(UTC)):
        raise ConsentError(f"this consent expired on {expires}: these images must no longer be used")


def _contradiction() -> ConsentError:
    return ConsentError("this avatar's consent entries contradict each other: the file was modified, use the original")


def make_consent(
    shots: Path,
    *,
    subject: str,
    basis: Basis,
    uses: tuple[Use, ...] = (Use.PRIVATE,),
    scope: str = "",
    expires: str | None = None,
) -> ConsentRecord:
    """Make a record, dated now, of the files of a photo, a video or a folder of photos; identical files count once.

    Raises:
        ConsentError: if there are no files, or a field is malformed.
    """
    digests = {file_digest(file) for file in shot_files(shots)}
    return ConsentRecord(
        subject=subject,
        basis=basis,
        uses=uses,
        scope=scope,
        created=_now(),
        expires=expires,
        shots=tuple(digests),
    )


def revoke_consent(path: Path) -> ConsentRecord:
    """Mark a record's file as revoked now; a record that is already revoked is unchanged.

    Symbolic links are followed, because other programs look up the file that they point to.

    Raises:
        ConsentError: if there is no record.
        OSError: if the file cannot be written; the record is unchanged in that case.
    """
    path = Path(os.path.realpath(path))
    record = read_consent(path)
    if record.revoked is None:
        # A clock that is behind must not prevent a revocation.
        now = max(_now(), record.created, key=lambda time: parse_time("revoked", time))
        record = dataclasses.replace(record, revoked=now)
        write_consent(path, record, overwrite=True)
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
