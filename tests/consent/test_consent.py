"""Consent commands and checks: records are created, checked and revoked, and avatars are checked by file and record."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import consent as main

from th_jax.consent import (
    CONSENTS_VARIABLE,
    NOT_RECORDED,
    Basis,
    ConsentError,
    ConsentFacts,
    check_driving,
    check_shots,
    check_valid,
    checks,
    facts_of,
    make_consent,
    read_consent,
    revoke_consent,
    with_consent,
    write_consent,
)
from th_jax.consent.checks import valid_consent
from th_jax.provenance import Kind, Provenance

BEFORE, AFTER = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, two of them identical, and another file. Records never decode images."""
    folder = tmp_path / "ada"
    folder.mkdir()
    for name, content in (("a.jpg", b"one"), ("b.PNG", b"two"), ("c.jpg", b"one"), ("x.txt", b"-"), (".d.jpg", b"-")):
        (folder / name).write_bytes(content)
    return folder


def made(photos: Path, name: str = "ada", **changes: Any) -> Path:
    path = photos.parent / f"{name}.consent.json"
    write_consent(path, make_consent(photos, **{"subject": "Ada", "basis": Basis.SELF} | changes))
    return path


def description(facts: ConsentFacts | None, **changes: Any) -> dict[str, Any]:
    """An avatar's description, as enrollment writes it."""
    record = with_consent(Provenance(kind=Kind.GENERATED), facts)
    stated = None if facts is None else facts.to_dict() | changes
    # Through JSON, as it comes back from a file.
    return dict(json.loads(json.dumps({"provenance": record.to_dict(), "consent": stated})))


def test_make_check_and_revoke(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = photos.parent / "ada.consent.json"
    asked = ["--subject", "Ada", "--basis", "consent_given", "--shots", str(photos), "--out", str(path)]
    asked += ["--expires", "2099-01-01", "--scope", "my thesis", "--uses", "research", "publication"]
    assert main(["make", *asked]) == 0
    printed = capsys.readouterr().out
    record = read_consent(path)
    assert "Ada, consent_given, 2 shots, for publication, research, until 2099-01-01T00:00:00+00:00" in printed
    assert record.digest in printed
    assert (record.scope, record.revoked) == ("my thesis", None)
    assert main(["check", str(path), "--shots", str(photos)]) == 0
    assert "holds: Ada" in capsys.readouterr().out
    assert main(["make", *asked]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["revoke", str(path)]) == 0
    assert "was revoked on 20" in capsys.readouterr().out
    revoked = read_consent(path)
    assert (revoked.digest, revoked.revoked is None) == (record.digest, False)
    assert main(["check", str(path)]) == 1
    assert f"this consent was revoked on {revoked.revoked}" in capsys.readouterr().err
    assert main(["revoke", str(path)]) == 0
    assert read_consent(path) == revoked
    capsys.readouterr()
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["schema"] == {"const": 1}


def test_revocation_works_with_a_late_clock(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(photos)
    monkeypatch.setattr(checks, "_now", lambda: "1999-01-01T00:00:00+00:00")
    assert revoke_consent(path).revoked == read_consent(path).created


def test_a_record_behind_a_link_is_revoked(photos: Path, tmp_path: Path) -> None:
    """Other programs look up the link's target; a loop of links is not a record."""
    path = made(photos)
    link = tmp_path / "link.consent.json"
    link.symlink_to(path)
    assert revoke_consent(link).revoked is not None
    assert link.is_symlink()
    with pytest.raises(ConsentError, match="revoked on"):
        check_valid(read_consent(path))
    link.unlink()
    link.symlink_to(link)
    assert main(["revoke", str(link)]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--shots": "nowhere"}, "nowhere does not exist"),
        ({"--shots": "empty"}, "empty has 0 images"),
        ({"--subject": ""}, "subject must be 1 to 200 printable characters"),
        ({"--expires": "tomorrow"}, "expires must be a time such as 2026"),
        ({"--expires": "1999-01-01"}, "must be later than created"),
        ({"--out": "ada.json"}, "ada.json must end in .consent.json"),
        ({"--out": "no/ada.consent.json"}, "the folder no does not exist"),
        ({"--out": "ada/a.jpg/ada.consent.json"}, "ada/a.jpg is not a folder"),
    ],
)
def test_invalid_options_give_one_sentence(
    photos: Path,
    changes: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    usual = {"--subject": "Ada", "--basis": "self", "--shots": "ada", "--out": "ada.consent.json"} | changes
    assert main(["make", *(part for pair in usual.items() for part in pair)]) == 1
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert not list(Path().glob("*.json*"))


def test_every_image_must_be_in_the_record(photos: Path) -> None:
    record = read_consent(made(photos))
    check_shots(record, photos)
    check_shots(record, photos / "c.jpg")
    (photos / "e.jpg").write_bytes(b"three")
    (photos / "b.PNG").write_bytes(b"two, edited")
    with pytest.raises(ConsentError, match=r"2 of 4 files in .*ada .*'b.PNG'"):
        check_shots(record, photos)
    with pytest.raises(ConsentError, match=r"1 of 1 files in .*e.jpg"):
        check_shots(record, photos / "e.jpg")
    (photos / "f.jpg").symlink_to("/dev/zero")
    with pytest.raises(ConsentError, match=r"cannot be compared .* is a device or pipe"):
        check_shots(record, photos)


def test_invalid_records_stop_fine_tuning(photos: Path) -> None:
    path = made(photos, expires="2099-01-01T00:00:00+00:00")
    facts = ConsentFacts.of(valid_consent(path))
    assert facts == (read_consent(path).digest, "self", "2099-01-01T00:00:00+00:00")
    check_valid(read_consent(path), now=BEFORE)
    with pytest.raises(ConsentError, match="expired on 2099-01-01T00:00:00"):
        check_valid(read_consent(path), now=AFTER)
    revoke_consent(path)
    with pytest.raises(ConsentError, match="revoked on"):
        valid_consent(path)


def test_provenance_names_the_record_or_its_absence(photos: Path) -> None:
    facts = ConsentFacts.of(read_consent(made(photos)))
    plain = Provenance(kind=Kind.GENERATED, notes="at noon")
    assert with_consent(plain, facts).consent == facts.digest
    none = with_consent(with_consent(plain, None), None)
    assert (none.consent, none.notes) == (None, f"at noon; {NOT_RECORDED}")
    assert with_consent(Provenance(kind=Kind.GENERATED), None).notes == NOT_RECORDED


def test_an_avatar_expires_by_its_own_file(photos: Path) -> None:
    facts = ConsentFacts.of(read_consent(made(photos, expires="2099-01-01T00:00:00+00:00")))
    assert facts_of(description(facts)) == facts == facts_of(description(facts, digest=facts.digest)), "also of 0.1"
    assert json.dumps(description(facts)).count(facts.digest) == 1, "each fact is stored once"
    check_driving(description(facts), now=BEFORE)
    with pytest.raises(ConsentError, match="expired on 2099"):
        check_driving(description(facts), now=AFTER)
    check_driving(description(None), now=AFTER)
    check_driving({}, now=AFTER)  # made by a program that knows no consent


def test_the_records_expiry_applies_to_avatars_without_one(photos: Path) -> None:
    path = made(photos, expires="2099-01-01T00:00:00+00:00")
    endless = description(ConsentFacts.of(read_consent(path)), expires=None)
    check_driving(endless, now=AFTER)  # by its own file alone
    check_driving(endless, consents=path, now=BEFORE)
    with pytest.raises(ConsentError, match="expired on 2099"):
        check_driving(endless, consents=path, now=AFTER)


@pytest.mark.parametrize("found", ["the record", "the folder", "the environment"])
def test_revocation_is_found_in_the_record(photos: Path, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = made(photos), made(photos, "eve", subject="Eve")
    known, where = description(ConsentFacts.of(read_consent(path))), path if found == "the record" else path.parent
    given = {} if found == "the environment" else {"consents": where}
    if not given:
        monkeypatch.setenv(CONSENTS_VARIABLE, str(where))
    check_driving(known, **given)
    revoke_consent(other)
    check_driving(known, **given)
    revoke_consent(path)
    with pytest.raises(ConsentError, match="revoked on"):
        check_driving(known, **given)
    check_driving(description(None), **given)


@pytest.mark.parametrize("name", ["EVE.CONSENT.JSON", "eve.Consent.json"])
def test_a_record_is_found_under_a_name_in_letters_of_any_case(photos: Path, tmp_path: Path, name: str) -> None:
    path, records = made(photos), tmp_path / "records"
    known = description(ConsentFacts.of(read_consent(path)))
    records.mkdir()
    shutil.copy(path, records)
    shutil.copy(path, records / name)
    check_driving(known, consents=records)
    revoke_consent(records / name)
    with pytest.raises(ConsentError, match="revoked on"):
        check_driving(known, consents=records)


def test_a_revocation_counts_wherever_it_is_found(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, revoked, other_record = made(photos), tmp_path / "revoked.consent.json", made(photos, "eve", subject="Eve")
    known = description(ConsentFacts.of(read_consent(path)))
    shutil.copy(path, revoked)
    revoke_consent(revoked)
    for given, always in ((path, revoked), (revoked, path)):
        monkeypatch.setenv(CONSENTS_VARIABLE, str(always))
        with pytest.raises(ConsentError, match="revoked on"):
            check_driving(known, consents=given)
    for given, always in ((path, other_record), (other_record, path), (path, path), (path, "")):
        monkeypatch.setenv(CONSENTS_VARIABLE, str(always))
        check_driving(known, consents=given)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(CONSENTS_VARIABLE, str(other_record))
    with pytest.raises(ConsentError, match=r"is not in .*empty or .*eve.consent.json, .*unknown"):
        check_driving(known, consents=tmp_path / "empty")
    monkeypatch.setenv(CONSENTS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ConsentError, match="nowhere does not exist"):
        check_driving(known, consents=path)


def test_file_names_are_escaped_for_terminals(photos: Path, tmp_path: Path) -> None:
    record = read_consent(path := made(photos))
    (photos / "\x1b[2J.png").write_bytes(b"three")
    with pytest.raises(ConsentError, match=r"'\\x1b\[2J.png'"):
        check_shots(record, photos)
    (photos / "\x1b[2J.png").write_bytes(b"")
    with pytest.raises(ConsentError, match=r"ada/\\x1b\[2J.png is empty"):
        check_shots(record, photos)
    (tmp_path / "\x9b2J.consent.json").write_bytes(b"{")
    with pytest.raises(ConsentError, match=r"\\x9b2J.consent.json: invalid consent record"):
        check_driving(description(ConsentFacts.of(read_consent(path))), consents=tmp_path)


def test_unknown_revocation_status_is_rejected(photos: Path, tmp_path: Path) -> None:
    path = made(photos)
    known = description(ConsentFacts.of(read_consent(path)))
    other_record = made(photos, "eve", subject="Eve")
    path.rename(tmp_path / "kept")
    for where in (tmp_path, other_record):
        with pytest.raises(ConsentError, match=r"sha256 [0-9a-f]{64}\) is not in"):
            check_driving(known, consents=where)
    with pytest.raises(ConsentError, match="nowhere does not exist"):
        check_driving(known, consents=tmp_path / "nowhere")
    (tmp_path / "damaged.consent.json").write_bytes(b"{")
    (tmp_path / "kept").rename(path)
    with pytest.raises(ConsentError, match=r"damaged.consent.json: invalid consent record"):
        check_driving(known, consents=tmp_path)


def test_contradictory_consent_facts_are_rejected(photos: Path) -> None:
    facts = ConsentFacts.of(read_consent(made(photos, expires="2099-01-01T00:00:00+00:00")))
    changes: list[dict[str, Any]] = [
        {"digest": "0" * 64}, {"digest": 7}, {"basis": "hearsay"}, {"basis": ["self"]}, {"expires": "never"},
        {"expires": 2099}, {"more": 1},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ConsentError, match="contradict each other"):
            check_driving(description(facts, **change))
    for stated in (None, [], "none"):
        with pytest.raises(ConsentError, match="contradict each other"):
            check_driving(description(facts) | {"consent": stated})
