"""Makes, checks and revokes consent records: which person, which images, on what basis, for what, until when.

th-jax consent make --subject "Ada" --basis self --shots photos/ada --out ada.consent.json --expires 2027-01-01
th-jax consent check ada.consent.json --shots photos/ada
th-jax consent revoke ada.consent.json

A record is a person's statement, bound to images by their hashes, without a signature: docs/responsible-use.md.
"""

import argparse
import re
from pathlib import Path

from th_jax.cli.options import DONE, new_parser
from th_jax.consent.checks import CONSENTS_VARIABLE, check_shots, check_valid, make_consent, revoke_consent
from th_jax.consent.record import (
    MAX_SHOTS,
    RECORD_SUFFIX,
    SCHEMA_FILE,
    Basis,
    ConsentError,
    ConsentRecord,
    Use,
    read_consent,
    write_consent,
)
from th_jax.storage.files import check_place


def run(options: argparse.Namespace) -> int:
    """Run the subcommand; return 0 if it succeeded, or if the record is valid, else 1."""
    print(options.run(options))
    return DONE


def _make(chosen: argparse.Namespace) -> str:
    if not chosen.out.name.endswith(RECORD_SUFFIX):
        raise ConsentError(f"{chosen.out} must end in {RECORD_SUFFIX}, so that it is found in a folder of records")
    check_place(chosen.out)
    record = make_consent(
        chosen.shots, subject=chosen.subject, basis=Basis(chosen.basis), uses=tuple(map(Use, chosen.uses)),
        scope=chosen.scope, expires=_moment(chosen.expires),
    )  # fmt: skip
    write_consent(chosen.out, record)
    return f"{chosen.out}: {_described(record)}"


def _check(chosen: argparse.Namespace) -> str:
    record = read_consent(chosen.file)
    check_valid(record)
    if chosen.shots is not None:
        check_shots(record, chosen.shots)
    return f"{chosen.file} holds: {_described(record)}"


def _revoke(chosen: argparse.Namespace) -> str:
    record = revoke_consent(chosen.file)
    return (
        f"{chosen.file} was revoked on {record.revoked}; animate rejects its avatars where this file is given (--consents, or "
        f"{CONSENTS_VARIABLE}), so give it to everyone who has an avatar, and delete avatars with th-jax prepare forget"
    )


def _schema(_: argparse.Namespace) -> str:
    return SCHEMA_FILE.read_text(encoding="utf-8").rstrip()


def _described(record: ConsentRecord) -> str:
    until = f"until {record.expires}" if record.expires else "without an end"
    uses = ", ".join(record.uses)
    return f"{record.subject}, {record.basis}, {len(record.shots)} shots, for {uses}, {until}, sha256 {record.digest}"


def _moment(written: str | None) -> str | None:
    """Complete a date to its first moment in UTC."""
    if written is not None and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", written):
        return f"{written}T00:00:00+00:00"
    return written


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("consent", __doc__)
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    make = commands.add_parser("make", help="make a record for a person's images")
    make.add_argument("--subject", required=True, help="name or pseudonym of the person shown")
    make.add_argument(
        "--basis", required=True, choices=[str(basis) for basis in Basis], help="why the images may be used"
    )
    make.add_argument(
        "--shots", required=True, type=Path, help=f"folder of up to {MAX_SHOTS} photos, a photo or a video"
    )
    make.add_argument("--out", required=True, type=Path, help="output file, ending in .consent.json")
    make.add_argument(
        "--uses",
        nargs="+",
        choices=[str(use) for use in Use],
        default=["private"],
        help="permitted uses; default: private",
    )
    make.add_argument("--scope", default="", help="description of what the person agreed to")
    make.add_argument(
        "--expires", metavar="TIME", help="2027-01-01 (its first moment in UTC), or a time with a time zone"
    )
    make.set_defaults(run=_make)
    check = commands.add_parser("check", help="check a record: exit code 0 if it is valid, else 1")
    check.add_argument("file", type=Path)
    check.add_argument("--shots", type=Path, help="images that must all be covered by the record")
    check.set_defaults(run=_check)
    revoke = commands.add_parser("revoke", help="mark a record as revoked")
    revoke.add_argument("file", type=Path)
    revoke.set_defaults(run=_revoke)
    commands.add_parser("schema", help="print the JSON Schema of records").set_defaults(run=_schema)
    return made
