"""The self-contained HTML page about a data set: counts, histograms, drops with their reasons, and frames."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.build.drop_report import LEVELS, Drop
from data_prep.build.quality import Thresholds
from data_prep.inspect.measures import YAW_EDGES, Measures, histogram, spread
from th_jax.data.episodes import decode_frame
from th_jax.data.schema import VideoRecord
from th_jax.landmarks.scheme import known_points, segments
from th_jax.media import IMAGE_SUFFIXES, MediaError, open_video, read_image
from th_jax.media.isolation import ProcessLimits, run_limited
from th_jax.provenance.write import html_document

CELL = 144
"""Side of a frame on the sheet in pixels."""

MARGIN = 6
PAPER = (250, 250, 250)
_SUBPIXEL_BITS = 4
_LIMITS = ProcessLimits(memory=2**32, cpu_seconds=20.0, seconds=20.0)
"""Limits of reading one dropped frame."""


def frame_row(record: VideoRecord, *, columns: int, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a row of frames of one video, spread over it, with landmarks; the width is constant."""
    row = np.full((CELL, columns * (CELL + MARGIN) - MARGIN, 3), PAPER, np.uint8)
    for column, index in enumerate(spread(len(record.frames), columns)):
        full = decode_frame(record.frames[index], size=side)
        frame = cv2.resize(full, (CELL, CELL), interpolation=cv2.INTER_CUBIC if side < CELL else cv2.INTER_AREA)
        left = column * (CELL + MARGIN)
        row[:, left : left + CELL] = draw_lines(frame, record.landmarks[index])
    return row


def draw_lines(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "P 2"]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the known landmarks' segments as thin colored lines on a copy of the frame."""
    drawn, strokes = frame.copy(), segments(len(landmarks))
    known = known_points(landmarks)
    scale = np.array(frame.shape[1::-1]) * 2**_SUBPIXEL_BITS
    places = np.where(known[:, None], landmarks * scale - 2 ** (_SUBPIXEL_BITS - 1), 0).round().astype(int)
    for start, end, color in zip(strokes.start, strokes.end, strokes.color, strict=True):
        if known[start] and known[end]:
            rgb = [int(255 * value) for value in color]
            a, b = places[start].tolist(), places[end].tolist()
            cv2.line(drawn, a, b, rgb, 1, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return drawn


def dropped_frame(source: Path, drop: Drop) -> UInt8[np.ndarray, "H W 3"] | None:
    """Read the frame of a drop from the source folder, reduced; None if it is not a frame or cannot be read.

    It is read in an isolated process, because files may have been dropped for crashing their reader.
    """
    path = (source / drop.path).resolve()
    is_photo = path.suffix.lower() in IMAGE_SUFFIXES
    if not path.is_relative_to(source.resolve()) or (drop.time is None and not is_photo):
        return None
    try:
        return run_limited(read_reduced, path, None if is_photo else drop.time, within=_LIMITS)
    except (MediaError, OSError, RuntimeError):
        return None


def read_reduced(path: Path, time: float | None) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo, or the frame of a video at a time in seconds, at most `CELL` pixels high.

    Raises:
        MediaError: if it cannot be read.
    """
    if time is None:
        frame = read_image(path)
    else:
        with open_video(path) as video:
            _, frame = next(video.frames_at([time]))
    height, width = frame.shape[:2]
    if height <= CELL:
        return frame
    size = (min(4 * CELL, max(1, round(width * CELL / height))), CELL)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def data_uri(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """Encode an image as a JPEG in a data URI."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


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
    """A histogram; `edges` has one more entry than `counts`, and `mark` is a threshold."""

    title: str
    counts: Int[np.ndarray, " B"]
    edges: Float[np.ndarray, " E"]
    mark: float | None = None
    note: str = ""


class Dropped(NamedTuple):
    """Number of drops by level and reason, and examples with images where available."""

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
    """Format the page; all names are escaped.

    `facts` are sentences below the heading; the table of splits has its headings first.
    """
    heading, *lines = splits
    parts = [
        *(f"<p>{escape(fact)}</p>" for fact in facts),
        _table(heading, lines),
        "<h2>Measures</h2>",
        *(_figure(chart) for chart in charts),
        "<h2>Left out</h2>",
        *_dropped_parts(dropped),
        "<h2>Frames</h2>",
    ]
    for row in rows:
        image = f'<img src="{data_uri(row.frames)}" alt="frames with landmarks">'
        parts += [f"<h3>{escape(row.title)}</h3>", image]
    return html_document(title, _STYLE, parts)


def charts_of(measures: Measures, *, frames: Sequence[int], videos_of_people: Sequence[int]) -> list[Chart]:
    """Compute the histograms of a split, from the number of frames of each video and of videos of each person."""
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
    """Return the edges of 24 bins of whole pixels, from 0 to the 99th percentile."""
    known = values[np.isfinite(values)]
    most = float(np.percentile(known, 99)) if len(known) else 0.0
    return np.arange(25.0) * max(np.ceil(most / 24), 1.0)


def _counted(title: str, numbers: Sequence[int]) -> Chart:
    """Compute a histogram of integers, with one bar per value if there are few."""
    most = max(numbers, default=1)
    step = int(np.ceil(most / 40))
    edges = np.arange(0.5, max(most, 12) + step + 0.5, step)
    return Chart(title, histogram(np.array(numbers, np.float64), edges), edges)


def _figure(chart: Chart) -> str:
    """Format a histogram as inline SVG, with its number of values."""
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
    """Return position, anchor and text of the axis labels: values at edges, or integers below their bars."""
    bars, width = len(chart.counts), _WIDTH / len(chart.counts)
    if float(chart.edges[0]) % 1 == 0.5:
        return [(width * (bar + 0.5), "middle", f"{chart.edges[bar] + 0.5:g}") for bar in (0, bars // 2, bars - 1)]
    low, high = float(chart.edges[0]), float(chart.edges[-1])
    shares = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    return [(share * _WIDTH, anchor, f"{low + share * (high - low):.3g}") for share, anchor in shares]


def _dropped_parts(dropped: Dropped | None) -> Iterable[str]:
    if dropped is None:
        return ["<p>There is no drop report.</p>"]
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
        for drop, image in dropped.examples.get(reason, ()):
            tag = "" if image is None else f'<img src="{data_uri(image)}" alt="{escape(reason)}">'
            parts.append(f"<figure>{tag}<figcaption>{escape(_described(drop))}</figcaption></figure>")
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
    """Format a table with text in the first column and numbers in the others."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in heading)
    body = "".join(
        f"<tr><td>{escape(first)}</td>" + "".join(f'<td class="n">{escape(value)}</td>' for value in rest) + "</tr>"
        for first, *rest in lines
    )
    return f"<table><tr>{cells}</tr>{body}</table>"
