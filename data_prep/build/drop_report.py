"""The drop report: one JSON line for each file, clip, segment or frame left out, with its reason and measured numbers."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.build.quality import Reason
from th_jax.storage.files import whole_file
from th_jax.storage.strict_json import parse_json

DROP_REPORT_FILE = "drops.jsonl"
_OLD_FILE = "manifest.jsonl"  # in older data sets

LEVELS = ("frame", "segment", "clip", "video")


class Drop(NamedTuple):
    """One line of the drop report."""

    level: str
    """One of `LEVELS`; a segment is a part of a clip in which one face is tracked; a clip is a file."""
    video_id: str | None
    """None for a file that belongs to no video."""
    path: str
    """Path relative to the source folder; the folder of a video with several clips."""
    reason: Reason
    time: float | None = None
    """Seconds from the start of the clip; the start of a segment."""
    numbers: Mapping[str, float] = {}
    detail: str = ""

    def line(self) -> str:
        """Return the drop as one line of JSON, identical for equal drops."""
        fields: dict[str, Any] = {**self._asdict(), "reason": self.reason.value}
        fields["time"] = None if self.time is None else round(self.time, 3)
        fields["numbers"] = {name: round(value, 4) for name, value in self.numbers.items()}
        return json.dumps({name: value for name, value in fields.items() if value not in (None, "", {})})


def drop_report_path(folder: Path) -> Path:
    """Return the path of a data set's drop report, which older data sets have under another name."""
    old = folder / _OLD_FILE
    return old if old.is_file() and not (folder / DROP_REPORT_FILE).exists() else folder / DROP_REPORT_FILE


def write_drop_report(path: Path, drops: Iterable[Drop]) -> None:
    """Write a drop report atomically, one line per drop in the given order.

    Raises:
        OSError: if the file cannot be written; no partial file remains.
    """
    with whole_file(path) as file:
        file.writelines(f"{drop.line()}\n".encode() for drop in drops)


def read_drop_report(path: Path) -> Iterator[Drop]:
    """Read a drop report line by line, because a large one does not fit into memory.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if a line is invalid.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield parse_drop(line)
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is not a line of a drop report: {error}") from error


def parse_drop(line: str) -> Drop:
    """Parse a line of a drop report.

    Raises:
        ValueError: if the line is invalid.
    """
    try:
        fields = parse_json(line)
        drop = Drop(**{"video_id": None} | fields | {"reason": Reason(fields["reason"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"unknown or missing fields: {error}") from error
    texts = (drop.level, drop.path, drop.detail, drop.video_id or "")
    if not all(isinstance(text, str) for text in texts) or drop.level not in LEVELS:
        raise ValueError(f"the level must be one of {', '.join(LEVELS)}, and path, video_id and detail must be text")
    values = [*drop.numbers.values(), drop.time or 0.0] if isinstance(drop.numbers, dict) else [None]
    if not all(isinstance(value, int | float) for value in values):
        raise ValueError("time and numbers must be numbers")
    return drop


def summary(drops: Iterable[Drop]) -> str:
    """Describe drops by level and reason, one level per line, the most frequent reason first; empty without drops."""
    return describe(Counter((drop.level, drop.reason.value) for drop in drops))


def describe(counts: Mapping[tuple[str, str], int]) -> str:
    """Describe numbers of drops by (level, reason), as `summary` does."""
    lines = []
    for level in LEVELS:
        reasons = [(reason, count) for (where, reason), count in counts.items() if where == level]
        if reasons:
            listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons, key=lambda r: (-r[1], r[0])))
            lines.append(f"dropped {level}s: {sum(count for _, count in reasons)} ({listed})")
    return "\n".join(lines)
