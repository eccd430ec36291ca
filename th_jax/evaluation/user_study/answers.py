"""Strict parser of a rater's answer sheet, which is sent or downloaded."""

import re
from typing import Any, NamedTuple

from th_jax.evaluation.user_study.answer_key import StudyKey
from th_jax.storage.strict_json import check_object, from_json, parse_json

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
    sheet = parse_json(content, name="an answer sheet", max_bytes=sheet_limit(key), error=MalformedSheet)
    check_object(sheet, ("schema", "study", "consent", "rater", "answers"), where="a sheet", error=MalformedSheet)
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
    answer = from_json(Answer, entry, where="an answer", error=MalformedSheet)
    if answer.triplet not in key.triplets:
        raise MalformedSheet("an answer refers to a triplet that is not in this study")
    ranges = {"choice": (1, 3), "milliseconds": (0, MAX_MILLISECONDS), "position": (0, len(key.triplets) - 1)}
    for name, (least, most) in ranges.items():
        if not least <= getattr(answer, name) <= most:
            raise MalformedSheet(f"{name} must be an integer from {least} to {most}")
    return answer
