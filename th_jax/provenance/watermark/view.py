"""The input of a watermark search: an image, or a second of video frames combined. NumPy and OpenCV only."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32

from th_jax.provenance.watermark.search import Chart, Size, chart_of

LONGEST = 4096
"""Maximum side in pixels; larger images are reduced to it."""

_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)


class View(NamedTuple):
    """One or more frames of one size, ready to be searched."""

    luma: Float32[np.ndarray, "H W"]
    """Mean brightness of the frames, in 0..255."""
    charts: dict[Size, Chart]
    """Mean of the frames' charts, for the requested sizes.

    A moving head disturbs it less than the chart of the mean frame, but it must be computed while the frames pass.
    """
    reduction: float
    """Scale from frame pixels to pixels of the view; below 1 for very large frames."""

    def chart(self, size: Size) -> Chart:
        """Return the view's chip values for marks of this size."""
        return self.charts[size] if size in self.charts else chart_of(self.luma, size)


def view_of(
    frames: Iterable[Any], *, sizes: Callable[[tuple[int, int]], Sequence[Size]] = lambda shape: ()
) -> View | None:
    """Average UInt8 `[H, W, 3]` RGB frames; None if there are none.

    The frames are not kept. `sizes` returns the sizes for which charts of single frames are computed, from the view's
    height and width.

    Raises:
        ValueError: if frames have another type or shape, or different sizes.
    """
    total: np.ndarray | None = None
    charts: dict[Size, Chart] = {}
    count, reduction = 0, 1.0
    for frame in frames:
        luma, reduction = _luma(frame)
        if total is not None and luma.shape != total.shape:
            raise ValueError(
                f"all frames of a video must have the same size, but {_extent(luma, reduction)} follows "
                f"{_extent(total, reduction)}"
            )
        total = luma if total is None else total + luma
        for size in sizes(luma.shape):
            made = chart_of(luma, size)
            charts[size] = made._replace(values=made.values + charts[size].values) if size in charts else made
        count += 1
    if total is None:
        return None
    means = {size: chart._replace(values=chart.values / count) for size, chart in charts.items()}
    return View(total / count, means, reduction)


def _luma(frame: Any) -> tuple[np.ndarray, float]:
    pixels = np.asarray(frame)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"watermark detection needs uint8 RGB images [H, W, 3], got {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    reduction = min(1.0, LONGEST / max(height, width))
    if reduction < 1.0:
        size = (max(1, round(width * reduction)), max(1, round(height * reduction)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.transform(pixels.astype(np.float32), _LUMA), reduction


def _extent(luma: np.ndarray, reduction: float) -> str:
    return f"{round(luma.shape[1] / reduction)} x {round(luma.shape[0] / reduction)}"
