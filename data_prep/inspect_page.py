"""One HTML page about a data set that loads nothing: counts, histograms, what was dropped and why, and frames."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.inspect_measures import YAW_EDGES, Measures, histogram
from data_prep.inspect_pictures import data_uri
from data_prep.manifest import LEVELS, Drop
from data_prep.quality import Thresholds

_WIDTH, _HEIGHT, _FLOOR = 360, 150, 128

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1e1e1e; background: #fafafa; margin: 24px; max-width: 1900px }
h1 { font-size: 20px } h2 { font-size: 16px; margin-top: 28px } h3 { font-size: 13px; margin: 14px 0 4px }
table { border-collapse: collapse } td, th { padding: 2px 14px 2px 0; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } small { color: #666 }
figure { display: inline-block; margin: 0 18px 12px 0 } figcaption { font-size: 12px; color: #444; max-width: 360px }
svg rect { fill: #5a78aa } svg line { stroke: #b03030; stroke-dasharray: 4 3 } svg text { font: 11px sans-serif }
svg .most { fill: #888 }
img { display: block; max-width: 100% }
"""


class Chart(NamedTuple):
    """A histogram: `edges` has one more entry than there are bars; `mark` is a threshold's place on it."""

    title: str
    counts: Int[np.ndarray, " B"]
    edges: Float[np.ndarray, " E"]
    mark: float | None = None
    note: str = ""


class Dropped(NamedTuple):
    """How often each reason occurs at each level, and a few drops of each, with pictures where there are any."""

    counts: Mapping[tuple[str, str], int]
    examples: Mapping[str, Sequence[tuple[Drop, UInt8[np.ndarray, "H W 3"] | None]]]


class Row(NamedTuple):
    """One video on the contact sheet."""

    title: str
    frames: UInt8[np.ndarray, "H W 3"]


def page(
    title: str,
    *,
    facts: Sequence[str],
    splits: Sequence[tuple[str, ...]],
    charts: Iterable[Chart],
    dropped: Dropped | None,
    rows: Iterable[Row],
) -> str:
    """The page as text. All names come from files, and are escaped.

    Args:
        title: its heading.
        facts: sentences below it.
        splits: the table of splits, headings first.
        charts: drawn side by side.
        dropped: None without a manifest.
        rows: the contact sheet.
    """
    heading, *lines = splits
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        # Whatever a name in the data holds: nothing is fetched, nothing runs.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(fact)}</p>" for fact in facts),
        _table(heading, lines),
        "<h2>Measures</h2>",
        *(_figure(chart) for chart in charts),
        "<h2>Left out</h2>",
        *_dropped_parts(dropped),
        "<h2>Frames</h2>",
    ]
    for row in rows:
        picture = f'<img src="{data_uri(row.frames)}" alt="frames with landmarks">'
        parts += [f"<h3>{escape(row.title)}</h3>", picture]
    return "\n".join([*parts, "</body></html>", ""])


def charts_of(measures: Measures, *, frames: Sequence[int], videos_of_people: Sequence[int]) -> list[Chart]:
    """The histograms of a split; `frames` is that of each video, `videos_of_people` how many each person has."""
    turns, tilts = YAW_EDGES, np.arange(-32.5, 33.0, 5.0)
    sizes, thresholds = _bins(measures.size), Thresholds()
    sharp = np.linspace(0.0, 1.2, 25)
    note = "of stored frames; the threshold is for those of the source"
    return [
        Chart("turn of the head, degrees, + to the right", histogram(measures.yaw, turns), turns),
        Chart("tilt of the head, degrees, + clockwise", histogram(measures.roll, tilts), tilts),
        Chart("size of the face in the source, pixels", histogram(measures.size, sizes), sizes, thresholds.face),
        Chart("sharpness", histogram(measures.sharpness, sharp), sharp, thresholds.sharpness, note),
        _counted("frames a video", frames),
        _counted("videos a person", videos_of_people),
    ]


def _bins(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " E"]:
    """24 bins of whole pixels from 0 to what all but one in a hundred values lie below."""
    known = values[np.isfinite(values)]
    most = float(np.percentile(known, 99)) if len(known) else 0.0
    return np.arange(25.0) * max(np.ceil(most / 24), 1.0)


def _counted(title: str, numbers: Sequence[int]) -> Chart:
    """A histogram of whole numbers, with a bar for each where they are few."""
    most = max(numbers, default=1)
    step = int(np.ceil(most / 40))
    edges = np.arange(0.5, max(most, 12) + step + 0.5, step)
    return Chart(title, histogram(np.array(numbers, np.float64), edges), edges)


def _figure(chart: Chart) -> str:
    """The histogram as inline SVG, with its number of values."""
    total, most = int(chart.counts.sum()), max(int(chart.counts.max(initial=0)), 1)
    low, high = float(chart.edges[0]), float(chart.edges[-1])
    across = (chart.edges - low) / (high - low) * _WIDTH
    parts = [f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(chart.title)}">']
    for left, right, count in zip(across[:-1], across[1:], chart.counts, strict=True):
        if not count:
            continue
        height = (_FLOOR - 16) * int(count) / most
        title = f"<title>{int(count)}</title>"
        place = f'x="{left + 0.5:.1f}" y="{_FLOOR - height:.1f}" width="{max(right - left - 1, 0.5):.1f}"'
        parts.append(f'<rect {place} height="{height:.1f}">{title}</rect>')
    parts += [
        f'<text x="{x:.0f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{name}</text>' for x, anchor, name in _ticks(chart)
    ]
    parts.append(f'<text class="most" x="{_WIDTH}" y="10" text-anchor="end">{most}</text>')
    if chart.mark is not None and low <= chart.mark <= high:
        x = (chart.mark - low) / (high - low) * _WIDTH
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{_FLOOR}"><title>least {chart.mark:g}</title></line>')
    note = f"; {escape(chart.note)}" if chart.note else ""
    caption = f"<figcaption>{escape(chart.title)} <small>({total} values{note})</small></figcaption>"
    return f"<figure>{''.join(parts)}</svg>{caption}</figure>"


def _ticks(chart: Chart) -> Iterable[tuple[float, str, str]]:
    """Place, anchor and text of the axis' names: values at edges, or whole numbers below the bars that count them."""
    bars, width = len(chart.counts), _WIDTH / len(chart.counts)
    if float(chart.edges[0]) % 1 == 0.5:
        return [(width * (bar + 0.5), "middle", f"{chart.edges[bar] + 0.5:g}") for bar in (0, bars // 2, bars - 1)]
    low, high = float(chart.edges[0]), float(chart.edges[-1])
    shares = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    return [(share * _WIDTH, anchor, f"{low + share * (high - low):.3g}") for share, anchor in shares]


def _dropped_parts(dropped: Dropped | None) -> Iterable[str]:
    if dropped is None:
        return ["<p>There is no manifest.</p>"]
    if not dropped.counts:
        return ["<p>Nothing.</p>"]
    totals: dict[str, int] = {}
    for (_, reason), count in dropped.counts.items():
        totals[reason] = totals.get(reason, 0) + count
    reasons = sorted(totals, key=lambda reason: (-totals[reason], reason))
    lines = [(reason, *(str(dropped.counts.get((level, reason), "")) for level in LEVELS)) for reason in reasons]
    parts = [_table(("reason", *(f"{level}s" for level in LEVELS)), lines)]
    for reason in reasons:
        parts.append(f"<h3>{escape(reason)}</h3>")
        for drop, picture in dropped.examples.get(reason, ()):
            image = "" if picture is None else f'<img src="{data_uri(picture)}" alt="{escape(reason)}">'
            parts.append(f"<figure>{image}<figcaption>{escape(_described(drop))}</figcaption></figure>")
    return parts


def _described(drop: Drop) -> str:
    time = "" if drop.time is None else f" at {drop.time:.2f} s"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in drop.numbers.items())
    return (
        f"{drop.level} {drop.path}{time}"
        + (f": {numbers}" if numbers else "")
        + (f". {drop.detail}" * bool(drop.detail))
    )


def _table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in heading)
    body = "".join(
        f"<tr><td>{escape(first)}</td>" + "".join(f'<td class="n">{escape(value)}</td>' for value in rest) + "</tr>"
        for first, *rest in lines
    )
    return f"<table><tr>{cells}</tr>{body}</table>"
