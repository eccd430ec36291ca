"""Joins the reports of shards into one, and finds the people who are missing or failed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from th_jax.avatars.output import REPORT_FILE, Outcome, avatar_description, finished_outcome, read_report, report_line
from th_jax.avatars.requests import PersonRequest
from th_jax.avatars.shards import shard_reports
from th_jax.storage.files import whole_file

_SHOWN = 20
"""Maximum number of people, and of shards, of each kind that the summary names."""


class Merged(NamedTuple):
    """Outcomes of all shards."""

    outcomes: tuple[Outcome, ...]
    """One for each requested person, in the order of the people file."""
    others: tuple[Outcome, ...]
    """People of the reports who were not requested."""
    no_report: tuple[str, ...]
    """Shards without a report, such as "3 of 8"."""


def merge_reports(folder: Path, people: Sequence[PersonRequest]) -> Merged:
    """Join the reports in a folder, and write them as one report.

    An avatar decides: a person with one is finished, even if the process was killed before it could report it, and a
    person whose avatar is gone or damaged is not.

    Raises:
        FileNotFoundError: if the folder does not exist or has no report.
        EnrollmentError: if a file with an avatar's name is not an avatar.
        OSError: if a file cannot be read or written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: give the --out of the shards")
    shards = shard_reports(folder)
    names = [REPORT_FILE] * (folder / REPORT_FILE).exists() + [path.name for _, path in shards]
    if not names:
        raise FileNotFoundError(f"there is no report in {folder}: give the --out of the shards")
    reported: dict[str, Outcome] = {}
    for name in names:
        for outcome in read_report(folder, name=name).values():
            before = reported.get(outcome.name)
            kept = before is not None and before.status == "finished" and outcome.status == "failed"
            if outcome.status != "missing" and not kept:
                reported[outcome.name] = outcome
    outcomes = tuple(_outcome(folder, person.name, reported.pop(person.name, None)) for person in people)
    others = tuple(reported.values())
    with whole_file(folder / REPORT_FILE) as file:
        file.writelines(report_line(outcome) for outcome in (*outcomes, *others))
    run = {(shard.number, shard.total) for shard, _ in shards}
    largest = sorted({shard.total for shard, _ in shards})
    left = [f"{i} of {count}" for count in largest for i in range(1, count + 1) if (i, count) not in run]
    return Merged(outcomes, others, tuple(left))


def merge_summary(merged: Merged, *, people_file: Path) -> str:
    """Summarize in one paragraph: counts, who failed with reasons, who is missing, and which shards have no report."""
    kinds = {kind: [o for o in merged.outcomes if o.status == kind] for kind in ("finished", "failed", "missing")}
    lines = [", ".join(f"{len(of)} {kind}" for kind, of in kinds.items() if of or kind == "finished")]
    lines += _named([f"{o.name}: {o.reason}" for o in (*kinds["failed"], *kinds["missing"])])
    if merged.no_report and kinds["missing"]:
        lines += _named([f"shard {shard} has no report: it has not started" for shard in merged.no_report])
    if merged.others:
        lines.append(f"  {len(merged.others)} people of the reports are not in {people_file}")
    return "\n".join(lines)


def _named(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [f"  {line}" for line in lines[:_SHOWN]] + ([f"  and {more} more: see {REPORT_FILE}"] if more > 0 else [])


def _outcome(folder: Path, name: str, reported: Outcome | None) -> Outcome:
    path = folder / f"{name}.safetensors"
    if path.exists():
        if reported is not None and reported.status == "finished" and avatar_description(path) is not None:
            return reported
        if made := finished_outcome(name, path):
            return made
    if reported is not None and reported.status == "failed":
        return reported
    why = "its avatar is damaged" if path.exists() else "its avatar is gone" if reported else "no shard has made it yet"
    return Outcome(name, "missing", why)
