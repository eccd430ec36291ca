"""A self-contained HTML report of an evaluation: sentences, tables, plots as SVG, and rows of images.

Plots and images are also available as separate files, for documents that cannot embed a page.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from th_jax.provenance.write import html_document

_WIDTH, _HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 34
_COLUMNS = 3
"""Number of plots per row in a file."""
_COLORS = ("#2f6db3", "#c8502e", "#2e8b57", "#8c8c8c", "#8e4fa8", "#b8860b", "#008b8b", "#d16ba5")

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1e1e1e; background: #fafafa; margin: 24px; max-width: 1500px }
h1 { font-size: 20px } h2 { font-size: 16px; margin-top: 30px } h3 { font-size: 13px; margin: 16px 0 4px }
p, li { max-width: 95ch } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 12px } td, th { padding: 3px 12px 3px 0; text-align: left; white-space: nowrap }
td.n { text-align: right; font-variant-numeric: tabular-nums } td small { color: #666 }
tr.last td { border-bottom: 1px solid #ccc }
figure { display: inline-block; margin: 0 22px 16px 0; vertical-align: top } figcaption { font-size: 12px; color: #444 }
svg text { font: 11px sans-serif; fill: #333 } .key span { margin-right: 16px; white-space: nowrap }
.key i { display: inline-block; width: 11px; height: 11px; margin-right: 5px }
img { display: block; max-width: 100%; image-rendering: pixelated } code { font-size: 12px }
"""


class Point(NamedTuple):
    """A value with its interval at an x position; NaN limits draw no interval."""

    x: float
    value: float
    low: float
    high: float


class Plot(NamedTuple):
    """Lines over an axis, or only markers."""

    title: str
    series: Mapping[str, Sequence[Point]]
    ticks: Sequence[tuple[float, str]]
    """Positions on the x axis with labels."""
    axis: str
    lines: bool = True
    levels: Mapping[str, float] = {}
    """Dashed horizontal lines, such as the level of real frames."""


class Row(NamedTuple):
    """Images side by side under a heading."""

    title: str
    captions: Sequence[str]
    image: UInt8[np.ndarray, "H W 3"]


class Section(NamedTuple):
    """A section of the page, with its elements in this order."""

    title: str
    sentences: Sequence[str] = ()
    points: Sequence[str] = ()
    """Items of a list."""
    table: Sequence[Sequence[str]] = ()
    """Header row first; text in the first two columns, numbers in the others."""
    plots: Sequence[Plot] = ()
    rows: Sequence[Row] = ()


def report_page(title: str, sections: Iterable[Section]) -> str:
    """Render the page as text. All names are untrusted and are escaped; the page loads and runs nothing.

    Colors belong to names: a series has the same color in every plot of a section.
    """
    return html_document(title, _STYLE, (part for section in sections for part in _section(section)))


def plots_drawing(sections: Iterable[Section]) -> str:
    """Render the plots of some sections as one SVG file, each section under its title, with the page's colors."""
    parts: list[str] = []
    top = 0
    for section in sections:
        plots, names = section.plots, _names(section)
        if not plots:
            continue
        parts.append(f'<text x="{_LEFT}" y="{top + 20}" font-weight="bold">{escape(section.title)}</text>')
        for place, name in enumerate(names if len(names) > 1 else ()):
            x = _LEFT + 110 * place
            parts.append(f'<rect x="{x}" y="{top + 30}" width="11" height="11" fill="{_color(names, name)}"/>')
            parts.append(f'<text x="{x + 16}" y="{top + 40}">{escape(name)}</text>')
        top += 52
        for place, plot in enumerate(plots):
            row, column = divmod(place, _COLUMNS)
            drawn = "".join(_drawn_plot(plot, names)) or f'<text x="{_LEFT}" y="40">no values</text>'
            caption = f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT + 14}" text-anchor="middle">{escape(plot.title)}</text>'
            at = f"translate({column * _WIDTH},{top + row * (_HEIGHT + 30)})"
            parts.append(f'<g transform="{at}">{drawn}{caption}</g>')
        top += -(-len(plots) // _COLUMNS) * (_HEIGHT + 30) + 10
    width = _COLUMNS * _WIDTH
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}">'
    style = "<style>text { font: 11px sans-serif; fill: #333 } text[font-weight] { font: bold 13px sans-serif }</style>"
    return "\n".join([head, style, f'<rect width="{width}" height="{top}" fill="#fff"/>', *parts, "</svg>", ""])


def stacked_images(sections: Iterable[Section], *, gap: int = 12) -> UInt8[np.ndarray, "H W 3"]:
    """Stack the image rows of some sections vertically, with white gaps.

    Raises:
        ValueError: if there are none.
    """
    images = [row.image for section in sections for row in section.rows]
    if not images:
        raise ValueError("there are no images to stack")
    width = max(image.shape[1] for image in images)
    padded = [np.pad(p, ((0, gap), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in images]
    return np.concatenate(padded)[:-gap]


def _names(section: Section) -> list[str]:
    """Return the names of all series, in order of appearance."""
    return list(dict.fromkeys(name for plot in section.plots for name in plot.series))


def _section(section: Section) -> list[str]:
    parts = [f"<h2>{escape(section.title)}</h2>", *(f"<p>{escape(sentence)}</p>" for sentence in section.sentences)]
    if section.points:
        parts.append("<ul>" + "".join(f"<li>{escape(point)}</li>" for point in section.points) + "</ul>")
    if section.table:
        parts.append(_table(section.table))
    names = _names(section)
    if len(names) > 1:
        keys = (f'<span><i style="background: {_color(names, name)}"></i>{escape(name)}</span>' for name in names)
        parts.append(f'<p class="key">{"".join(keys)}</p>')
    parts += [_figure(plot, names) for plot in section.plots]
    for row in section.rows:
        caption = " · ".join(row.captions)
        tag = f'<img src="{_data_uri(row.image)}" alt="{escape(caption)}">'
        parts.append(f"<h3>{escape(row.title)}</h3><figure>{tag}<figcaption>{escape(caption)}</figcaption></figure>")
    return parts


def _table(rows: Sequence[Sequence[str]]) -> str:
    heads, *lines = rows
    cells = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = []
    for place, line in enumerate(lines):
        last = place + 1 == len(lines) or lines[place + 1][0] != line[0]
        texts = [f"<td>{escape(text)}</td>" for text in line[:2]]
        for text in line[2:]:  # the interval is printed smaller than its value
            value, bracket, interval = text.partition(" [")
            texts.append(f'<td class="n">{escape(value)}<small>{escape(bracket + interval)}</small></td>')
        body.append(f"<tr{' class=last' if last else ''}>{''.join(texts)}</tr>")
    return f'<div class="wide"><table><tr>{cells}</tr>{"".join(body)}</table></div>'


def _figure(plot: Plot, names: Sequence[str]) -> str:
    caption, drawn = f"<figcaption>{escape(plot.title)}</figcaption>", _drawn_plot(plot, names)
    if not drawn:
        return f"<figure>{caption}<p>no values</p></figure>"
    svg = f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(plot.title)}">'
    return f"<figure>{svg}{''.join(drawn)}</svg>{caption}</figure>"


def _drawn_plot(plot: Plot, names: Sequence[str]) -> list[str]:
    """Render the contents of a plot; empty if it has no values."""
    known = [p for points in plot.series.values() for p in points if math.isfinite(p.value)]
    if not known:
        return []
    values = [v for p in known for v in (p.value, p.low, p.high) if math.isfinite(v)]
    values += [level for level in plot.levels.values() if math.isfinite(level)]
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or max(abs(high), 1e-3) * 0.1
    low, high = low - room, high + room
    places = [place for place, _ in plot.ticks]
    first, last = min(places), max(places)

    def across(x: float) -> float:
        inner = _WIDTH - _LEFT - _RIGHT - 30
        return _LEFT + 15 + (inner * (x - first) / (last - first) if last > first else inner / 2)

    def down(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = []
    for value in _round_values(low, high):
        y = down(value)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e2e2"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for place, name in plot.ticks:
        parts.append(f'<text x="{across(place):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(plot.axis)}</text>')
    for name, level in plot.levels.items():
        if math.isfinite(level):
            y = down(level)
            parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#888" stroke-dasharray="5 4"/>'
                f'<text x="{_WIDTH - _RIGHT}" y="{y - 3:.1f}" text-anchor="end">{escape(name)}</text>'
            )
    for name, points in plot.series.items():
        shift = 2.5 * (names.index(name) - (len(names) - 1) / 2) if plot.lines else 0.0
        parts += _drawn_series(
            name, [(across(p.x) + shift, p) for p in points if math.isfinite(p.value)], down,
            color=_color(names, name), lines=plot.lines,
        )  # fmt: skip
    return parts


def _drawn_series(
    name: str, points: Sequence[tuple[float, Point]], down: Callable[[float], float], *, color: str, lines: bool
) -> list[str]:
    parts = []
    if lines and len(points) > 1:
        path = " ".join(f"{x:.1f},{down(p.value):.1f}" for x, p in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    for x, p in points:
        if math.isfinite(p.low) and math.isfinite(p.high):
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{down(p.low):.1f}" y2="{down(p.high):.1f}" stroke="{color}"/>'
            )
        title = f"<title>{escape(name)}: {p.value:.4g}</title>"
        parts.append(f'<circle cx="{x:.1f}" cy="{down(p.value):.1f}" r="3" fill="{color}">{title}</circle>')
    return parts


def _round_values(low: float, high: float) -> list[float]:
    """Return three to six round numbers between two values."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(step * part for part in (1.0, 0.5, 0.2, 0.1) if (high - low) / (step * part) >= 3)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _color(names: Sequence[str], name: str) -> str:
    return _COLORS[names.index(name) % len(_COLORS)]


def _data_uri(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """Encode as PNG: JPEG would change small images by more than systems differ."""
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()
