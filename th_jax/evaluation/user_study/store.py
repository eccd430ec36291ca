"""Stores answers durably in SQLite: an acknowledged answer survives a crash of the process or the machine."""

import sqlite3
from collections import defaultdict
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from th_jax.evaluation.user_study.answer_key import StudyKey
from th_jax.evaluation.user_study.answers import Answer, ConflictingAnswer, Sheet
from th_jax.storage.database import durable_connection

ANSWERS_FILE = "answers.sqlite"
RATERS = 10_000
"""Maximum number of raters of a study, which keeps invented ones from filling the disk."""

_TABLES = """
CREATE TABLE IF NOT EXISTS study (study TEXT NOT NULL PRIMARY KEY);
CREATE TABLE IF NOT EXISTS answers (
    rater TEXT NOT NULL, triplet TEXT NOT NULL, choice INTEGER NOT NULL CHECK (choice IN (1, 2, 3)),
    milliseconds INTEGER NOT NULL, position INTEGER NOT NULL, received TEXT NOT NULL,
    PRIMARY KEY (rater, triplet)
) WITHOUT ROWID;
"""


class StudyIsFull(ValueError):
    """No further raters are accepted."""


class AnswerStore:
    """The answers to one study. Every call reopens the file, so that threads and processes can share it."""

    def __init__(self, path: str | Path, key: StudyKey, *, raters: int = RATERS) -> None:
        """Open or create the file.

        Raises:
            ValueError: if the file has another format, or contains the answers to another study.
            OSError: if it cannot be opened.
        """
        self.path = Path(path)
        self.raters = raters
        try:
            with self.connection() as connection:
                connection.executescript(_TABLES)
                connection.execute("INSERT INTO study SELECT ? WHERE NOT EXISTS (SELECT * FROM study)", (key.study,))
                studies = [study for (study,) in connection.execute("SELECT study FROM study")]
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot open {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is not an answer database: {error}") from error
        if studies != [key.study]:
            raise ValueError(f"{self.path} contains answers to another study, {', '.join(studies)}")

    def connection(self) -> AbstractContextManager[sqlite3.Connection]:
        """Open a connection (`durable_connection`)."""
        return durable_connection(self.path)

    def add(self, sheet: Sheet) -> int:
        """Store a sheet atomically, and return the number of new answers. Known answers may be sent again.

        Raises:
            ConflictingAnswer: if the rater has already given another answer to one of the triplets.
            StudyIsFull: if the number of raters would exceed the maximum.
        """
        received = datetime.now(UTC).isoformat(timespec="seconds")
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")  # prevents other writes between the query and the insertion
            query = "SELECT triplet, choice FROM answers WHERE rater = ?"
            known = dict(connection.execute(query, (sheet.rater,)).fetchall())
            if not known:
                (raters,) = connection.execute("SELECT COUNT(DISTINCT rater) FROM answers").fetchone()
                if raters >= self.raters:
                    raise StudyIsFull(f"this study already has its {self.raters} raters")
            new = merged(known, sheet)
            rows = [(sheet.rater, *answer, received) for answer in new]
            connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        return len(new)

    def sheets(self) -> tuple[Sheet, ...]:
        """Return all answers by rater, in the order in which each rater gave them."""
        found: dict[str, list[Answer]] = defaultdict(list)
        query = "SELECT rater, triplet, choice, milliseconds, position FROM answers ORDER BY rater, position, triplet"
        with self.connection() as connection:
            for rater, *answer in connection.execute(query):
                found[rater].append(Answer(*answer))
        return tuple(Sheet(rater, tuple(answers)) for rater, answers in found.items())


def merged(known: dict[str, int], sheet: Sheet) -> list[Answer]:
    """Return the answers of a sheet that are not among its rater's known choices.

    Raises:
        ConflictingAnswer: if one differs from a known choice.
    """
    for answer in sheet.answers:
        if known.get(answer.triplet, answer.choice) != answer.choice:
            raise ConflictingAnswer(f"rater {sheet.rater} already answered triplet {answer.triplet} differently")
    return [answer for answer in sheet.answers if answer.triplet not in known]
