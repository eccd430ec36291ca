"""Strict parser of a rater's answer sheet, which is sent or downloaded."""

import json
import re
from typing import Any, NamedTuple

from th_jax.evaluation.user_study.answer_key import StudyKey
from th_jax.text import utf8

SHEET_SCHEMA = 1
MAX_MILLISECONDS = 24 * 60 * 60 * 1000

_RATER = re.compile(r"[0-9a-f]{32}")
_BYTES_AN_ANSWER = 200


class Answer(NamedTuple):
    """One rater's answer to one triplet."""

    triplet: str
    choice: int
    """Image chosen as the fake: 1, 2 or 3."""
    milliseconds: int
    """Time in milliseconds since the triplet was shown."""
    position: int
    """Number of triplets that this rater had seen before."""


class Sheet(NamedTuple):
    """Answers of one rater."""

    rater: str
    """32 random hexadecimal digits."""
    answers: tuple[Answer, ...]


class MalformedSheet(ValueError):
    """The input is not a sheet of answers to this study."""


class ConflictingAnswer(ValueError):
    """The rater has already given another answer to this triplet."""


def sheet_limit(key: StudyKey) -> int:
    """Return the maximum size in bytes of a sheet with an answer to every triplet."""
    return 1024 + _BYTES_AN_ANSWER * len(key.triplets)


def read_sheet(content: bytes, key: StudyKey) -> Sheet:
    """Parse a sheet from JSON text.

    Raises:
        MalformedSheet: if it is malformed; nothing is repaired or ignored.
    """
    if len(content) > sheet_limit(key):
        raise MalformedSheet(f"an answer sheet may have at most {sheet_limit(key)} bytes, got {len(content)}")
    try:
        sheet = json.loads(utf8(content, name="it"))
    except (ValueError, RecursionError) as error:
        raise MalformedSheet(f"an answer sheet must be JSON: {error}") from error
    _fields(sheet, "a sheet", {"schema", "study", "consent", "rater", "answers"})
    if type(sheet["schema"]) is not int or sheet["schema"] != SHEET_SCHEMA:
        raise MalformedSheet(f"expected schema {SHEET_SCHEMA}, got another one")
    if sheet["study"] != key.study:
        raise MalformedSheet(f"these answers belong to a study other than {key.study}")
    if sheet["consent"] != key.consent:
        raise MalformedSheet("consent must be the digest of this study's consent text")
    if not isinstance(sheet["rater"], str) or not _RATER.fullmatch(sheet["rater"]):
        raise MalformedSheet("rater must be 32 hexadecimal digits")
    if not isinstance(sheet["answers"], list) or not sheet["answers"]:
        raise MalformedSheet("answers must be a list with one or more entries")
    answers = tuple(_answer(entry, key) for entry in sheet["answers"])
    if len({answer.triplet for answer in answers}) != len(answers):
        raise MalformedSheet("a sheet may answer each triplet only once")
    return Sheet(sheet["rater"], answers)


def _answer(entry: Any, key: StudyKey) -> Answer:
    _fields(entry, "an answer", set(Answer._fields))
    if not isinstance(entry["triplet"], str) or entry["triplet"] not in key.triplets:
        raise MalformedSheet("an answer refers to a triplet that is not in this study")
    ranges = {"choice": (1, 3), "milliseconds": (0, MAX_MILLISECONDS), "position": (0, len(key.triplets) - 1)}
    for name, (least, most) in ranges.items():
        # bool is an int, and JSON's true is not 1.
        if type(entry[name]) is not int or not least <= entry[name] <= most:
            raise MalformedSheet(f"{name} must be an integer from {least} to {most}")
    return Answer(**entry)


def _fields(value: Any, where: str, fields: set[str]) -> None:
    if not isinstance(value, dict) or set(value) != fields:
        raise MalformedSheet(f"{where} must be an object with exactly {', '.join(sorted(fields))}")
