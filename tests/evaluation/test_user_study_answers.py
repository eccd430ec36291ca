"""Answer sheets are parsed strictly, and the store keeps each answer once despite repetition and concurrency."""

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from th_jax.evaluation.user_study.answer_key import StudyKey
from th_jax.evaluation.user_study.answers import (
    Answer,
    ConflictingAnswer,
    MalformedSheet,
    Sheet,
    read_sheet,
    sheet_limit,
)
from th_jax.evaluation.user_study.frames import CHECK
from th_jax.evaluation.user_study.store import AnswerStore, StudyIsFull
from th_jax.evaluation.user_study.triplets import Triplet

STUDY, CONSENT = "5" * 32, "c" * 64
RATER = "a" * 32


def key_of(cells: dict[tuple[str, int], int], *, study: str = STUDY) -> StudyKey:
    """A key with so many triplets of each method and T, named 0, 1, ...; the fake is 1, 2, 3, 1, ..."""
    kinds = [cell for cell, count in cells.items() for _ in range(count)]
    paths = ("a.png", "b.png", "c.png")
    triplets = {str(i): Triplet(method, shots, "p", paths, i % 3 + 1, 3) for i, (method, shots) in enumerate(kinds)}
    return StudyKey(study, "test", 64, 0, CONSENT, "f" * 64, "2026-01-01T00:00:00+00:00", "th_jax 0", triplets)


def sheet_of(choices: dict[str, int], *, rater: str = RATER, study: str = STUDY) -> dict[str, Any]:
    """The sheet that the page would send."""
    answers = [
        {"triplet": t, "choice": c, "milliseconds": 900, "position": i} for i, (t, c) in enumerate(choices.items())
    ]
    return {"schema": 1, "study": study, "consent": CONSENT, "rater": rater, "answers": answers}


KEY = key_of({("FT", 8): 4, (CHECK, 0): 2})


def test_a_sheet_is_read() -> None:
    sheet = read_sheet(json.dumps(sheet_of({"0": 1, "3": 2})).encode(), KEY)
    assert sheet == Sheet(RATER, (Answer("0", 1, 900, 0), Answer("3", 2, 900, 1)))


def answer_with(**fields: Any) -> dict[str, Any]:
    return {"answers": [sheet_of({"0": 1})["answers"][0] | fields]}


MALFORMED = [
    ({"schema": 2}, "expected schema 1"),
    ({"schema": True}, "expected schema 1"),
    ({"study": "6" * 32}, "belong to a study other than"),
    ({"consent": "d" * 64}, "consent must be the digest of this study's consent text"),
    ({"rater": "A" * 32}, "rater must be 32 hexadecimal digits"),
    ({"rater": RATER + "\n"}, "rater must be 32 hexadecimal digits"),
    ({"rater": None}, "rater must be 32 hexadecimal digits"),
    ({"more": 1}, "a sheet has missing or unknown fields: 'more'"),
    ({"answers": []}, "answers must be a list with one or more entries"),
    ({"answers": {"0": 1}}, "answers must be a list"),
    ({"answers": [1]}, "an answer must be a JSON object with choice, milliseconds, position, triplet"),
    ({"answers": sheet_of({"0": 1})["answers"] * 2}, "only once"),
    (answer_with(triplet="9"), "an answer refers to a triplet that is not in this study"),
    (answer_with(triplet=[]), "an answer: triplet must be str"),
    (answer_with(choice=0), "choice must be an integer from 1 to 3"),
    (answer_with(choice=True), "choice must be int"),
    (answer_with(choice=1.0), "choice must be int"),
    (answer_with(milliseconds=-1), "milliseconds must be an integer from 0"),
    (answer_with(milliseconds=10**30), "milliseconds must be an integer from 0"),
    (answer_with(position=6), "position must be an integer from 0 to 5"),
    (answer_with(note="x"), "an answer has missing or unknown fields: 'note'"),
]


@pytest.mark.parametrize(("fields", "message"), MALFORMED)
def test_malformed_sheets(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedSheet, match=message):
        read_sheet(json.dumps(sheet_of({"0": 1}) | fields).encode(), KEY)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfd", b"[" * 2000, b"null", b'{"schema": NaN}'])
def test_invalid_sheets(content: bytes) -> None:
    with pytest.raises(MalformedSheet, match="sheet"):
        read_sheet(content, KEY)


def test_large_sheets_are_not_parsed() -> None:
    with pytest.raises(MalformedSheet, match="an answer sheet has more than 2224 bytes"):
        read_sheet(b" " * (sheet_limit(KEY) + 1), KEY)
    longest = sheet_of(dict.fromkeys(KEY.triplets, 3))
    assert len(json.dumps(longest, indent=1)) < sheet_limit(KEY)


def store_in(folder: Path, *, raters: int = 100) -> AnswerStore:
    return AnswerStore(folder / "answers.sqlite", KEY, raters=raters)


def add(store: AnswerStore, choices: dict[str, int], *, rater: str = RATER) -> int:
    return store.add(read_sheet(json.dumps(sheet_of(choices, rater=rater)).encode(), KEY))


def test_answers_are_kept_once(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert add(store, {"0": 1}) == 1
    assert add(store, {"0": 1}) == 0
    assert add(store, {"0": 1, "1": 2}) == 1
    with pytest.raises(ConflictingAnswer, match=f"rater {RATER} already answered triplet 1"):
        add(store, {"2": 3, "1": 1})
    assert add(store, {"1": 1}, rater="b" * 32) == 1
    sheets = {sheet.rater: {a.triplet: a.choice for a in sheet.answers} for sheet in store_in(tmp_path).sheets()}
    assert sheets == {RATER: {"0": 1, "1": 2}, "b" * 32: {"1": 1}}, "of the refused sheet nothing was kept"


def test_commits_reach_the_disk(tmp_path: Path) -> None:
    with store_in(tmp_path).connection() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_a_study_takes_so_many_raters(tmp_path: Path) -> None:
    store = store_in(tmp_path, raters=2)
    add(store, {"0": 1}, rater="1" * 32)
    add(store, {"0": 1}, rater="2" * 32)
    with pytest.raises(StudyIsFull, match="already has its 2 raters"):
        add(store, {"0": 1}, rater="3" * 32)
    assert add(store, {"1": 1}, rater="1" * 32) == 1, "those who began go on"


def test_the_file_belongs_to_one_study(tmp_path: Path) -> None:
    store_in(tmp_path)
    with pytest.raises(ValueError, match=f"another study, {STUDY}"):
        AnswerStore(tmp_path / "answers.sqlite", key_of({("FT", 1): 1}, study="7" * 32))
    (tmp_path / "no.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(ValueError, match=r"no\.sqlite is not an answer database"):
        AnswerStore(tmp_path / "no.sqlite", KEY)
    with pytest.raises(OSError, match=r"cannot open .*answers\.sqlite"):
        store_in(tmp_path / "missing")


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    new: list[int] = []

    def write(letter: str) -> None:
        for triplet in ("0", "1", "2"):
            new.append(add(store, {triplet: 1}, rater=letter * 32))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "aabbcc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new) == [0] * 9 + [1] * 9, "each answer is sent twice and is new once"
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM answers").fetchone() == (9,)
    connection.close()
