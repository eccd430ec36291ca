"""The landmark model `heads`: a cascade of regressions for the 68 points and both pupils, learned from rendered heads alone.

The method is the supervised descent of X. Xiong and F. De la Torre, *Supervised Descent Method and its Applications to Face
Alignment* (CVPR 2013). Each stage looks at the directions of gray gradients around the points so far, and moves all points
along the principal components of face shapes. After the first stages, which start from the mean shape in the detector's box,
the face is cut out again: centered, scaled and upright. `data_prep.tools.fit_landmark_cascade` fits the bundled file.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from th_jax.faces.pose import roll
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS
from th_jax.storage.tensors import TensorFileError, read_described

CASCADE_FILE = Path(__file__).parent.parent / "assets" / "landmarks" / "heads.safetensors"
"""The bundled weights."""

FORMAT = "th_jax.landmarks/1"

CROP_SIDE = 96
"""Width and height of the crops that the stages look at, in pixels."""

CONTEXT = 1.6
"""Side of a crop, in sides of the face's box."""


class Look(NamedTuple):
    """How a stage looks at a crop, in its pixels."""

    cell: int
    """Side of the square over which gradients are averaged; odd."""
    radius: float
    """Distance of the cells around a point."""
    upright: bool
    """Whether the face has been cut out again."""


LOOKS = (Look(15, 10, False), Look(11, 8, False), Look(9, 7, True), Look(7, 5, True), Look(5, 3.5, True))

_CELLS = np.array([(0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1)], np.float32)
"""Places of the cells around a point, in radii."""

_DIRECTIONS = 8
FEATURES = PUPIL_POINTS * len(_CELLS) * _DIRECTIONS

_SURROUNDINGS = 25
"""Side of the square in pixels by whose mean gradient each gradient is divided, so that light and contrast do not matter."""

_FAINT = 24.0
"""Gradients below this, in gray levels of Sobel's kernel, count less."""


class Cascade(NamedTuple):
    """Parameters of the cascade of S stages with R components; points are in [0, 1] of a crop."""

    mean: Float[np.ndarray, "70 2"]
    """Where the points begin."""
    components: Float[np.ndarray, "R 140"]
    weights: Float[np.ndarray, "S F R"]
    bias: Float[np.ndarray, "S R"]


def gradient_maps(crop: UInt8[np.ndarray, "N N 3"]) -> Float32[np.ndarray, "2 N N 4"]:
    """Compute how strong the gradients in eight directions are, relative to the surroundings; two images of four channels."""
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    size = np.sqrt(across * across + down * down)  # the last bits of OpenCV's magnitude depend on addresses in memory
    around = cv2.boxFilter(size, -1, (_SURROUNDINGS, _SURROUNDINGS)) + _FAINT
    across, down = (gradient / np.sqrt((size + 1e-3) * around) for gradient in (across, down))
    angles = np.arange(_DIRECTIONS // 2, dtype=np.float32) * np.float32(2 * np.pi / _DIRECTIONS)
    along = across[..., None] * np.cos(angles) + down[..., None] * np.sin(angles)
    return np.stack([np.square(np.maximum(along, 0)), np.square(np.minimum(along, 0))])


def features(
    maps: Float32[np.ndarray, "2 N N 4"], points: Float[np.ndarray, "70 2"], look: Look
) -> Float32[np.ndarray, " F"]:
    """Read the maps, averaged over cells, around the points in [0, 1] of the crop; square roots, as in RootSIFT."""
    places = (points * CROP_SIDE - 0.5)[:, None] + look.radius * _CELLS
    x, y = places[..., 0].astype(np.float32), places[..., 1].astype(np.float32)
    read = [
        cv2.remap(cv2.blur(part, (look.cell, look.cell)), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for part in maps
    ]
    return np.sqrt(np.maximum(np.concatenate(read, -1), 0)).ravel()  # means can be a rounding error below zero


def crop_face(
    frame: UInt8[np.ndarray, "H W 3"],
    center: Float[np.ndarray, "2"],
    axes: Float[np.ndarray, "2 2"],
    *,
    side: int = CROP_SIDE,
) -> UInt8[np.ndarray, "N N 3"]:
    """Cut a parallelogram out of a frame; beyond the frame, its edge pixels are repeated.

    Args:
        frame: RGB frame.
        center: center of the crop in frame pixels.
        axes: matrix from crop coordinates, in [-0.5, 0.5] from the center, to frame pixels.
        side: width and height of the crop in pixels.
    """
    reach = np.abs(axes).sum(1) / 2 + 2
    low = np.maximum(np.floor(center - reach), 0).astype(int)
    high = np.maximum(np.ceil(center + reach).astype(int), low + 1)
    low = np.minimum(low, (frame.shape[1] - 1, frame.shape[0] - 1))
    part = frame[low[1] : high[1], low[0] : high[0]]
    shrink = side / np.sqrt(abs(np.linalg.det(axes)))
    scale = np.ones(2)
    if shrink < 0.5:  # interpolation between four pixels would skip the others
        size = np.maximum(np.round(np.array(part.shape[1::-1]) * 2 * shrink), 1)
        scale = size / part.shape[1::-1]
        part = cv2.resize(part, size.astype(int).tolist(), interpolation=cv2.INTER_AREA)
    linear = axes / side * scale[:, None]
    # OpenCV counts from the center of the first pixel.
    shift = (center - low) * scale + linear @ np.full(2, (1 - side) / 2) - 0.5
    matrix = np.column_stack([linear, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


class View(NamedTuple):
    """A crop of a face, and where it lies in the frame."""

    center: Float[np.ndarray, "2"]
    axes: Float[np.ndarray, "2 2"]

    def to_frame(self, points: Float[np.ndarray, "70 2"]) -> Float[np.ndarray, "70 2"]:
        """Convert points from [0, 1] of the crop to frame pixels."""
        return np.asarray((points - 0.5) @ self.axes.T + self.center)

    def to_crop(self, points: Float[np.ndarray, "70 2"]) -> Float[np.ndarray, "70 2"]:
        """Convert points from frame pixels to [0, 1] of the crop."""
        return np.asarray((points - self.center) @ np.linalg.inv(self.axes).T + 0.5)


def upright_view(points: Float[np.ndarray, "70 2"]) -> View:
    """Return the view that is centered on a face with these points in pixels, in which it is upright and of standard size."""
    face = points[:IBUG_POINTS]
    angle = np.radians(float(roll(face[None])[0]))
    cosine, sine = np.cos(angle), np.sin(angle)
    side = max(3.05 * float(np.linalg.norm(face - face.mean(0), axis=1).mean()), 1.0)
    return View(face.mean(0), CONTEXT * side * np.array([[cosine, -sine], [sine, cosine]]))


def descend(cascade: Cascade, frame: UInt8[np.ndarray, "H W 3"], view: View) -> Iterator[tuple[View, np.ndarray]]:
    """Run the cascade from a view of a face, and yield the view and the points in [0, 1] of it after each stage."""
    points, maps = cascade.mean, gradient_maps(crop_face(frame, *view))
    for stage, look in enumerate(LOOKS[: len(cascade.weights)]):
        if look.upright and not LOOKS[stage - 1].upright:
            there = view.to_frame(points)
            view = upright_view(there)
            points, maps = view.to_crop(there), gradient_maps(crop_face(frame, *view))
        moved = features(maps, points, look) @ cascade.weights[stage] + cascade.bias[stage]
        points = points + (moved @ cascade.components).reshape(PUPIL_POINTS, 2)
        yield view, points


def cascade_landmarks(
    frame: UInt8[np.ndarray, "H W 3"], center: Float[np.ndarray, "2"], side: float
) -> Float[np.ndarray, "70 2"]:
    """Find the 68 points and both pupils of the face in a square box, in pixels, with the bundled weights.

    The box is that of dlib's detector, or `th_jax.faces.box_around`. It need not contain a face: there are always points.

    Raises:
        FileNotFoundError: if the installation lacks the weights, or they are damaged.
    """
    *_, (view, points) = descend(load_cascade(), frame, View(center, CONTEXT * side * np.eye(2)))
    return view.to_frame(points)


@functools.cache
def load_cascade() -> Cascade:
    """Load the bundled weights in float64: how BLAS adds up depends on addresses in memory, and points in float32 must not.

    Raises:
        FileNotFoundError: if the installation lacks them, or they are damaged.
    """
    try:
        tensors, _, _ = read_described(CASCADE_FILE, file_format=FORMAT)
    except TensorFileError as error:
        raise FileNotFoundError(f"the landmark model heads cannot be read: {error}; install th_jax again") from error
    return Cascade(**{name: tensor.astype(np.float64) for name, tensor in tensors.items()})
