"""Backgrounds out of focus: walls, rooms and gardens with the statistics of photographs, the same for a whole clip."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from data_prep.heads.identity import Color

GRID = 128  # samples in which a background is drawn


class Backdrop(NamedTuple):
    """A background; colors are display values, sizes are relative to the image."""

    kind: str  # one of KINDS
    seed: int
    color: Color
    light: float  # mean brightness against the wall's own
    blur: float  # standard deviation of the focus
    slope: float  # of the field's spectrum: amplitude falls with frequency ** -slope
    depth: float  # strength of the field


KINDS = {"wall": 0.34, "room": 0.36, "outdoors": 0.14, "field": 0.16}


def linear(display: np.ndarray) -> np.ndarray:
    """Convert display values in 0..1 to linear light."""
    return np.where(display < 0.04045, display / 12.92, ((np.maximum(display, 0) + 0.055) / 1.055) ** 2.4)


def _field(rng: np.random.Generator, slope: float, channels: int) -> Float[np.ndarray, "G G C"]:
    """Draw random clouds of unit variance whose amplitude falls with frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(GRID)[:, None], np.fft.rfftfreq(GRID)[None]) * GRID
    amplitude = np.maximum(frequency, 1.0) ** -slope
    amplitude[0, 0] = 0
    shape = (*amplitude.shape, channels)
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * amplitude[..., None]
    field = np.fft.irfft2(spectrum, s=(GRID, GRID), axes=(0, 1))
    return field / field.std((0, 1))


def _colors(field: np.ndarray) -> np.ndarray:
    """Combine three independent fields to correlated colors: mostly brightness, then warm against cold."""
    gray, warm, green = np.moveaxis(field, -1, 0)
    return np.stack([gray + 0.2 * warm + 0.06 * green, gray + 0.09 * green, gray - 0.24 * warm], axis=-1)


def _things(rng: np.random.Generator, image: np.ndarray) -> None:
    """Doors, windows, shelves, images and lamps, as upright rectangles painted over each other, in place."""
    for _ in range(int(rng.integers(3, 11))):
        tall = rng.random() < 0.6
        width = rng.uniform(0.03, 0.35) if tall else rng.uniform(0.08, 0.4)
        height = rng.uniform(0.4, 1.4) if tall else rng.uniform(0.04, 0.4)
        left, top = rng.uniform(-0.2, 1.0), rng.uniform(-0.3, 0.8)
        color = image.mean((0, 1)) * np.exp(rng.normal(0, 0.55)) * np.exp(rng.normal(0, 0.12, 3))
        if rng.random() < 0.12:
            color = rng.uniform(0.8, 1.8) * np.array([1.0, rng.uniform(0.85, 1.0), rng.uniform(0.6, 1.15)])
        rows = slice(max(int(top * GRID), 0), max(int((top + height) * GRID), 0))
        columns = slice(max(int(left * GRID), 0), max(int((left + width) * GRID), 0))
        patch = image[rows, columns]
        if patch.size:
            shade = 1 + rng.normal(0, 0.15) * np.linspace(-1, 1, patch.shape[1])[None, :, None]
            patch[:] = np.maximum(color * shade, 0.004)
            if rng.random() < 0.4:  # books or leaves of a blind
                step = int(rng.integers(3, 10))
                bars = np.exp(rng.normal(0, 0.35, (patch.shape[1] // step + 1, 1))).repeat(step, 0)[: patch.shape[1]]
                patch *= bars[None]


def _leaves(rng: np.random.Generator, image: np.ndarray) -> None:
    """A bright sky over dark green and brown, with spots of light, in place."""
    horizon = rng.uniform(0.1, 0.9) + 0.12 * _field(rng, 1.5, 1)[..., 0][:1]
    height = np.linspace(0, 1, GRID)[:, None]
    sky = 1 / (1 + np.exp((height - horizon) * 25))
    blue = np.array([0.75, 0.88, 1.0]) * rng.uniform(0.7, 1.3)
    hue = np.array([0.16, 0.19, 0.10]) if rng.random() < 0.6 else np.array([0.22, 0.19, 0.16])
    image[:] = sky[..., None] * blue + (1 - sky[..., None]) * hue * rng.uniform(0.5, 1.6)
    spots = (_field(rng, 0.6, 1) > rng.uniform(1.6, 2.4)) * rng.uniform(0.3, 1.5)
    image += spots * (1 - sky[..., None]) * np.array([1.0, 1.0, 0.8])


@lru_cache(maxsize=2)
def draw_backdrop(backdrop: Backdrop, side: int) -> Float[np.ndarray, "S S 3"]:
    """Draw the background in linear light; cached for the last few people, so do not modify it."""
    rng = np.random.default_rng([backdrop.seed, 7])
    wall = linear(np.array(backdrop.color)) * backdrop.light
    slope = rng.normal(0, 0.35, 2)
    across, down = np.meshgrid(np.linspace(-1, 1, GRID), np.linspace(-1, 1, GRID))
    image = wall * np.exp(across * slope[0] + down * slope[1])[..., None]
    if backdrop.kind == "room":
        _things(rng, image)
    elif backdrop.kind == "outdoors":
        _leaves(rng, image)
    field = _colors(_field(rng, backdrop.slope, 3))
    image *= np.exp(np.clip(backdrop.depth * field, -2.5, 2.5))
    if backdrop.blur > 0.003:
        image = cv2.GaussianBlur(image, (0, 0), backdrop.blur * GRID, borderType=cv2.BORDER_REFLECT)
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.clip(resized, 0.002, 3.0), dtype=np.float32)
