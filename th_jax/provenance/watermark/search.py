"""Searches an image for the chips common to all marks, at one mark size and every position. No JAX."""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32

from th_jax.provenance.watermark.layout import PUBLIC_KEY, SMALL, Layout, carriers_of

_PITCH = 2
"""Pixels per chip in the resized image, so that the positions tried are half a chip apart."""

# Parameters of whitening, in pixels of the resized image and gray levels, tuned on marked heads and videos after JPEG
# and H.264. The few chips of a small mark are closer to the content that masks them.
_NEAR, _NEAR_SMALL, _AROUND, _NOISE = 1.0, 0.7, 1.0, 0.5
_FLATTENING = 1.5

_MIN_INSIDE = 0.5
"""Minimum share of a mark's side that must lie inside the image."""

_ROUNDS = (1.0, 0.5, 0.25)
_STRETCH = 0.0075
REFINEMENTS = 8 * 8 * 27
"""Number of places, an eighth of the scan's step apart, and sizes that refinement can reach from each place of the scan."""


class Size(NamedTuple):
    """A mark size to search for."""

    chips: int
    """Number of chips per row."""
    side: float
    """Side in pixels of the image."""


class Place(NamedTuple):
    """A possible place of a mark, in pixels of the image; it may extend beyond the image."""

    left: float
    top: float
    side: float
    score: float
    """Sum of the common chips' signed values over their norm: has standard deviation 1 in an image without a mark."""


class Chart(NamedTuple):
    """An image converted to chip values."""

    values: Float32[np.ndarray, "Y X"]
    """Value of a mark's first chip, if its corner lies at column / scale_x, row / scale_y of the image."""
    scale_x: float
    scale_y: float


def chart_of(luma: Float32[np.ndarray, "H W"], size: Size) -> Chart:
    """Convert an image to chip values for marks of this size: whiten it, and filter it with a chip's shape.

    Correlation is disturbed least if the image resembles uniform noise. Every pixel therefore becomes its difference
    from its neighborhood, divided by their local spread, so that edges weigh little more than skin.
    """
    height, width = luma.shape
    rows, columns = (_extent(length, size) for length in luma.shape)
    method = cv2.INTER_AREA if columns < width else cv2.INTER_CUBIC
    small = cv2.resize(luma, (columns, rows), interpolation=method)
    near = _NEAR_SMALL if size.chips == SMALL.chips else _NEAR
    rest = small - cv2.GaussianBlur(small, (0, 0), near)
    rest /= (cv2.GaussianBlur(rest * rest, (0, 0), _AROUND) + _NOISE**2) ** (_FLATTENING / 2)
    bump = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    values = cv2.sepFilter2D(rest, -1, bump, bump, anchor=(1, 1), borderType=cv2.BORDER_CONSTANT)
    return Chart(values, columns / width, rows / height)


def places_tried(shape: tuple[int, int], size: Size) -> int:
    """Return the number of places that a scan of an image of this shape compares; 0 if too little of a mark fits."""
    if min(shape) < _MIN_INSIDE * size.side:
        return 0
    kept = [-(-_extent(length, size) // _PITCH) + 2 * _padding(size.chips) - size.chips + 1 for length in shape]
    return math.prod(_PITCH * max(0, count) for count in kept)


def scan(chart: Chart, *, layout: Layout, count: int, least: float, key: bytes = PUBLIC_KEY) -> list[Place]:
    """Find the best places for a mark, best first: at most `count`, with scores of at least `least`, half a mark apart.

    Layouts with the same number of chips share the chips compared here, so that any of them can be given.
    """
    pad, chips = _padding(layout.chips), layout.chips
    phases = _phases(chart.values, pad)
    kept = tuple(length - chips + 1 for length in phases.shape[1:])
    if min(kept) < 1:
        return []
    # No sum that is kept extends beyond the padded image, so that nothing wraps around.
    size = tuple(cv2.getOptimalDFTSize(length) for length in phases.shape[1:])
    sums = np.fft.irfft2(np.fft.rfft2(phases, s=size) * _spectrum(layout, key, size), s=size)[:, : kept[0], : kept[1]]
    # The common chips are a random sample of all: the power of all chips estimates theirs, and is fast to sum.
    power = np.stack(
        [cv2.boxFilter(phase * phase, -1, (chips, chips), anchor=(0, 0), normalize=False) for phase in phases]
    )
    power = power[:, : kept[0], : kept[1]] * (layout.sync / chips**2)
    # Sums have rounding errors everywhere: blank places must not divide by them.
    found = sums / np.sqrt(np.maximum(power, 1e-3 * power.max() + 1e-6))
    scores = found.reshape(_PITCH, _PITCH, *kept).transpose(2, 0, 3, 1).reshape(_PITCH * kept[0], _PITCH * kept[1])
    places: list[Place] = []
    while len(places) < count:
        row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
        score = float(scores[row, column])
        if score < least:
            break
        left, top = (int(column) - _PITCH * pad) / chart.scale_x, (int(row) - _PITCH * pad) / chart.scale_y
        places.append(Place(left, top, _PITCH * chips / chart.scale_x, score))
        scores[max(0, row - chips) : row + chips + 1, max(0, column - chips) : column + chips + 1] = -np.inf
    return places


def read_chips(chart: Chart, place: Place, *, layout: Layout) -> Float32[np.ndarray, "N N"]:
    """Read the chip values of a mark at this place; 0 outside the image."""
    steps = np.arange(layout.chips) * (place.side / layout.chips)
    x = ((place.left + steps) * chart.scale_x).astype(np.float32)
    y = ((place.top + steps) * chart.scale_y).astype(np.float32)
    across, down = np.meshgrid(x, y)
    return cv2.remap(chart.values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def refine(chart: Chart, place: Place, *, layout: Layout, key: bytes = PUBLIC_KEY) -> Place:
    """Refine the place and size, between those of the scan, for the best agreement of the common chips."""
    signs, block, _ = carriers_of(layout, key=key)
    common = block < 0
    best = place._replace(score=_agreement(read_chips(chart, place, layout=layout), signs, common))
    for step in _ROUNDS:
        middle = best
        for stretch, down, across in np.ndindex(3, 3, 3):
            side = middle.side * (1 + step * _STRETCH * (stretch - 1))
            # Scaled about its center: otherwise the best shift would depend on the scale.
            left = middle.left + (middle.side - side) / 2 + 0.5 * step * (across - 1) / chart.scale_x
            top = middle.top + (middle.side - side) / 2 + 0.5 * step * (down - 1) / chart.scale_y
            tried = Place(left, top, side, 0.0)
            score = _agreement(read_chips(chart, tried, layout=layout), signs, common)
            if score > best.score:
                best = tried._replace(score=score)
    return best


def _agreement(values: np.ndarray, signs: np.ndarray, common: np.ndarray) -> float:
    chosen = values[common]
    norm = float(np.linalg.norm(chosen))
    return float(chosen @ signs[common]) / norm if norm > 0 else 0.0


def _phases(values: np.ndarray, pad: int) -> np.ndarray:
    """Split the values into four images of every second row and column, with a margin of `pad` around them."""
    rows, columns = (-(-length // _PITCH) for length in values.shape)
    phases = np.zeros((_PITCH**2, rows + 2 * pad, columns + 2 * pad), np.float32)
    for index, (y, x) in enumerate(np.ndindex(_PITCH, _PITCH)):
        phase = values[y::_PITCH, x::_PITCH]
        phases[index, pad : pad + phase.shape[0], pad : pad + phase.shape[1]] = phase
    return phases


@functools.lru_cache(maxsize=8)
def _spectrum(layout: Layout, key: bytes, size: tuple[int, int]) -> np.ndarray:
    """Compute the spectrum of the common chips' signs, for sums at all shifts."""
    signs, block, _ = carriers_of(layout, key=key)
    return np.conj(np.fft.rfft2(np.where(block < 0, signs, 0.0).astype(np.float32), s=size))


def _padding(chips: int) -> int:
    return int((1 - _MIN_INSIDE) * chips)


def _extent(length: int, size: Size) -> int:
    """Convert a length in image pixels to pixels of the resized image."""
    return max(4, round(length * _PITCH * size.chips / size.side))
