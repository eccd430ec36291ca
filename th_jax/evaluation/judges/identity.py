"""Identity features of a given face network: faces are aligned to ArcFace's template by their landmarks."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation.judges.network_file import FeatureNetwork, load_network
from th_jax.evaluation.judges.network_input import NetworkInput

ARCFACE_SIZE = 112
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Template of Deng et al. (2019) for eyes, tip of the nose and corners of the mouth in a crop of 112 px: pixels, x then
y, with the center of the first pixel at 0; the image's left before its right."""

IDENTITY_INPUT = NetworkInput(ARCFACE_SIZE, (127.5, 127.5, 127.5), (128.0, 128.0, 128.0))
"""Input of ArcFace and MobileFaceNet, unless a JSON file beside the network gives another."""

_EYES = slice(36, 42), slice(42, 48)
_NOSE_TIP, _MOUTH_CORNERS = 30, (48, 54)


def load_identity_network(name: str, path: Path) -> FeatureNetwork:
    """Load a face network from FILE.onnx or FILE.tflite, by default with ArcFace's input format.

    Raises:
        NetworkFileError, ImportError: as `load_network`.
    """
    return load_network(name, path, default=IDENTITY_INPUT)


def identity_features(
    network: FeatureNetwork, frames: UInt8[np.ndarray, "N H W 3"], landmarks: Float[np.ndarray, "N P 2"]
) -> Float[np.ndarray, "N D"]:
    """Compute features of unit length in float64; a row of NaN where the landmarks are NaN or identical.

    Landmarks are in [0, 1], as detected by `measure_faces`.

    Raises:
        NetworkFileError: as `FeatureNetwork.features`.
    """
    rows = np.full((len(frames), network.width), np.nan)
    points = five_points(landmarks) * (frames.shape[2], frames.shape[1])
    for number, (frame, five) in enumerate(zip(frames, points, strict=True)):
        # Landmarks count pixels from the frame's edge; the template counts from the center of the first pixel.
        placed = placement(five - 0.5, ARCFACE_POINTS * (network.wants.size / ARCFACE_SIZE))
        if not np.isfinite(placed).all():
            continue
        face = cv2.warpAffine(frame, placed, (network.wants.size, network.wants.size), flags=cv2.INTER_LINEAR)
        features = network.features(np.asarray(face)[None])[0].astype(np.float64)
        length = np.linalg.norm(features)
        rows[number] = features / length if length > 0 else np.nan
    return rows


def five_points(landmarks: Float[np.ndarray, "N P 2"]) -> Float[np.ndarray, "N 5 2"]:
    """Compute both eyes' centers, the tip of the nose and the corners of the mouth from 68 iBUG landmarks."""
    eyes = [landmarks[:, eye].mean(1) for eye in _EYES]
    others = [landmarks[:, point] for point in (_NOSE_TIP, *_MOUTH_CORNERS)]
    return np.stack([*eyes, *others], axis=1).astype(np.float64)


def placement(points: Float[np.ndarray, "P 2"], wanted: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "2 3"]:
    """Fit the similarity transform (rotation, scale, translation; no reflection) between two point sets by least squares.

    In the complex plane it is w = a z + b, a linear regression.

    Returns:
        A matrix for column vectors [x, y, 1]; NaN for unknown points, or points that are all identical.
    """
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points, wanted))
    z_middle, w_middle = z.mean(), w.mean()
    spread = np.square(np.abs(z - z_middle)).sum()
    if not spread > 0:
        return np.full((2, 3), np.nan)
    a = (np.conj(z - z_middle) * (w - w_middle)).sum() / spread
    b = w_middle - a * z_middle
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
