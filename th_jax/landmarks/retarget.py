"""Retargeting of a driver's landmarks to a target's face: the driver's motion, the target's shape. NumPy only.

The paper names the personality mismatch when driving with another person's landmarks as a limitation (section 5). Here the
driver's deviation from their own mean shape is added to the target's mean shape, in the pose of the driver's head:

1. Each frame's landmarks are aligned to a mean shape by the least-squares similarity transform (rotation, scale, shift). Mean
   shapes have their centroid at the origin, mean distance one from it, and level eyes; those of the driver and of the target
   are computed in the same way.
2. The aligned landmarks minus the driver's mean shape are the expression; it is added to the target's mean shape.
3. Distances that must be able to close are preserved: the distance between the lips is the driver's, relative to the mouth's
   width; the distance between the lids is the driver's, relative to their mean opening. Pupils keep their relative position
   between the corners of the eye.
4. Rotation, scale and shift of the frame are applied again, relative to the driver's means: the target's size and position,
   combined with the driver's changes.

A turned head is foreshortened in the image, and an addition cannot foreshorten twice: profiles keep some of the target's
frontal shape.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS, check_point_count, known_points

_EYES = ((36, 39), (42, 45))
"""Corners of the eyes; pupils 68 and 69 belong to them."""

_LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))
"""Pairs of points on the upper and the lower lid."""

_INNER_LIPS = ((61, 67), (62, 66), (63, 65))
_OUTER_LIPS = ((50, 58), (51, 57), (52, 56))
"""Pairs on the upper and the lower lip; the outer ones move with the inner ones."""

_MOUTH = (48, 54)
_ROUNDS = 5
_LEAST_OPENING = 0.02
"""Minimum mean opening of an eye, in face sizes; below it, the eye was shut in all frames, and its opening is unknown."""


class FaceShape(NamedTuple):
    """Mean shape of a face, and its typical size and position."""

    points: Complex[np.ndarray, "68"]
    """x + iy, with centroid 0, mean distance 1 from it, and level eyes."""
    size: float
    """Median of the mean distance of the points from their centroid, as a fraction of the frame's side."""
    center: complex
    """Median centroid, as fractions of the frame's side."""


def face_shape(landmarks: Float[np.ndarray, "S P 2"]) -> FaceShape:
    """Compute the mean shape of one face over frames, by generalized Procrustes analysis.

    Frames with an unknown point among the 68 are ignored, as are frames whose points coincide.

    Args:
        landmarks: landmarks of S frames in [0, 1], NaN where unknown.

    Raises:
        ValueError: if the number of points is not 68 or 70, no frame has all 68 points, or the points do not form a face.
    """
    check_point_count(landmarks.shape[1])
    faces = landmarks[known_points(landmarks)[:, :IBUG_POINTS].all(-1), :IBUG_POINTS].astype(np.float64)
    if not len(faces):
        raise ValueError("a face's shape needs at least one frame in which all 68 landmarks are known")
    points = _complex(faces)
    center = points.mean(1)
    size = np.abs(points - center[:, None]).mean(1)
    points, center, size = points[size > 0], center[size > 0], size[size > 0]
    if not len(points):
        raise ValueError("a face's shape needs at least one frame whose 68 landmarks are not all at one place")
    mean = _normalized(points[len(points) // 2])
    with np.errstate(all="ignore"):  # for points that do not form a face
        for _ in range(_ROUNDS if len(points) > 1 else 1):
            scale, shift = _similarity(mean, points)
            mean = _normalized(((points - shift[:, None]) / scale[:, None]).mean(0))
    if not np.isfinite(mean).all():
        raise ValueError("these landmarks have no mean shape: they are not of one face")
    middle = complex(np.median(center.real), np.median(center.imag))
    return FaceShape(mean, float(np.median(size)), middle)


def retarget(
    landmarks: Float[np.ndarray, "S P 2"], *, driver: FaceShape, target: FaceShape
) -> Float[np.ndarray, "S P 2"]:
    """Transfer the driver's landmarks to the target's face.

    Retargeting a face to itself changes nothing except for rounding.

    Args:
        landmarks: the driver's landmarks of S frames in [0, 1].
        driver: mean shape of the driver.
        target: mean shape of the target.

    Returns:
        The landmarks in [0, 1]; NaN in frames in which one of the 68 points is unknown.

    Raises:
        ValueError: if the number of points is not 68 or 70.
    """
    check_point_count(landmarks.shape[1])
    points = _complex(landmarks.astype(np.float64))
    faces = points[:, :IBUG_POINTS]
    scale, shift = _similarity(driver.points, faces)
    with np.errstate(invalid="ignore"):  # for unknown points
        aligned = (faces - shift[:, None]) / scale[:, None]
    moved = aligned - driver.points + target.points
    _close(moved, aligned, _LIDS, _lid_ratios(driver.points, target.points))
    _close_mouth(moved, aligned)
    if points.shape[1] == PUPIL_POINTS:
        moved = np.concatenate([moved, _pupils(moved, faces, points[:, IBUG_POINTS:])], axis=1)
    growth = target.size / driver.size
    back = moved * (scale * growth)[:, None] + (target.center + growth * (shift - driver.center))[:, None]
    return np.stack([back.real, back.imag], axis=-1).astype(landmarks.dtype)


def _complex(landmarks: Float[np.ndarray, "S P 2"]) -> Complex[np.ndarray, "S P"]:
    return np.asarray(landmarks[..., 0] + 1j * landmarks[..., 1])


def _normalized(points: Complex[np.ndarray, "68"]) -> Complex[np.ndarray, "68"]:
    centered = points - points.mean()
    across = centered[42:48].mean() - centered[36:42].mean()
    turned = centered * (abs(across) / across if across else 1.0)
    return np.asarray(turned / max(np.abs(turned).mean(), 1e-9))


def _similarity(
    shape: Complex[np.ndarray, "68"], faces: Complex[np.ndarray, "S 68"]
) -> tuple[Complex[np.ndarray, " S"], Complex[np.ndarray, " S"]]:
    """Fit a centered shape to each face; returns the scale, with the rotation as its phase, and the shift."""
    shift = faces.mean(1)
    scale = (faces - shift[:, None]) @ shape.conj() / (np.abs(shape) ** 2).sum()
    return np.where(np.abs(scale) > 0, scale, np.nan), shift


def _lid_ratios(driver: Complex[np.ndarray, "68"], target: Complex[np.ndarray, "68"]) -> list[float]:
    """Compute, for each pair of lid points, the target's mean opening divided by the driver's."""
    ratios = []
    for eye in (_LIDS[:2], _LIDS[2:]):
        own, others = (np.mean([abs(shape[low] - shape[high]) for high, low in eye]) for shape in (driver, target))
        ratios += [float(others / own) if min(own, others) > _LEAST_OPENING else 1.0] * 2
    return ratios


def _close(
    moved: Complex[np.ndarray, "S 68"],
    aligned: Complex[np.ndarray, "S 68"],
    pairs: tuple[tuple[int, int], ...],
    ratios: list[float],
) -> None:
    """Set the distance of each pair to the driver's times a ratio, about its midpoint, in place."""
    for (high, low), ratio in zip(pairs, ratios, strict=True):
        middle = (moved[:, high] + moved[:, low]) / 2
        half = (aligned[:, low] - aligned[:, high]) * ratio / 2
        moved[:, high], moved[:, low] = middle - half, middle + half


def _close_mouth(moved: Complex[np.ndarray, "S 68"], aligned: Complex[np.ndarray, "S 68"]) -> None:
    left, right = _MOUTH
    width = np.abs(moved[:, right] - moved[:, left]) / np.maximum(np.abs(aligned[:, right] - aligned[:, left]), 1e-9)
    for (high, low), (above, below) in zip(_INNER_LIPS, _OUTER_LIPS, strict=True):
        gap = (aligned[:, low] - aligned[:, high]) * width
        step = (gap - (moved[:, low] - moved[:, high])) / 2
        moved[:, [high, above]] -= step[:, None]
        moved[:, [low, below]] += step[:, None]


def _pupils(
    moved: Complex[np.ndarray, "S 68"], faces: Complex[np.ndarray, "S 68"], pupils: Complex[np.ndarray, "S 2"]
) -> Complex[np.ndarray, "S 2"]:
    places = []
    for number, (left, right) in enumerate(_EYES):
        share = (pupils[:, number] - faces[:, left]) / (faces[:, right] - faces[:, left])
        places.append(moved[:, left] + share * (moved[:, right] - moved[:, left]))
    return np.stack(places, axis=1)
