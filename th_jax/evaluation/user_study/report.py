"""Results of a user study: USER of each method and T with its interval, excluded raters with reasons, and agreement."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from th_jax.evaluation.user_study.answer_key import StudyKey, read_key
from th_jax.evaluation.user_study.answers import ConflictingAnswer, MalformedSheet, Sheet, read_sheet
from th_jax.evaluation.user_study.statistics import Share, krippendorff_alpha, pairwise_agreement, wilson_share
from th_jax.evaluation.user_study.store import ANSWERS_FILE, AnswerStore, merged
from th_jax.storage.run_folder import write_whole
from th_jax.version import __version__

REPORT_SCHEMA = 1
CHANCE = 1 / 3


class Rater(NamedTuple):
    """Results of one rater."""

    rater: str
    answers: int
    """Number of answers without attention checks."""
    found: int
    """Number of answers that found the fake."""
    checks: int
    """Number of attention checks that were answered."""
    checks_failed: int
    median_seconds: float
    excluded: str
    """Reason for exclusion; empty if the answers count."""


class CellResult(NamedTuple):
    """USER of one method and T: the share of answers that found the fake. Lower is better; chance is 1/3."""

    method: str
    shots: int
    user: Share | None
    raters: int
    triplets: int
    """Number of different triplets that were answered."""
    three_videos: int
    """Number of those whose images come from three videos, as in the paper."""
    pairwise_agreement: float | None
    krippendorff_alpha: float | None


class StudyReport(NamedTuple):
    """Results of a study."""

    key: StudyKey
    allowed_failures: int
    cells: tuple[CellResult, ...]
    raters: tuple[Rater, ...]
    pairwise_agreement: float | None
    """Over all triplets except attention checks, like `krippendorff_alpha`."""
    krippendorff_alpha: float | None
    sides: tuple[int, int, int]
    """How often image 1, 2 and 3 was chosen."""


def collect_sheets(study: str | Path, *, files: Iterable[str | Path] = ()) -> tuple[Sheet, ...]:
    """Collect all answers of a study, one sheet per rater: those stored by `serve`, and downloaded files.

    The same answer may occur in several places.

    Raises:
        FileNotFoundError, ValueError: if the folder is not a study, or a file is not a sheet of answers to it.
        ConflictingAnswer: a ValueError, if a rater's answer to a triplet differs between two places.
    """
    study, key = Path(study), read_key(study)
    sources: list[tuple[str, Sheet]] = []
    if (study / ANSWERS_FILE).is_file():
        sources += [(ANSWERS_FILE, sheet) for sheet in AnswerStore(study / ANSWERS_FILE, key).sheets()]
    for file in map(Path, files):
        if not file.is_file():
            raise FileNotFoundError(f"there are no answers at {file}")
        try:
            sources.append((str(file), read_sheet(file.read_bytes(), key)))
        except MalformedSheet as error:
            raise MalformedSheet(f"{file}: {error}") from error
    together: dict[str, Sheet] = {}
    for source, sheet in sources:
        before = together.get(sheet.rater, Sheet(sheet.rater, ()))
        try:
            new = merged({answer.triplet: answer.choice for answer in before.answers}, sheet)
        except ConflictingAnswer as error:
            raise ConflictingAnswer(f"{source}: {error}") from error
        together[sheet.rater] = Sheet(sheet.rater, (*before.answers, *new))
    return tuple(together[rater] for rater in sorted(together))


def report_study(key: StudyKey, sheets: Sequence[Sheet], *, allowed_failures: int = 0) -> StudyReport:
    """Compute the results. A rater counts if all attention checks were answered and at most `allowed_failures` failed.

    Raises:
        ValueError: if `allowed_failures` is negative.
    """
    if allowed_failures < 0:
        raise ValueError(f"allowed_failures must be 0 or more, got {allowed_failures}")
    raters = tuple(_judge(key, sheet, allowed_failures) for sheet in sheets)
    kept = {rater.rater for rater in raters if not rater.excluded}
    choices: dict[str, dict[str, int]] = defaultdict(dict)
    for sheet in sheets:
        if sheet.rater in kept:
            for answer in sheet.answers:
                choices[answer.triplet][sheet.rater] = answer.choice
    cells = sorted({(t.method, t.shots) for name, t in key.triplets.items() if name not in key.checks})
    given = [list(choices[name].values()) for name in key.triplets if name not in key.checks]
    pooled = [choice for made in given for choice in made]
    return StudyReport(
        key=key,
        allowed_failures=allowed_failures,
        cells=tuple(_cell(key, method, shots, choices) for method, shots in cells),
        raters=raters,
        pairwise_agreement=pairwise_agreement(given),
        krippendorff_alpha=krippendorff_alpha(given),
        sides=(pooled.count(1), pooled.count(2), pooled.count(3)),
    )


def report_record(report: StudyReport) -> dict[str, Any]:
    """Convert the report to JSON values."""
    key = report.key
    return {
        "schema": REPORT_SCHEMA,
        "software": f"th_jax {__version__}",
        "study": {name: value for name, value in key._asdict().items() if name != "triplets"},
        "chance": CHANCE,
        "confidence": 0.95,
        "checks": len(key.checks),
        "allowed_failures": report.allowed_failures,
        "cells": [cell._asdict() | {"user": cell.user and cell.user._asdict()} for cell in report.cells],
        "raters": [rater._asdict() for rater in report.raters],
        "pairwise_agreement": report.pairwise_agreement,
        "krippendorff_alpha": report.krippendorff_alpha,
        "sides": list(report.sides),
    }


def report_markdown(report: StudyReport) -> str:
    """Format the report as Markdown."""
    excluded = [rater for rater in report.raters if rater.excluded]
    kept = [rater for rater in report.raters if not rater.excluded]
    lines = [
        f"# User study: {_cell_text(report.key.name)}",
        "",
        "USER is the fraction of answers that identified the generated image among three (Zakharov et al. 2019, "
        "section 4). Lower is better; guessing gives 1 in 3. In brackets: Wilson's 95 % interval, which assumes "
        "independent answers.",
        "",
        "| method | T | USER | 95 % | answers | raters | triplets | with three videos | agreement | alpha |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(_row, report.cells),
        "",
        f"All triplets: agreement {_number(report.pairwise_agreement)}, alpha "
        f"{_number(report.krippendorff_alpha)}. Agreement is the fraction of pairs of raters who chose the same "
        "image of the same triplet; alpha is Krippendorff's alpha for nominal data.",
        "",
        f"Raters: {len(report.raters)}, of whom {len(kept)} are included. Raters are included if they answered all "
        f"{len(report.key.checks)} attention checks and failed at most {report.allowed_failures}. Images 1, 2 and "
        f"3 were chosen {', '.join(map(str, report.sides))} times.",
    ]
    if kept:
        lines += ["", f"Median time per answer, median over raters: {median(r.median_seconds for r in kept):.1f} s."]
    if excluded:
        lines += ["", "Excluded:", ""]
        lines += [f"- {rater.rater[:8]}, {rater.answers} answers: {rater.excluded}" for rater in excluded]
    return "\n".join(lines) + "\n"


def write_report(report: StudyReport, folder: Path) -> tuple[Path, Path]:
    """Write user_study.json and user_study.md into an existing folder.

    Raises:
        OSError: if a file cannot be written.
    """
    record, text = folder / "user_study.json", folder / "user_study.md"
    write_whole(str(record), (json.dumps(report_record(report), indent=2) + "\n").encode())
    write_whole(str(text), report_markdown(report).encode())
    return record, text


def _judge(key: StudyKey, sheet: Sheet, allowed_failures: int) -> Rater:
    right = {answer.triplet: answer.choice == key.triplets[answer.triplet].fake for answer in sheet.answers}
    checks = [found for name, found in right.items() if name in key.checks]
    others = [found for name, found in right.items() if name not in key.checks]
    excluded = ""
    if len(checks) < len(key.checks):
        excluded = f"answered {len(checks)} of {len(key.checks)} attention checks"
    elif checks.count(False) > allowed_failures:
        excluded = f"failed {checks.count(False)} of {len(checks)} attention checks"
    seconds = median(answer.milliseconds for answer in sheet.answers) / 1000
    return Rater(sheet.rater, len(others), sum(others), len(checks), checks.count(False), seconds, excluded)


def _cell(key: StudyKey, method: str, shots: int, choices: dict[str, dict[str, int]]) -> CellResult:
    names = [name for name, t in key.triplets.items() if (t.method, t.shots) == (method, shots) and choices.get(name)]
    found = sum(choice == key.triplets[name].fake for name in names for choice in choices[name].values())
    units = [list(choices[name].values()) for name in names]
    return CellResult(
        method=method,
        shots=shots,
        user=wilson_share(found, sum(map(len, units))),
        raters=len({rater for name in names for rater in choices[name]}),
        triplets=len(names),
        three_videos=sum(key.triplets[name].videos == 3 for name in names),
        pairwise_agreement=pairwise_agreement(units),
        krippendorff_alpha=krippendorff_alpha(units),
    )


def _row(cell: CellResult) -> str:
    user = ("–", "–", "0")
    if cell.user is not None:
        user = (f"{cell.user.value:.3f}", f"[{cell.user.low:.3f}, {cell.user.high:.3f}]", str(cell.user.of))
    numbers = map(str, (cell.raters, cell.triplets, cell.three_videos))
    agreement = map(_number, (cell.pairwise_agreement, cell.krippendorff_alpha))
    return "| " + " | ".join([_cell_text(cell.method), str(cell.shots), *user, *numbers, *agreement]) + " |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell_text(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
