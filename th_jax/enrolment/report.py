"""What became of each person, a line each in report.jsonl, written as soon as it is known."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from th_jax.data.shots import LeftOut

REPORT_FILE = "report.jsonl"

_SHOWN = 5
"""People of each kind that the summary names."""

_FILES_SHOWN = 20
"""Files that were left out that it names of each of them."""

Status = Literal["finished", "failed"]


class Outcome(NamedTuple):
    """What became of one person."""

    name: str
    status: Status
    reason: str = ""
    """Why it failed."""
    shots: int = 0
    """Pictures that were used."""
    looked_at: int = 0
    """Pictures that were looked at: photos, or frames of a video."""
    spare: int = 0
    """Good pictures beyond those that were used."""
    left_out: tuple[LeftOut, ...] = ()
    """Files that could not be used, or were not looked at because of their kind, and why."""
    avatar: str = ""
    """The file."""
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
        record = outcome._asdict() | {"left_out": [left._asdict() for left in outcome.left_out]}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with self._path.open("a+b") as file:
            if file.tell() and not self._ends_with_newline():
                file.write(b"\n")  # a run was killed within its last line
            file.write(line.encode(errors="backslashreplace"))  # a name on the disk need not be text
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


def summary(outcomes: Iterable[Outcome], *, skipped: int, folder: Path) -> str:
    """One paragraph for whoever waits: how many, who failed and why, where the avatars are, and what was left out.

    Args:
        outcomes: of this run.
        skipped: how many were finished before it.
        folder: with the avatars and the report.
    """
    outcomes = list(outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    parts = [f"{len(finished)} finished"]
    parts += [f"{skipped} were finished before"] if skipped else []
    parts += [f"{len(failed)} failed"] if failed else []
    lines = [", ".join(parts)] + [f"  {outcome.name}: {outcome.reason}" for outcome in failed[:_SHOWN]]
    lines += [f"  and {len(failed) - _SHOWN} more: see {REPORT_FILE}"] if len(failed) > _SHOWN else []
    for outcome in finished[:_SHOWN]:
        lines += _made(outcome)
    if skipped or len(finished) > _SHOWN:
        lines.append(f"  all avatars are in {folder}; what each was made from is in {folder / REPORT_FILE}")
    if unnamed := sum(len(outcome.left_out) for outcome in finished[_SHOWN:]):
        lines.append(f"  {unnamed} more files were left out: the report names them")
    return "\n".join(lines)


def _made(outcome: Outcome) -> list[str]:
    """Where an avatar is, of how many pictures, and the files that were left out."""
    of = f" of {outcome.looked_at}" if outcome.looked_at else ""
    spare = f" ({outcome.spare} more would have served)" if outcome.spare else ""
    lines = [f"  {outcome.name}: {outcome.avatar}, from {outcome.shots}{of} pictures{spare}"]
    lines += [f"    left out: {file}: {why}" for file, why in outcome.left_out[:_FILES_SHOWN]]
    more = len(outcome.left_out) - _FILES_SHOWN
    return lines + ([f"    and {more} more: see {REPORT_FILE}"] if more > 0 else [])


def _parsed(line: bytes) -> Outcome | None:
    try:
        record: Any = json.loads(line)
        record["left_out"] = tuple(LeftOut(**left) for left in record.get("left_out", ()))
        return Outcome(**record)
    except (AttributeError, ValueError, TypeError):
        return None
