"""Detects pupil centers inside the eye outlines of 68 landmarks, by means of gradients; NaN for eyes that show none.

The method is that of F. Timm and E. Barth, *Accurate eye centre localisation by means of gradients* (VISAPP 2011): the
center of a dark disc is where the lines along the gradients of its rim intersect, with a preference for dark pixels.
Three things are added, because the outline is known and the lids are not part of the iris: gradients are weighted by
the square of their component along the eye, candidates lie inside the outline, and the position is refined to subpixel
accuracy. Errors: docs/measurements.md.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

EYES = (slice(36, 42), slice(42, 48))
"""Eye outlines in the iBUG order: from one corner along the upper lid to the other, and back along the lower lid."""

MIN_WIDTH = 4.0
"""Minimum distance of an eye's corners in pixels; below it, an iris is less than two pixels wide."""

MIN_OPENING = 0.18
"""Minimum mean distance of the lids as a share of the eye's width; detected outlines of open eyes have 0.22 to 0.5."""

MIN_CONTRAST = 0.5
"""Minimum range of the gray levels inside the outline, 5 to 95 %, as a share of their mean. Detectors draw open
outlines on many shut eyes, so the pixels are checked too. Open eyes of real clips have 0.5 to 1.5, shut rendered ones
0.3 to 1.2."""

MIN_AGREEMENT = 0.3
"""Minimum share of the gradients along the eye that point away from the detected center: 1 for a perfect disc."""

_WIDTH = 32
"""Width in pixels to which an eye is resized: every eye takes the same time, and a grid step is 3 % of the width."""

_MARGIN = 0.15
"""Margin around the outline, as a share of the width."""

_GRADIENT_BLUR, _DARKNESS_BLUR = 0.67, 1.0
"""Standard deviations of the Gaussian blurs before gradients and darkness are computed, in pixels of the resized eye."""

_SHRINK = 2
"""Minimum distance of a candidate from the outline in pixels, because of lashes and shadows of the lids."""

_PEAK = 0.92
"""Share of the highest score above which neighboring positions are averaged."""


class _Eye(NamedTuple):
    """An eye cut out of its frame in gray, with the transform back to the frame."""

    grey: Float32[np.ndarray, "H W"]
    outline: Float[np.ndarray, "6 2"]
    corner: Float[np.ndarray, "2"]
    scale: float


def find_pupils(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]) -> Float32[np.ndarray, "2 2"]:
    """Detect both pupils in an RGB frame: first that inside points 36-41, then 42-47.

    Returns:
        Pupil centers in pixels from the left and top edge of the frame. NaN for an eye that is too narrow, nearly shut,
        extends beyond the frame, shows no iris, or has NaN landmarks.
    """
    return np.stack([_find_pupil(frame, landmarks[eye].astype(np.float64)) for eye in EYES]).astype(np.float32)


def with_pupils(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]) -> Float32[np.ndarray, "70 2"]:
    """Append the two pupils of `find_pupils` to the 68 landmarks, in pixels."""
    return np.concatenate([landmarks.astype(np.float32), find_pupils(frame, landmarks)])


def eye_opening(landmarks: Float[np.ndarray, "*batch P 2"]) -> Float[np.ndarray, "*batch 2"]:
    """Compute the lid distance of both eyes as a share of the eye's width; NaN where a point is unknown."""
    return np.stack([_opening(landmarks[..., eye, :]) for eye in EYES], axis=-1)


def _opening(outline: Float[np.ndarray, "*batch 6 2"]) -> Float[np.ndarray, "*batch"]:
    upper, lower = outline[..., 1:3, :], outline[..., [5, 4], :]
    width = np.linalg.norm(outline[..., 3, :] - outline[..., 0, :], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.linalg.norm(upper - lower, axis=-1).mean(-1) / width)


def _find_pupil(frame: UInt8[np.ndarray, "H W 3"], outline: Float[np.ndarray, "6 2"]) -> Float[np.ndarray, "2"]:
    unknown = np.full(2, np.nan)
    height, width = frame.shape[:2]
    # The comparison is false for NaN.
    wide_enough = np.linalg.norm(outline[3] - outline[0]) >= MIN_WIDTH
    inside = outline.min() >= 0 and outline[:, 0].max() <= width and outline[:, 1].max() <= height
    if not (wide_enough and inside and _opening(outline) >= MIN_OPENING):
        return unknown
    eye = _cut_out(frame, outline)
    within = _fill(eye)
    low, high = np.percentile(eye.grey[within], (5, 95))
    if high - low < MIN_CONTRAST * eye.grey[within].mean():
        return unknown
    shrunk = cv2.erode(within.astype(np.uint8), _disc(_SHRINK)).astype(bool)
    candidates = shrunk if shrunk.any() else within
    agreement = _agreement(eye.grey, around=cv2.dilate(within.astype(np.uint8), _disc(1)).astype(bool), at=candidates)
    score = agreement * _darkness(eye.grey, candidates)
    best = np.unravel_index(score.argmax(), score.shape)
    if agreement[best] < MIN_AGREEMENT:
        return unknown
    return _refined(score, best) / eye.scale + eye.corner


def _cut_out(frame: UInt8[np.ndarray, "H W 3"], outline: Float[np.ndarray, "6 2"]) -> _Eye:
    """Cut out the eye at a width of `_WIDTH` pixels; only its surroundings are converted to gray, to save time."""
    width = float(np.linalg.norm(outline[3] - outline[0]))
    scale, margin = _WIDTH / width, _MARGIN * width
    corner = outline.min(0) - margin
    columns, rows = np.ceil((outline.max(0) + margin - corner) * scale).astype(int).tolist()
    left, top = np.maximum(np.floor(corner - 2), 0).astype(int)
    right, bottom = np.ceil(outline.max(0) + margin + 2).astype(int)
    grey = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    # Coordinates count from edges; OpenCV's count from the center of the first pixel.
    shift = (np.array([left, top]) - corner + 0.5) * scale - 0.5
    turn = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    resized = cv2.warpAffine(grey, turn, (columns, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return _Eye(resized.astype(np.float32), (outline - corner) * scale, corner, scale)


def _fill(eye: _Eye) -> Bool[np.ndarray, "H W"]:
    """Return a mask of the pixels inside the outline."""
    filled = np.zeros(eye.grey.shape, np.uint8)
    cv2.fillPoly(filled, [np.round((eye.outline - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return filled.astype(bool)


def _agreement(
    grey: Float32[np.ndarray, "H W"], *, around: Bool[np.ndarray, "H W"], at: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """Compute, for each candidate, the mean of (d . g)^2 over the strong gradients (Timm and Barth, equation 3); 0 elsewhere.

    d is the direction from the candidate to the gradient's position, and g is the gradient's direction. An iris is
    dark, so only gradients that point away from its center count. They are weighted by the square of their component
    along the eye, because those across it mostly belong to the lids.
    """
    blurred = cv2.GaussianBlur(grey, (0, 0), _GRADIENT_BLUR)
    across, down = cv2.Sobel(blurred, cv2.CV_32F, 1, 0), cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    size = np.hypot(across, down)
    strong = around & (size > size[around].mean())
    direction = np.stack([across[strong], down[strong]], -1) / size[strong][:, None]
    weight = direction[:, 0] ** 2
    offset = np.argwhere(strong)[None, :, ::-1] - np.argwhere(at)[:, None, ::-1]
    distance = np.maximum(np.linalg.norm(offset, axis=-1), 1e-6)
    cosine = np.maximum((offset * direction).sum(-1) / distance, 0)
    agreement = np.zeros(grey.shape)
    agreement[at] = (cosine**2 * weight).sum(-1) / max(float(weight.sum()), 1e-6)
    return agreement


def _darkness(grey: Float32[np.ndarray, "H W"], candidates: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Compute the squared darkness of the candidates, from 0 for the brightest to 1 for the darkest."""
    blurred = cv2.GaussianBlur(grey, (0, 0), _DARKNESS_BLUR)
    bright, dark = np.percentile(blurred[candidates], 95), blurred[candidates].min()
    return np.where(candidates, np.clip((bright - blurred) / max(float(bright - dark), 1e-3), 0, 1) ** 2, 0)


def _refined(score: Float[np.ndarray, "H W"], best: tuple[np.intp, ...]) -> Float[np.ndarray, "2"]:
    """Average the positions around the best one with nearly as high a score, as x and y from the left and top edge."""
    least = _PEAK * score[best]
    _, labels = cv2.connectedComponents((score > least).astype(np.uint8))
    rows, columns = np.nonzero(labels == labels[best])
    weight = score[rows, columns] - least
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum() + 0.5


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
