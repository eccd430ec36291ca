"""Summarizes cells as means with intervals and failure counts, in results.json and a Markdown table."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from th_jax.evaluation.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from th_jax.evaluation.judges.sets import SetDistance
from th_jax.evaluation.protocol.measure import FLICKER, TITLES, charge_of, title_of, without_network
from th_jax.evaluation.protocol.plan import Person
from th_jax.evaluation.protocol.run import COPIES, OURS
from th_jax.evaluation.protocol.score_store import REAL, MethodAtShots, ScoreStore
from th_jax.storage.run_folder import write_whole

RESULTS_FILE = "results.json"
TABLE_FILE = "table.md"
RESULTS_SCHEMA = 1
CHARGED = "/with_failures"

Tables = dict[MethodAtShots, dict[str, Float[np.ndarray, "I S"]]]
"""Measures of each frame, by method and T; NaN where there is no value. Real frames have T = 0."""


class Scores(NamedTuple):
    """All scores of a run."""

    tables: Tables
    """Measured values, and those with failures charged under "<measure>/with_failures"."""
    groups: Shaped[np.ndarray, " I"]
    """Identity of each row's person."""
    estimates: Mapping[MethodAtShots, Mapping[str, Estimate]]
    seed: int
    """Random seed of the intervals."""
    distances: Mapping[MethodAtShots, Mapping[str, SetDistance]] = {}
    """Distances of a method's frames from all real ones, by a name that includes the network; without intervals."""

    def difference(self, ours: MethodAtShots, theirs: MethodAtShots, measure: str) -> Estimate:
        """Compute the paired difference of two methods over the same frames, with its interval over people.

        Raises:
            KeyError: if one was not measured.
        """
        one, other = self.tables[ours][measure], self.tables[theirs][measure]
        return bootstrap_difference(one, other, groups=self.groups, seed=self.seed)


def shown_measure(measure: str) -> str:
    """Return the measure shown in tables: face measures are shown with failures charged."""
    return measure if charge_of(measure) is None else f"{measure}{CHARGED}"


def gather(
    store: ScoreStore,
    people: Sequence[Person],
    *,
    shots: Sequence[int],
    systems: Mapping[str, Sequence[int]],
    more: Mapping[MethodAtShots, Mapping[str, Float[np.ndarray, "I S"]]],
    distances: Mapping[MethodAtShots, Mapping[str, SetDistance]],
    seed: int = 0,
) -> Scores:
    """Read all cells and compute all estimates.

    `systems` names other systems, with the T that each has now (`baseline_shots`): cells of other T are of earlier
    frames. `more` has measures of each frame that are not stored in cells; `distances` are of a method's frames from
    the real ones.

    Raises:
        ValueError: if a cell is missing, which means that the run is not finished.
    """
    tables: Tables = {}
    for group, counts in ((REAL, (0,)), (OURS, tuple(shots)), *systems.items()):
        for count in counts:
            cells = [store.read(group, count, person) for person in people]
            there = [cell for cell in cells if cell is not None]
            if len(there) < len(cells):
                raise ValueError(
                    f"{len(cells) - len(there)} of {len(cells)} people have no scores for {group} at T = {count}"
                )
            for method in there[0].tables:
                names = there[0].tables[method]
                tables[method, count] = {
                    name: np.stack([cell.tables[method][name] for cell in there]) for name in names
                }
    for cell, table in tables.items():
        table |= more.get(cell, {})
        charges = {name: charge for name in table if (charge := charge_of(name)) is not None}
        table |= {
            f"{name}{CHARGED}": np.where(np.isnan(table[name]), charge, table[name]) for name, charge in charges.items()
        }
    groups = np.array([person.identity for person in people])
    estimates = {
        cell: {name: bootstrap_mean(values, groups=groups, seed=seed) for name, values in table.items()}
        for cell, table in tables.items()
    }
    return Scores(tables, groups, estimates, seed, distances)


def failures(scores: Scores, cell: MethodAtShots, measure: str) -> int:
    """Count a method's frames without a value of a measure: no face was detected in them, or in the real ones."""
    values = scores.tables[cell][measure.removesuffix(CHARGED)]
    # A person's first frame has no flicker by definition.
    return int(np.isnan(values[:, 1:] if measure == FLICKER else values).sum())


def results_document(scores: Scores, about: Mapping[str, Any], expected: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Convert all results to JSON values; unknown numbers are null.

    `about` describes the run: protocol, weights, data, settings. `expected` is the result of `expectations.judged`.
    """
    cells = [
        {
            "method": method,
            "shots": count,
            "measures": {
                name: estimate._asdict() | {"failures": failures(scores, (method, count), name)}
                for name, estimate in measures.items()
            },
            "distances": {
                name: distance._asdict() for name, distance in scores.distances.get((method, count), {}).items()
            },
        }
        for (method, count), measures in scores.estimates.items()
    ]
    names = {name for table in scores.tables.values() for name in table}
    charges = {name: charge for name in sorted(names) if (charge := charge_of(name)) is not None}
    document = {"schema": RESULTS_SCHEMA, **about, "charges": charges, "cells": cells, "expected": list(expected)}
    plain: dict[str, Any] = _without_nan(document)
    return plain


def write_results(folder: Path, document: Mapping[str, Any], table: str) -> None:
    """Write results.json and table.md.

    Raises:
        OSError: if a file cannot be written.
    """
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(str(folder / RESULTS_FILE), text.encode())
    write_whole(str(folder / TABLE_FILE), table.encode())


def rows_of(scores: Scores) -> list[MethodAtShots]:
    """Return methods and T in the order of tables: by T, ours before copies before other systems; real frames last."""
    order = {method: place for place, method in enumerate(("FF", "FT", *COPIES))}
    cells = [cell for cell in scores.tables if cell[1]]
    last = [cell for cell in scores.tables if not cell[1]]
    return sorted(cells, key=lambda cell: (cell[1], order.get(cell[0], len(order)), cell[0])) + last


def columns_of(scores: Scores) -> list[str]:
    """Return the available measures that tables show, in the order of `TITLES`, given networks after dlib."""
    names = dict.fromkeys(name for table in scores.tables.values() for name in table if not name.endswith(CHARGED))
    shown = [name for name in names if without_network(name) in TITLES]
    return sorted(shown, key=lambda name: list(TITLES).index(without_network(name)))


def distance_heads(scores: Scores) -> dict[str, str]:
    """Return column titles of set distances by name, which must state the numbers of frames and dimensions."""
    heads = {}
    for distances in scores.distances.values():
        for name, one in distances.items():
            few = one.biased and one.frames < one.dimensions
            numbers = f"N = {one.frames}{' <' if few else ','} {one.dimensions} dimensions"
            heads[name] = f"{name}, {numbers}{': biased' if few else ''}"
    return heads


def distance_text(scores: Scores, cell: MethodAtShots, name: str) -> str:
    """Format a set distance, which has no interval; a dash if there is none."""
    one = scores.distances.get(cell, {}).get(name)
    return "–" if one is None else _rounded(one.value)


def cell_text(estimate: Estimate) -> str:
    """Format a mean with its interval, such as 0.712 [0.690, 0.731], or "unknown"."""
    if math.isnan(estimate.value):
        return "unknown"
    interval = f" [{_rounded(estimate.low, like=estimate.value)}, {_rounded(estimate.high, like=estimate.value)}]"
    return f"{_rounded(estimate.value)}{interval if math.isfinite(estimate.low) else ''}"


def _rounded(value: float, *, like: float | None = None) -> str:
    return f"{value:.{1 if abs(value if like is None else like) >= 10 else 3}f}"


def table_markdown(scores: Scores, facts: Sequence[str]) -> str:
    """Format a row for each T and method: means with their 95 % intervals over people, failures charged and counted.

    `facts` are sentences above the table.
    """
    heads, *rows = table_rows(scores)
    lines = [*facts, "", f"| {' | '.join(heads)} |", f"|---:|---|{'---:|' * (len(heads) - 2)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def table_rows(scores: Scores) -> list[list[str]]:
    """Return the rows of the table, its heads first: T, method, people and frames, then measures and distances."""
    columns, distances = columns_of(scores), distance_heads(scores)
    rows = [["T", "frames of", "people", "frames", *(title_of(name) for name in columns), *distances.values()]]
    people = str(len(set(scores.groups.tolist())))
    for cell in rows_of(scores):
        estimates, frames = scores.estimates[cell], next(iter(scores.tables[cell].values())).size
        texts = [
            cell_text(estimates[name]) if (name := shown_measure(column)) in estimates else "–" for column in columns
        ]
        texts += [distance_text(scores, cell, name) for name in distances]
        rows.append([str(cell[1] or "–"), cell[0], people, str(frames), *texts])
    return rows


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
