"""The report page of a run: measurements and methods, expectations, plots, and people from best to worst."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from th_jax.evaluation.heldout import baseline_frames
from th_jax.evaluation.protocol.expectations import in_words
from th_jax.evaluation.protocol.measure import TITLES, higher_is_better, title_of
from th_jax.evaluation.protocol.plan import Person
from th_jax.evaluation.protocol.results import (
    Scores,
    columns_of,
    distance_heads,
    rows_of,
    shown_measure,
    table_rows,
)
from th_jax.evaluation.protocol.run import COPIES, OURS, Evaluation
from th_jax.evaluation.protocol.score_store import REAL
from th_jax.evaluation.report_page import Plot, Point, Row, Section, plots_drawing, report_page, stacked_images
from th_jax.figures import image_grid
from th_jax.provenance import Kind, Provenance, write_image
from th_jax.provenance.write import write_page
from th_jax.render import draw_stream
from th_jax.storage.run_folder import write_whole

_IMAGE = 96
"""Minimum size in pixels to which images on the page are enlarged."""
_TARGETS_SHOWN = 4
_BY_PERSON = ("vgg16_distance", "vgg19_distance", "l1/frame", "identity/l2", "pose_error")


REPORT_FILE = "report.html"
PLOTS_FILE = "plots.svg"
IMAGES_FILE = "pictures.png"


def write_report(
    folder: Path,
    evaluation: Evaluation,
    scores: Scores,
    *,
    title: str,
    facts: Sequence[str],
    expected: Sequence[Mapping[str, Any]],
) -> tuple[str, ...]:
    """Write report.html, with its plots and images as separate files for documents that cannot embed a page.

    `facts` are sentences about the run and its weights; `expected` is the result of `expectations.judged`.

    Returns:
        The names of the files.

    Raises:
        OSError: if a file cannot be written.
    """
    sections = _sections(evaluation, scores, facts, expected)
    record = Provenance(kind=Kind.FIGURE, weights=evaluation.weights, notes="report of an evaluation, with images")
    write_page(folder / REPORT_FILE, report_page(title, sections), provenance=record)
    write_whole(str(folder / PLOTS_FILE), plots_drawing(sections).encode())
    people = dataclasses.replace(record, kind=Kind.COMPOSITE, notes="best, median and worst person of an evaluation")
    write_image(folder / IMAGES_FILE, stacked_images(sections), provenance=people, signer=evaluation.store.signer)
    return REPORT_FILE, PLOTS_FILE, IMAGES_FILE


def _sections(
    evaluation: Evaluation, scores: Scores, facts: Sequence[str], expected: Sequence[Mapping[str, Any]]
) -> list[Section]:
    return [
        Section("Measurements", facts),
        Section("Comparison with the paper's findings", _INTRODUCTION, in_words(expected)),
        Section(
            "Numbers",
            [
                "Means over frames, with 95 % bootstrap intervals over people. Frames without a detected face are "
                "scored as failures and counted.",
                *([_DISTANCE_WORDS] if scores.distances else []),
            ],
            table=[row[:2] + row[4:] for row in table_rows(scores)],
        ),
        Section("Quality against T", plots=_against_shots(scores)),
        *_against_steps(evaluation),
        Section("By person", [_BY_PERSON_WORDS], plots=_by_person(scores)),
        Section("Images", [_IMAGE_WORDS], rows=_rows(evaluation, scores)),
    ]


_INTRODUCTION = [
    "The paper's numbers are for networks at 256 pixels, meta-trained on VoxCeleb2; only the directions of "
    "differences can be compared with those here. A difference counts as confirmed if its interval, over the same "
    "frames of the same people, excludes zero. Among many intervals, some miss the true value, and intervals over "
    "fewer than about ten people are too narrow."
]
_DISTANCE_WORDS = (
    "Fréchet and kernel distances compare all N frames of a method with all real frames, in the features that "
    "they are named after. They have no interval, because resampling people makes a set narrower. A Fréchet "
    "distance is biased upward for few frames, strongly so for fewer frames than dimensions; compare only "
    "distances with equal N. A kernel distance can be negative."
)
_BY_PERSON_WORDS = "Each mark is a person, sorted by the mean over their fine-tuned frames, separately for each plot."
_IMAGE_WORDS = (
    "The best, the median and the worst person by the mean over fine-tuned frames at the largest T, in the named "
    "metric. Each row is a held-out frame."
)


def _against_shots(scores: Scores) -> list[Plot]:
    counts = sorted({count for _, count in scores.tables if count})
    methods = list(dict.fromkeys(method for method, count in rows_of(scores) if count))
    ticks = [(math.log2(count), str(count)) for count in counts]
    plots = []
    for column in columns_of(scores):
        name = shown_measure(column)
        series: dict[str, list[Point]] = {}
        levels: dict[str, float] = {}
        for method in methods:
            found = [
                (count, scores.estimates[method, count]) for count in counts if (method, count) in scores.estimates
            ]
            points = [
                Point(math.log2(count), e[name].value, e[name].low, e[name].high) for count, e in found if name in e
            ]
            series |= {method: points} if points else {}
        for method, count in scores.tables:
            if not count and name in scores.estimates[method, 0] and column not in ("l1/frame", "l1/box"):
                levels[method] = scores.estimates[method, 0][name].value
        better = "higher is better" if higher_is_better(column) else "lower is better"
        plots.append(Plot(f"{title_of(column)} ({better})", series, ticks, "T, shots", levels=levels))
    for name, head in distance_heads(scores).items():
        series = {
            method: [
                Point(math.log2(count), scores.distances[method, count][name].value, math.nan, math.nan)
                for count in counts
                if name in scores.distances.get((method, count), {})
            ]
            for method in methods
        }
        plots.append(Plot(f"{head} (lower is better)", series, ticks, "T, shots"))
    return plots


def _against_steps(evaluation: Evaluation) -> list[Section]:
    """Plot measures between chunks of fine-tuning, if measured, as means over people."""
    plots = []
    for name in ("l1/frame", "ssim"):
        series: dict[str, list[Point]] = {}
        for count in evaluation.protocol.shots:
            cells = [evaluation.store.read(OURS, count, person) for person in evaluation.people]
            curves = [cell.about["curve"] for cell in cells if cell is not None and cell.about.get("curve")]
            if curves:
                points = [
                    Point(
                        float(entries[0]["step"]),
                        float(np.mean([entry[name] for entry in entries])),
                        math.nan,
                        math.nan,
                    )
                    for entries in zip(*curves, strict=True)
                ]
                series[f"T = {count}"] = points
        if series:
            last = max(point.x for points in series.values() for point in points)
            ticks = [(step, f"{step:.0f}") for step in (0.0, last / 2, last)]
            plots.append(Plot(TITLES[name], series, ticks, "fine-tuning steps; 0 is feed-forward"))
    words = ["Means over people, measured between chunks of steps. They were not used to select a step."]
    return [Section("Quality against fine-tuning steps", words, plots=plots)] if plots else []


def _by_person(scores: Scores) -> list[Plot]:
    most = max(count for _, count in scores.tables)
    plots = []
    for column in _BY_PERSON:
        name = shown_measure(column)
        if name not in scores.tables["FT", most]:
            continue
        order = np.argsort(scores.tables["FT", most][name].mean(1))
        series = {
            method: [
                Point(float(place), float(values), math.nan, math.nan)
                for place, values in enumerate(scores.tables[method, most][name].mean(1)[order].tolist())
            ]
            for method in ("FF", "FT", "nearest_copy")
            if name in scores.tables[method, most]
        }
        ticks = [(0.0, "1"), (float(len(order) - 1), str(len(order)))]
        plots.append(Plot(f"{TITLES[column]} at T = {most}", series, ticks, "person", lines=False))
    return plots


def ranking_measure(scores: Scores) -> str:
    """Return the measure by which people are ranked: identity if people are crossed, else features or pixels."""
    most = max(count for _, count in scores.tables)
    order = ("vgg16_distance", "vgg19_distance", "l1/frame", "identity/l2/with_failures")
    return next(name for name in order if name in scores.tables["FT", most])


def _rows(evaluation: Evaluation, scores: Scores) -> list[Row]:
    most = max(count for _, count in scores.tables)
    measure = ranking_measure(scores)
    means = scores.tables["FT", most][measure].mean(1)
    order = np.argsort(means)
    named = {0: "best", len(order) // 2: "median", len(order) - 1: "worst"}
    rows = []
    for place, name in sorted(named.items()):
        person = evaluation.people[int(order[place])]
        captions, image = _images(evaluation, person, most, [m for m, c in rows_of(scores) if c == most])
        words = TITLES[measure.removesuffix("/with_failures")]
        title = f"{name}: {person.name}, {words} {means[order[place]]:.3f}, T = {most}"
        rows.append(Row(title, captions, image))
    return rows


def _images(
    evaluation: Evaluation, person: Person, count: int, methods: Sequence[str]
) -> tuple[list[str], UInt8[np.ndarray, "H W 3"]]:
    """Draw a row for each of a few targets: a shot, the driving landmarks, their source frame, and every method's frame."""
    loaded = evaluation.load(person)
    real = loaded.frames
    if person.driver is not None:
        (driver,) = (other for other in evaluation.people if other.name == person.driver)
        real = evaluation.store.read_images(REAL, 0, driver)
    frames_by_method = {
        method: baseline_frames(loaded.held(count), method)[0]
        if method in COPIES
        else evaluation.store.read_images(method, count, person)
        for method in methods
    }
    networks = evaluation.meta.networks
    drawn = list(draw_stream(loaded.landmarks, networks=networks, chunk=len(loaded.landmarks)))
    shot = np.asarray(loaded.shots.frames)[0]
    chosen = np.linspace(0, len(real) - 1, min(_TARGETS_SHOWN, len(real))).round().astype(int)
    grid = [
        [_enlarged(x) for x in (shot, drawn[t], real[t], *(frames_by_method[m][t] for m in methods))] for t in chosen
    ]
    whose = "real" if person.driver is None else "driver, real"
    return ["shot", "landmarks", whose, *methods], image_grid(grid)


def _enlarged(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "Y X 3"]:
    factor = -(-_IMAGE // frame.shape[0])
    size = frame.shape[1] * factor, frame.shape[0] * factor
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST)) if factor > 1 else frame
