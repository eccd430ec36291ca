"""From what was seen in a file to one of five verdicts; nothing is opened here."""

import enum
from collections.abc import Iterable
from typing import Any, NamedTuple


class Verdict(enum.StrEnum):
    """What can be said of a file, from best to worst."""

    MARKED = "marked"
    """It says that a machine made it, and is as it was when that was said."""
    STRIPPED = "stripped"
    """A watermark was found, but no manifest: it was taken out, or lost when the file was saved again."""
    NOT_FOUND = "not found"
    """No mark of a machine. This proves nothing: marks can be removed, and most generators set others or none."""
    ALTERED = "altered"
    """There is a mark, and it does not fit the file."""
    UNREADABLE = "unreadable"
    """Nothing can be said."""

    @property
    def exit_code(self) -> int:
        """For scripts."""
        return {"marked": 0, "not found": 1, "altered": 2, "unreadable": 3, "stripped": 4}[self.value]


class Seen(NamedTuple):
    """What was seen in one file; a fault says why a look was not possible."""

    manifest: dict[str, Any] | None = None
    """The fields of a `ManifestReport`."""
    manifest_fault: str | None = None
    pixels: dict[str, Any] | None = None
    """`looked_for`, `marks` with message, chance and place of each, and `messages` with the count and least chance of each."""
    pixels_fault: str | None = None
    sidecar: dict[str, Any] | None = None
    """The record beside the file."""


def verdict_of(seen: Seen) -> Verdict:
    """The verdict, from manifest, pixels and the record beside the file, in this order.

    A manifest which says that no machine was involved, such as a camera's, is no mark. A record beside the file counts where
    nothing in the file can: anybody can write one. It makes no picture of what is none.
    """
    if seen.manifest_fault is not None:
        return Verdict.UNREADABLE
    manifest = None if seen.manifest is None or seen.manifest["elsewhere"] else seen.manifest
    if manifest is not None and not manifest["intact"]:
        return Verdict.ALTERED
    if manifest is not None and manifest["machine_made"]:
        return Verdict.MARKED
    beside = seen.sidecar if seen.sidecar is not None and seen.sidecar["fault"] is None else None
    if seen.pixels is not None and seen.pixels["marks"]:
        return Verdict.MARKED if beside is not None and beside["matches"] else Verdict.STRIPPED
    if manifest is None and beside is not None:
        if not beside["matches"]:
            return Verdict.ALTERED
        if beside["generated"] and not beside["unmarked_for_research"] and seen.pixels_fault is None:
            return Verdict.MARKED
    return Verdict.NOT_FOUND if seen.pixels_fault is None else Verdict.UNREADABLE


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The last of them in the order of `Verdict`.

    Raises:
        ValueError: if there are none.
    """
    return max(verdicts, key=list(Verdict).index)
