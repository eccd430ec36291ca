"""Detects and reads marks in images and videos of any size, with a bound on the chance of false detections. No JAX.

The chip values of an unmarked image do not depend on the key. For one message at one place, whatever the image shows,
sum(sign * value) / norm(value) is thus a sum of terms with independent random signs, and Hoeffding's inequality (1963)
bounds the chance that it reaches z by exp(-z^2 / 2). The reported bound is this, times the number of all messages,
places and sizes that the search can try (Bonferroni).
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from th_jax.provenance.watermark.layout import LAYOUTS, PUBLIC_KEY, SMALL, STILL, Layout, decode
from th_jax.provenance.watermark.search import REFINEMENTS, Chart, Place, Size, places_tried, read_chips, refine, scan
from th_jax.provenance.watermark.view import View, view_of

FALSE_FINDS = 1e-6
"""Upper bound on the chance of any detection in an unmarked image or video."""

BUDGET = 60_000_000
"""Maximum number of places compared in one image; mark sizes beyond it are left out, the least likely ones first."""

WINDOW = 25
"""Number of video frames pooled in the first search; later searches pool 1, 2, 4... times as many new ones."""

LOOKS = 6
"""Number of searches of a video without a mark: 800 frames."""

_MIN_SCORE = 4.5
"""Minimum score of the common chips for a place to be read. Images without a mark have one such place in 300,000."""

_MAX_PLACES, _MAX_READ = 100, 400
"""Maximum number of places read at one size, and in total, which bounds the time for adversarial images."""

_BY_CHIPS = {SMALL.chips: SMALL, STILL.chips: STILL}
"""Layouts with the same number of chips share the chips that are searched for."""


class FoundMark(NamedTuple):
    """A mark that was read. Its place is in pixels of the image and may extend beyond it."""

    message: int
    bits: int
    """Size of the message: 48 bits for videos, 32 for stills."""
    left: float
    top: float
    side: float
    log10_chance: float
    """Log10 of the upper bound on the chance of such a detection in an unmarked image."""
    doubt: float = 0.0
    """Estimated chance that there is a mark with another message, because little of the mark survived."""


class Findings(NamedTuple):
    """Result of a search."""

    marks: tuple[FoundMark, ...]
    """Marks, most certain first. No mark's center lies inside the middle of another."""
    complete: bool
    """False if sizes (in very large images) or places were left out, or if a video continued after the last search."""


def _sizes_made() -> tuple[Size, ...]:
    return Size(SMALL.chips, 64.0), Size(STILL.chips, 128.0), Size(STILL.chips, 256.0)


def _common_resizes() -> tuple[Size, ...]:
    scales = (0.75, 0.5, 1.5, 2.0, 2 / 3, 4 / 3)
    return tuple(Size(chips, side * scale) for scale in scales for chips, side in _sizes_made() if side * scale >= 45)


def _sizes_between() -> tuple[Size, ...]:
    """Return sizes from 0.7 times the smallest to twice the largest per number of chips.

    Sizes close to those at which marks are made come first.
    """
    step, sizes = 0.02, []
    for chips, low, high in ((SMALL.chips, 45.0, 128.0), (STILL.chips, 90.0, 512.0)):
        sizes += [Size(chips, low * math.exp(step * n)) for n in range(math.ceil(math.log(high / low) / step) + 1)]
    made = _sizes_made()
    return tuple(sorted(sizes, key=lambda s: min(abs(math.log(s.side / m.side)) for m in made if m.chips == s.chips)))


_STAGES = (_sizes_made(), _common_resizes(), _sizes_between())
_SHARES = 1 + len(_STAGES)
"""The chance of a false detection is divided equally between the stages and the reading of the image as one mark."""


def detect(image: Any, *, key: bytes = PUBLIC_KEY, false_finds: float = FALSE_FINDS) -> Findings:
    """Detect all marks in a UInt8 `[H, W, 3]` RGB image of any size.

    First the whole image is read as one mark. Then the sizes at which marks are made, their common resizes, and sizes
    in between are searched, up to the first stage that finds a mark. A mark is found if half of its side lies inside
    the image and enough of it has survived, but not if it was rotated, mirrored or distorted.

    Args:
        image: image to search.
        key: key with which the marks were made.
        false_finds: upper bound on the chance of any detection in an unmarked image.

    Raises:
        ValueError: if the type or shape is wrong, or the chance is outside (0, 1).
    """
    if not 0.0 < false_finds < 1.0:
        raise ValueError(f"false_finds must be a probability between 0 and 1, got {false_finds}")
    view = view_of([image])
    assert view is not None
    return _search(view, key, math.log(false_finds))


def detect_video(frames: Iterable[Any]) -> Findings:
    """Detect the marks of a video, pooled over 25 frames, and if there are none, over the next 25, 50, and so on up to 400.

    Frames are consumed one by one, and no more than needed; memory does not grow with their number. A video without
    frames has no marks.

    Raises:
        ValueError: if frames are not UInt8 `[H, W, 3]`, or have different sizes.
    """
    complete, rest = True, iter(frames)
    for look in range(LOOKS):
        view = view_of(itertools.islice(rest, WINDOW * 2 ** max(0, look - 1)), sizes=_followed)
        if view is None:
            return Findings((), complete)
        findings = _search(view, PUBLIC_KEY, math.log(FALSE_FINDS), log_looks=math.log(LOOKS))
        complete &= findings.complete
        if findings.marks:
            return findings
    return Findings((), complete and next(rest, None) is None)


def _followed(shape: tuple[int, int]) -> list[Size]:
    """Return the sizes for which charts of single frames are worth their cost."""
    return _whole_sizes(shape) + [size for size in _sizes_made() if places_tried(shape, size)]


def _whole_sizes(shape: tuple[int, int]) -> list[Size]:
    """Return the sizes of a mark that fills the image, if the image is square up to one row."""
    height, width = shape
    return [Size(chips, float(width)) for chips in _BY_CHIPS] if abs(height - width) <= 1 else []


def _search(view: View, key: bytes, log_chance: float, *, log_looks: float = 0.0) -> Findings:
    log_tries = log_looks + math.log(_SHARES * len(LAYOUTS))
    shape, limit = view.luma.shape, log_chance / math.log(10)
    places_left, reads_left, complete = BUDGET, _MAX_READ, True
    marks = _read_whole(view, key, log_tries)
    for stage in _STAGES:
        marks = _surest(mark for mark in marks if mark.log10_chance <= limit)
        if marks:
            break
        tried = [places_tried(shape, size) for size in stage]
        log_tried = log_tries + math.log(max(1, sum(tried)) * REFINEMENTS)
        for size, places in zip(stage, tried, strict=True):
            if not 0 < places <= places_left or not reads_left:
                complete &= not places
                continue
            places_left -= places
            chart, layout = view.chart(size), _BY_CHIPS[size.chips]
            for place in scan(chart, layout=layout, key=key, count=min(_MAX_PLACES, reads_left), least=_MIN_SCORE):
                reads_left -= 1
                refined = refine(chart, place, layout=layout, key=key)
                marks.append(_read(chart, refined, size.chips, key, log_tried))
    found = _surest(mark for mark in marks if mark.log10_chance <= limit)
    return Findings(tuple(_in_pixels(mark, view.reduction) for mark in found), complete)


def _read_whole(view: View, key: bytes, log_tries: float) -> list[FoundMark]:
    """Read the whole image as one mark; with so few attempts, faint marks can be distinguished from chance."""
    return [
        _read(view.chart(size), Place(0.0, 0.0, size.side, 0.0), size.chips, key, log_tries)
        for size in _whole_sizes(view.luma.shape)
    ]


def _surest(marks: Iterable[FoundMark]) -> list[FoundMark]:
    """Sort by certainty and drop marks that overlap a more certain one: a mark is found at several sizes."""
    chosen: list[FoundMark] = []
    for mark in sorted(marks, key=lambda mark: mark.log10_chance):
        if not any(_overlap(mark, other) for other in chosen):
            chosen.append(mark)
    return chosen


def _read(chart: Chart, place: Place, chips: int, key: bytes, log_tries: float) -> FoundMark:
    """Read the most likely mark at this place, over all layouts with this number of chips."""
    values = read_chips(chart, place, layout=_BY_CHIPS[chips])
    norm = float(np.linalg.norm(values))
    return min(
        (_mark(layout, values, norm, key, place, log_tries) for layout in LAYOUTS if layout.chips == chips),
        key=lambda mark: mark.log10_chance,
    )


def _mark(layout: Layout, values: np.ndarray, norm: float, key: bytes, place: Place, log_tries: float) -> FoundMark:
    word = decode(values, layout=layout, key=key)
    score = word.total / norm if norm > 0 else 0.0
    log_chance = min(0.0, log_tries + layout.bits * math.log(2) - score**2 / 2)
    chance = log_chance / math.log(10)
    return FoundMark(word.message, layout.bits, place.left, place.top, place.side, chance, word.doubt)


def _overlap(one: FoundMark, other: FoundMark) -> bool:
    apart = max(abs(one.left - other.left), abs(one.top - other.top))
    return apart < 0.5 * max(one.side, other.side)


def _in_pixels(mark: FoundMark, reduction: float) -> FoundMark:
    return mark._replace(left=mark.left / reduction, top=mark.top / reduction, side=mark.side / reduction)
