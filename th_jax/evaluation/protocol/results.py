"""Cells to numbers: every mean with its interval and its failures, as results.json and as a Markdown table."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from th_jax.evaluation.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from th_jax.evaluation.protocol.cells import REAL, Kept
from th_jax.evaluation.protocol.measure import CHARGES, TITLES
from th_jax.evaluation.protocol.plan import Person
from th_jax.evaluation.protocol.run import COPIES, OURS
from th_jax.run_files import write_whole

RESULTS_FILE = "results.json"
TABLE_FILE = "table.md"
RESULTS_SCHEMA = 1
CHARGED = "/with_failures"

MethodAtShots = tuple[str, int]
Tables = dict[MethodAtShots, dict[str, Float[np.ndarray, "I S"]]]
"""By method and T, each measure of each frame; NaN where there is none. Real frames have T = 0."""


class Scores(NamedTuple):
    """All numbers of a run."""

    tables: Tables
    """As measured, and with the failures charged under "<measure>/with_failures"."""
    groups: Shaped[np.ndarray, " I"]
    """Who is in each row."""
    estimates: Mapping[MethodAtShots, Mapping[str, Estimate]]
    seed: int
    """Of the intervals."""

    def difference(self, ours: MethodAtShots, theirs: MethodAtShots, measure: str) -> Estimate:
        """Ours less theirs over the same frames, with its interval over people.

        Raises:
            KeyError: if one was not measured.
        """
        one, other = self.tables[ours][measure], self.tables[theirs][measure]
        return bootstrap_difference(one, other, groups=self.groups, seed=self.seed)


def shown_measure(measure: str) -> str:
    """What stands for a measure in tables: measures of faces with their failures charged."""
    return f"{measure}{CHARGED}" if measure in CHARGES else measure


def gather(
    kept: Kept, people: Sequence[Person], *, shots: Sequence[int], systems: Sequence[str], seed: int = 0
) -> Scores:
    """Read all cells and estimate everything.

    Args:
        kept: the run's files.
        people: in their order.
        shots: all T.
        systems: other systems' names.
        seed: of the intervals.

    Raises:
        ValueError: if a cell of real frames or of ours is missing: the run is not over.
    """
    tables: Tables = {}
    for group, counts in ((REAL, (0,)), (OURS, tuple(shots)), *((name, tuple(shots)) for name in systems)):
        for count in counts:
            cells = [kept.read(group, count, person) for person in people]
            there = [cell for cell in cells if cell is not None]
            if len(there) < len(cells):
                if group in systems and not there:
                    continue
                raise ValueError(
                    f"{len(cells) - len(there)} of {len(cells)} people have no scores of {group} at T = {count}"
                )
            for method in there[0].tables:
                names = there[0].tables[method]
                tables[method, count] = {
                    name: np.stack([cell.tables[method][name] for cell in there]) for name in names
                }
    for table in tables.values():
        table |= {
            f"{name}{CHARGED}": np.where(np.isnan(values), CHARGES[name], values)
            for name, values in list(table.items())
            if name in CHARGES
        }
    groups = np.array([person.identity for person in people])
    estimates = {
        cell: {name: bootstrap_mean(values, groups=groups, seed=seed) for name, values in table.items()}
        for cell, table in tables.items()
    }
    return Scores(tables, groups, estimates, seed)


def failures(scores: Scores, cell: MethodAtShots, measure: str) -> int:
    """Frames of a method without a value of a measure: the detector found no face in them, or in the real ones."""
    return int(np.isnan(scores.tables[cell][measure.removesuffix(CHARGED)]).sum())


def results_document(scores: Scores, about: Mapping[str, Any], expected: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of it as JSON values; numbers that nobody knows are null.

    Args:
        scores: of the run.
        about: what the run was: protocol, weights, data, settings.
        expected: statements of `expectations`.
    """
    cells = [
        {
            "method": method,
            "shots": count,
            "measures": {
                name: estimate._asdict() | {"failures": failures(scores, (method, count), name)}
                for name, estimate in measures.items()
            },
        }
        for (method, count), measures in scores.estimates.items()
    ]
    document = {"schema": RESULTS_SCHEMA, **about, "charges": dict(CHARGES), "cells": cells, "expected": list(expected)}
    plain: dict[str, Any] = _without_nan(document)
    return plain


def write_results(folder: Path, document: Mapping[str, Any], table: str) -> None:
    """Write results.json and table.md.

    Raises:
        OSError: if the disk refuses.
    """
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(str(folder / RESULTS_FILE), text.encode())
    write_whole(str(folder / TABLE_FILE), table.encode())


def rows_of(scores: Scores) -> list[MethodAtShots]:
    """Methods and T in the order of tables: by T, ours before copies before other systems; real frames last."""
    order = {method: place for place, method in enumerate(("FF", "FT", *COPIES))}
    cells = [cell for cell in scores.tables if cell[1]]
    last = [cell for cell in scores.tables if not cell[1]]
    return sorted(cells, key=lambda cell: (cell[1], order.get(cell[0], len(order)), cell[0])) + last


def columns_of(scores: Scores) -> list[str]:
    """The measures of `TITLES` that there are."""
    return [name for name in TITLES if any(name in table for table in scores.tables.values())]


def cell_text(estimate: Estimate) -> str:
    """A mean with its interval, such as 0.712 [0.690, 0.731], or "unknown"."""
    if math.isnan(estimate.value):
        return "unknown"
    digits = 1 if abs(estimate.value) >= 10 else 3
    interval = f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{estimate.value:.{digits}f}{interval if math.isfinite(estimate.low) else ''}"


def table_markdown(scores: Scores, facts: Sequence[str]) -> str:
    """A row for each T and method: means with their 95 % intervals over people, failures charged and counted.

    Args:
        scores: of the run.
        facts: sentences above it.
    """
    columns = columns_of(scores)
    heads = ["T", "frames of", "people", "frames", *(TITLES[name] for name in columns)]
    lines = [*facts, "", f"| {' | '.join(heads)} |", f"|---:|---|{'---:|' * (len(heads) - 2)}"]
    for cell in rows_of(scores):
        estimates = scores.estimates[cell]
        values = [estimates[name] if (name := shown_measure(column)) in estimates else None for column in columns]
        texts = ["–" if value is None else cell_text(value) for value in values]
        people, frames = len(set(scores.groups.tolist())), next(iter(scores.tables[cell].values())).size
        lines.append(f"| {cell[1] or '–'} | {cell[0]} | {people} | {frames} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
