"""What became of each person, a line each in report.jsonl, written as soon as it is known."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

REPORT_FILE = "report.jsonl"

Status = Literal["finished", "failed"]


class Outcome(NamedTuple):
    """What became of one person."""

    name: str
    status: Status
    reason: str = ""
    """Why it failed."""
    shots: int = 0
    """Pictures that were used."""
    steps: int = 0
    """Of fine-tuning: those of the avatar that was saved."""
    best_of: int = 0
    """Steps that were tried, where held-out shots chose among them."""
    digest: str = ""
    """Of the avatar, SHA-256 in hexadecimal."""
    seconds: float = 0.0
    """Since the person before, all included."""


class Report:
    """OUT/report.jsonl: `report.add(outcome)` appends a line and flushes it to the disk."""

    def __init__(self, folder: Path) -> None:
        """Open it, made with its folder if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / REPORT_FILE
        self.outcomes: list[Outcome] = []
        """Of this run."""

    def add(self, outcome: Outcome) -> None:
        """Append one line, of somebody whose turn came in this run.

        Raises:
            OSError: if the disk refuses.
        """
        self.enter(outcome)
        self.outcomes.append(outcome)

    def enter(self, outcome: Outcome) -> None:
        """Append one line, of somebody who was finished by a run that was killed before it said so.

        Raises:
            OSError: if the disk refuses.
        """
        line = json.dumps(outcome._asdict(), ensure_ascii=False) + "\n"
        with self._path.open("a+b") as file:
            if file.tell() and not self._ends_with_newline():
                file.write(b"\n")  # a run was killed within its last line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def read_report(folder: Path, *, missing_ok: bool = False) -> dict[str, Outcome]:
    """The latest outcome of each person; lines that a kill cut short are left out.

    Args:
        folder: with the report.
        missing_ok: whether no report is one without a line.

    Raises:
        FileNotFoundError: if there is no report, unless that is allowed.
    """
    latest: dict[str, Outcome] = {}
    if missing_ok and not (folder / REPORT_FILE).exists():
        return latest
    for line in (folder / REPORT_FILE).read_bytes().splitlines():
        outcome = _parsed(line)
        if outcome is not None:
            latest[outcome.name] = outcome
    return latest


def summary(outcomes: Iterable[Outcome], *, skipped: int) -> str:
    """One paragraph for whoever waits: how many, who failed and why (the first few)."""
    outcomes = list(outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    parts = [f"{len(outcomes) - len(failed)} finished"]
    parts += [f"{skipped} were finished before"] if skipped else []
    parts += [f"{len(failed)} failed"] if failed else []
    lines = [", ".join(parts)] + [f"  {outcome.name}: {outcome.reason}" for outcome in failed[:5]]
    lines += [f"  and {len(failed) - 5} more: see {REPORT_FILE}"] if len(failed) > 5 else []
    return "\n".join(lines)


def _parsed(line: bytes) -> Outcome | None:
    try:
        record: Any = json.loads(line)
        return Outcome(**record)
    except (ValueError, TypeError):
        return None
