"""The manifest: one JSON line for everything that was dropped, with its reason and its numbers."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.quality import Reason
from th_jax.storage.files import whole_file

MANIFEST_FILE = "manifest.jsonl"

LEVELS = ("frame", "segment", "clip", "video")


class Drop(NamedTuple):
    """One line of the manifest: what was dropped, where, and why."""

    level: str
    """One of `LEVELS`; a segment is a stretch of a clip in which one face is followed; a clip is a file."""
    video_id: str | None
    """None for a file that belongs to no video."""
    path: str
    """Relative to the source folder; the folder of a video with several clips."""
    reason: Reason
    time: float | None = None
    """Seconds into the clip; of a segment, where it begins."""
    numbers: Mapping[str, float] = {}
    detail: str = ""

    def line(self) -> str:
        """The drop as one line of JSON, the same for equal drops."""
        fields: dict[str, Any] = {**self._asdict(), "reason": self.reason.value}
        fields["time"] = None if self.time is None else round(self.time, 3)
        fields["numbers"] = {name: round(value, 4) for name, value in self.numbers.items()}
        return json.dumps({name: value for name, value in fields.items() if value not in (None, "", {})})


def write_manifest(path: Path, drops: Iterable[Drop]) -> None:
    """Write one line a drop, in the given order; the file appears whole or not at all.

    Raises:
        OSError: if the disk refuses; nothing is left behind.
    """
    with whole_file(path) as file:
        file.writelines(f"{drop.line()}\n".encode() for drop in drops)


def read_manifest(path: Path) -> list[Drop]:
    """The drops that `write_manifest` wrote.

    Raises:
        FileNotFoundError: if there is no manifest.
        ValueError: if a line is none of its own.
    """
    drops = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            drops.append(drop_of(line))
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is no line of a manifest: {error}") from error
    return drops


def drop_of(line: str) -> Drop:
    """The drop of a line.

    Raises:
        ValueError: if it is no line of a manifest.
    """
    try:
        fields = json.loads(line)
        return Drop(**{"video_id": None} | fields | {"reason": Reason(fields["reason"])})
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def summary(drops: Iterable[Drop]) -> str:
    """Counts by level and reason, one level a line, the largest first; empty without drops."""
    return describe(Counter((drop.level, drop.reason.value) for drop in drops))


def describe(counts: Mapping[tuple[str, str], int]) -> str:
    """The same from numbers of drops by level and reason."""
    lines = []
    for level in LEVELS:
        reasons = [(reason, count) for (where, reason), count in counts.items() if where == level]
        if reasons:
            listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons, key=lambda r: (-r[1], r[0])))
            lines.append(f"dropped {level}s: {sum(count for _, count in reasons)} ({listed})")
    return "\n".join(lines)
