"""Identity features of a named face network: faces brought to ArcFace's place by their landmarks, then through the network."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.evaluation.networks.network_file import FeatureNetwork, load_network
from th_jax.evaluation.networks.network_input import NetworkInput

ARCFACE_SIZE = 112
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where Deng et al. (2019) put the eyes, the tip of the nose and the corners of the mouth in a crop of 112 px: pixels, x then
y, the centre of the first pixel at 0, the picture's left before its right."""

IDENTITY_INPUT = NetworkInput(ARCFACE_SIZE, (127.5, 127.5, 127.5), (128.0, 128.0, 128.0))
"""What ArcFace and MobileFaceNet want, unless a JSON file beside the network says other."""

_EYES = slice(36, 42), slice(42, 48)
_NOSE_TIP, _MOUTH_CORNERS = 30, (48, 54)


def load_identity_network(name: str, path: Path) -> FeatureNetwork:
    """A face network from FILE.onnx or FILE.tflite, by default as ArcFace wants its pictures.

    Raises:
        NetworkFileError, ImportError: as `load_network`.
    """
    return load_network(name, path, default=IDENTITY_INPUT)


def identity_features(
    network: FeatureNetwork, frames: UInt8[np.ndarray, "N H W 3"], landmarks: Float[np.ndarray, "N P 2"]
) -> Float[np.ndarray, "N D"]:
    """Features of unit length, float64; a row of NaN where the landmarks are NaN or fall on one point.

    Args:
        network: by `load_identity_network`.
        frames: RGB.
        landmarks: of the face in each, in [0, 1], as `measure_faces` finds them.

    Raises:
        NetworkFileError: as `FeatureNetwork.features`.
    """
    rows = np.full((len(frames), network.width), np.nan)
    points = five_points(landmarks) * (frames.shape[2], frames.shape[1])
    for number, (frame, five) in enumerate(zip(frames, points, strict=True)):
        # A landmark counts pixels from the frame's edge, the crop from the centre of the first one.
        placed = placement(five - 0.5, ARCFACE_POINTS * (network.wants.size / ARCFACE_SIZE))
        if not np.isfinite(placed).all():
            continue
        face = cv2.warpAffine(frame, placed, (network.wants.size, network.wants.size), flags=cv2.INTER_LINEAR)
        features = network.features(np.asarray(face)[None])[0].astype(np.float64)
        length = np.linalg.norm(features)
        rows[number] = features / length if length > 0 else np.nan
    return rows


def five_points(landmarks: Float[np.ndarray, "N P 2"]) -> Float[np.ndarray, "N 5 2"]:
    """Both eyes' middles, the tip of the nose and the corners of the mouth, from the 68 iBUG landmarks, in their unit."""
    eyes = [landmarks[:, eye].mean(1) for eye in _EYES]
    others = [landmarks[:, point] for point in (_NOSE_TIP, *_MOUTH_CORNERS)]
    return np.stack([*eyes, *others], axis=1).astype(np.float64)


def placement(points: Float[np.ndarray, "P 2"], wanted: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "2 3"]:
    """The similarity (turn, scale, shift; no reflection) that brings points nearest to others by least squares.

    As numbers of the complex plane, w = a z + b, whose least squares are those of a line.

    Returns:
        A matrix for column vectors [x, y, 1]; NaN for unknown points, or points that are all one.
    """
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points, wanted))
    z_middle, w_middle = z.mean(), w.mean()
    spread = np.square(np.abs(z - z_middle)).sum()
    if not spread > 0:
        return np.full((2, 3), np.nan)
    a = (np.conj(z - z_middle) * (w - w_middle)).sum() / spread
    b = w_middle - a * z_middle
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
