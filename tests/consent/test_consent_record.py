"""Consent records: strict parsing, agreement with the published schema, and a digest that survives revocation."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from th_jax.consent import record as consent_record
from th_jax.consent.record import (
    DIGEST,
    MAX_RECORD_BYTES,
    MAX_SCOPE,
    MAX_SHOTS,
    MAX_SUBJECT,
    NONCE,
    SCHEMA_FILE,
    TIME,
    Basis,
    ConsentError,
    ConsentRecord,
    Use,
    parse_consent,
    read_consent,
    write_consent,
)

ONE, OTHER = "1" * 64, "2" * 64


def record(**changes: Any) -> ConsentRecord:
    fields: dict[str, Any] = {
        "subject": "Ada", "basis": Basis.SELF, "uses": (Use.ART, Use.PRIVATE), "scope": "for the film 'Ünder'",
        "created": "2026-11-23T12:00:00+00:00", "expires": "2027-01-01T00:00:00+01:00", "revoked": None,
        "shots": (OTHER, ONE), "nonce": "0" * 32,
    }  # fmt: skip
    return ConsentRecord(**fields | changes)


def text(**changes: Any) -> bytes:
    return json.dumps(record().to_dict() | changes).encode()


def test_a_record_round_trips_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "ada.consent.json"
    write_consent(path, record())
    assert read_consent(path) == record()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConsentError, match=r"ada.consent.json already exists"):
        write_consent(path, record(subject="Eve"))
    assert read_consent(path).subject == "Ada"
    with pytest.raises(FileNotFoundError):
        write_consent(tmp_path / "no" / "a.consent.json", record())
    assert [p.name for p in tmp_path.iterdir()] == ["ada.consent.json"]


def test_the_digest_covers_what_was_agreed_to() -> None:
    """It ignores order and layout of the JSON; revocation does not change it, so that a revoked record is still found."""
    digest = record().digest
    assert re.fullmatch(DIGEST, digest)
    assert parse_consent(json.dumps(record().to_dict(), indent=7, sort_keys=True).encode()).digest == digest
    assert record(shots=(ONE, OTHER), uses=(Use.PRIVATE, Use.ART)).digest == digest
    assert record(revoked="2026-12-01T00:00:00Z").digest == digest
    changes: list[dict[str, Any]] = [
        {"subject": "Eve"}, {"basis": Basis.SYNTHETIC}, {"uses": (Use.ART,)}, {"scope": ""}, {"expires": None},
        {"created": "2026-11-23T12:00:01+00:00"}, {"shots": (ONE,)}, {"nonce": "1" * 32},
    ]  # fmt: skip
    assert len({record(**change).digest for change in changes} | {digest}) == len(changes) + 1
    # By sha256sum, of the canonical JSON written by hand: no later version may call old records by other names.
    assert digest == "146f2354c4ce7382f914155d0982309862d4812f2c874270dd17cc176518a0c4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not valid JSON"),
        (b"\xff\xfe{}", "save it as UTF-8"),
        (b"[]", "it must be a JSON object with .*, but is list"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 10_000, "it is not valid JSON"),
        (b" " * (MAX_RECORD_BYTES + 1), "it has more than 1048576 bytes"),
        (b'{"schema": NaN}', "NaN is not a JSON value"),
        (text()[:-1] + b', "subject": "Eve"}', "the field 'subject' occurs twice"),
        (text(schema=2), "expected schema 1"),
        (text(schema=True), "expected schema 1"),
        (text(more="\x1b[31m"), r"missing or unknown fields: 'more'"),
        (b'{"schema": 1}', "missing or unknown fields: 'basis, created"),
        (text(subject=""), "subject must be 1 to 200 printable characters"),
        (text(subject="A" * 201), "subject must be 1 to 200"),
        (text(subject=" Ada"), "without leading or trailing spaces"),
        (text(subject="Ada\x1b[2J"), "subject must be 1 to 200 printable"),
        (text(subject="Ada \u202egnp.exe"), "subject must be 1 to 200 printable"),
        (text(subject="\ud800"), "subject must be 1 to 200 printable"),
        (text(subject=7), "subject must be 1 to 200 printable"),
        (text(scope="two\nlines"), "scope must be 0 to 2000 printable"),
        (text(basis="trust me"), "basis must be one of self, consent_given, public_domain, synthetic"),
        (text(basis=["self"]), "basis must be one of self"),
        (text(uses=[]), "uses must be a list of 1 to 6"),
        (text(uses="art"), "uses must be a list of 1 to 6"),
        (text(uses=["art", "art"]), "uses has duplicate entries"),
        (text(uses=["deceit"]), "uses must be one of private, research"),
        (text(created="2026-11-23"), "created must be a time such as 2026-11-23T12:00:00"),
        (text(created="2026-11-23T12:00:00"), "created must be a time such as"),
        (text(created="2026-02-30T12:00:00Z"), "created is not a valid time"),
        (text(created="0000-01-01T00:00:00Z"), "created is not a valid time"),
        (text(expires="9999-12-31T23:59:59-23:59"), "expires is not a valid time"),
        (text(created=20261123), "created must be a time such as"),
        (text(expires="2026-11-23T12:00:00Z"), r"expires \(2026-11-23T12:00:00Z\) must be later than created"),
        (text(expires="never"), "expires must be a time such as"),
        (text(revoked=""), "revoked must be a time such as"),
        (text(revoked="2025-01-01T00:00:00Z"), "must not be earlier than created"),
        (text(shots=[]), "shots must be a list of 1 to 10000"),
        (text(shots=[ONE, ONE]), "shots has duplicate entries"),
        (text(shots=["A" * 64]), "a shot must be lowercase hexadecimal"),
        (text(shots=[ONE + "\n"]), "a shot must be lowercase hexadecimal"),
        (text(shots=[[ONE]]), "a shot must be lowercase hexadecimal"),
        (text(shots={ONE: 1}), "shots must be a list"),
        (text(nonce=""), "nonce must be lowercase hexadecimal"),
    ],
)
def test_invalid_records_give_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(ConsentError, match=message) as refused:
        parse_consent(content)
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).isprintable()


@pytest.mark.slow
def test_mutated_records_are_valid_or_give_one_sentence() -> None:
    """Records with changed, removed and repeated bytes; those still accepted are complete and round-trip."""
    rng, whole, taken, said = np.random.default_rng(0), text(), 0, ""
    for _ in range(20_000):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            start, stop = sorted(int(place) for place in rng.integers(0, len(content) + 1, 2))
            change = int(rng.integers(4))
            if change == 0:
                content[start : start + 1] = rng.bytes(1)
            elif change == 1:
                del content[start : min(stop, start + 20)]
            elif change == 2:
                content[start:start] = content[start:stop][:40]
            else:
                content[start : start + 1] = rng.choice(list(b'{}[]",:0\\ntf-')).tobytes()[:1]
        try:
            read = parse_consent(bytes(content))
        except ConsentError as error:
            said = str(error)
            continue
        finally:
            assert said.isprintable()
        taken += 1
        assert parse_consent(json.dumps(read.to_dict()).encode()) == read
    assert 0 < taken < 10_000


def test_files_are_not_read_before_their_size_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.consent.json"
    for content, message in (
        (None, r"invalid consent record: .*a.consent.json does not exist"),
        (b"", r"a.consent.json is empty"),
        (b"x", r"a.consent.json: invalid consent record: it is not valid JSON"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConsentError, match=message):
            read_consent(path)
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConsentError, match=r"1099511627776 bytes, over the limit of 1048576"):
        read_consent(path)
    with pytest.raises(ConsentError, match="is a folder, not a file"):
        read_consent(tmp_path)


def test_the_largest_record_fits(tmp_path: Path) -> None:
    full = record(shots=tuple(f"{n:064x}" for n in range(MAX_SHOTS)), subject="Ä" * MAX_SUBJECT, scope="Ä" * MAX_SCOPE)
    write_consent(tmp_path / "a.consent.json", full)
    assert read_consent(tmp_path / "a.consent.json") == full
    with pytest.raises(ConsentError, match="list of 1 to 10000"):
        record(shots=tuple(f"{n:064x}" for n in range(MAX_SHOTS + 1)))


def test_a_write_error_keeps_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.consent.json"
    write_consent(path, record())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(consent_record.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_consent(path, record(revoked="2026-12-01T00:00:00Z"), overwrite=True)
    assert read_consent(path) == record()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_published_schema_agrees_with_the_reader() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    fields = {"schema"} | {field.name for field in dataclasses.fields(ConsentRecord)}
    properties = schema["properties"]
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(properties) == fields
    assert properties["schema"]["const"] == 1
    assert properties["basis"]["enum"] == list(Basis)
    assert properties["uses"]["items"]["enum"] == list(Use)
    assert (properties["subject"]["maxLength"], properties["scope"]["maxLength"]) == (MAX_SUBJECT, MAX_SCOPE)
    assert properties["shots"]["maxItems"] == MAX_SHOTS
    patterns = {properties["shots"]["items"]["pattern"]: DIGEST, properties["nonce"]["pattern"]: NONCE}
    patterns[schema["$defs"]["time"]["pattern"]] = TIME
    assert all(published == f"^{own}$" for published, own in patterns.items())
    for name in ("expires", "revoked"):
        assert {"type": "null"} in properties[name]["oneOf"]
