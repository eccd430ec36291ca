"""Measurements of a data set's records: yaw and roll of heads, sizes of faces, sharpness."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from data_prep.build.quality import face_patch, sharpness
from th_jax.data.episodes import decode_frame
from th_jax.data.schema import VideoRecord
from th_jax.faces import face_size, roll, yaw
from th_jax.landmarks.scheme import IBUG_POINTS, known_points

YAW_EDGES = np.arange(-65.0, 66.0, 10.0)
"""Edges of the bins in degrees; the outermost bins include all values beyond."""

SHARPNESS_FRAMES = 4
"""Number of frames per video that are decoded to measure sharpness."""


class Measures(NamedTuple):
    """One number per frame; sharpness for a few frames per video. NaN where landmarks are unknown."""

    yaw: Float[np.ndarray, " N"]
    """Degrees, positive to the image's right."""
    roll: Float[np.ndarray, " N"]
    """Degrees, positive clockwise."""
    size: Float[np.ndarray, " N"]
    """Size of the face (`th_jax.faces.face_size`) in pixels of the source."""
    sharpness: Float[np.ndarray, " M"]
    """`data_prep.build.quality.sharpness` of the stored frames."""


def measure_records(records: Iterable[VideoRecord], *, side: int) -> Measures:
    """Measure records with frames of `side` pixels.

    Raises:
        UnreadableFrame: if a frame cannot be decoded (a ValueError).
    """
    columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
    for record in records:
        points = record.landmarks[:, :IBUG_POINTS]
        sizes = face_size(points.astype(np.float64)) * record.crops[:, 2]
        for column, values in zip(columns, (yaw(points), roll(points), sizes, _sharpness(record, side)), strict=True):
            column.append(np.asarray(values, np.float64))
    return Measures(*(np.concatenate(column) if column else np.zeros(0) for column in columns))


def yaw_histogram(angles: Float[np.ndarray, " N"]) -> Int[np.ndarray, " B"]:
    """Count the known angles in each bin of `YAW_EDGES`."""
    return histogram(angles, YAW_EDGES)


def histogram(values: Float[np.ndarray, " N"], edges: Float[np.ndarray, " E"]) -> Int[np.ndarray, " B"]:
    """Count the known values in each bin; the outermost bins include all values beyond."""
    known = values[np.isfinite(values)]
    return np.histogram(np.clip(known, edges[0], edges[-1]), edges)[0]


def spread(total: int, wanted: int) -> Int[np.ndarray, " C"]:
    """Return up to `wanted` evenly spread numbers below `total`."""
    count = min(total, wanted)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)


def _sharpness(record: VideoRecord, side: int) -> list[float]:
    found = []
    for index in spread(len(record.frames), SHARPNESS_FRAMES):
        landmarks = record.landmarks[index, :IBUG_POINTS] * side
        if known_points(landmarks).all():
            patch = face_patch(decode_frame(record.frames[index], size=side), landmarks)
            if patch is not None:
                found.append(sharpness(patch))
    return found
