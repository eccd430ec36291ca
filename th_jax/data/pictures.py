"""What happens to a frame between its JPEG and the batch: decoding, resizing, mirroring, colour jitter; by OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

# Rec. 601 luma: what a colour loses its saturation towards.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class UnreadableFrame(ValueError):
    """The bytes of a frame are no picture that can be used."""


class Augmentation(NamedTuple):
    """How all frames of one episode are changed, so that sources and target keep showing the same person."""

    mirrored: bool
    color_matrix: Float32[np.ndarray, "3 4"] | None
    """RGB in 0..255 to RGB, the last column added; None leaves colours as they are."""
    scale: float = 1.0
    """Factor by which the frame is enlarged about its center; below 1, its edge pixels are repeated around it."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Motion to the right and down after scaling, as shares of the side."""

    @property
    def moves(self) -> bool:
        """Whether anything changes its place apart from mirroring."""
        return self.scale != 1.0 or self.shift != (0.0, 0.0)

    def move(self, points: Float32[np.ndarray, "*batch 2"]) -> Float32[np.ndarray, "*batch 2"]:
        """Landmarks in [0, 1], mirrored already, to where scale and shift move them; they may leave [0, 1]."""
        if not self.moves:
            return points
        return (self.scale * (points - 0.5) + 0.5 + np.array(self.shift)).astype(np.float32)


def decode_frame(jpeg: bytes, *, size: int, augmentation: Augmentation | None = None) -> UInt8[np.ndarray, "H H 3"]:
    """The RGB frame in a JPEG, reduced to `size` by area, then mirrored, moved and recolored.

    Raises:
        UnreadableFrame: if the bytes hold no picture, or one that is smaller than `size` or not square.
    """
    frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
    if frame is None:
        raise UnreadableFrame(f"a frame's {len(jpeg)} bytes are no JPEG")
    height, width = frame.shape[:2]
    if height != width or height < size:
        raise UnreadableFrame(f"a frame must be square with at least {size} px, but {width} x {height} came")
    if height != size:
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    if augmentation is None:
        return np.asarray(frame)
    if augmentation.mirrored:
        frame = cv2.flip(frame, 1)
    if augmentation.moves:
        frame = _moved(frame, augmentation)
    if augmentation.color_matrix is not None:
        frame = cv2.transform(frame, augmentation.color_matrix)
    return np.asarray(frame)


def _moved(frame: UInt8[np.ndarray, "H H 3"], augmentation: Augmentation) -> UInt8[np.ndarray, "H H 3"]:
    size, scale = len(frame), augmentation.scale
    middle = 0.5 * (size - 1)  # OpenCV counts from the middle of the first pixel
    matrix = np.array([[scale, 0.0, middle], [0.0, scale, middle]])
    matrix[:, 2] += size * np.array(augmentation.shift) - scale * middle
    moved = cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def jitter_matrix(*, brightness: float, contrast: float, saturation: float) -> Float32[np.ndarray, "3 4"]:
    """One affine map of RGB in 0..255 for three factors; 1 leaves each as it is.

    Contrast spreads around middle grey, saturation around each pixel's luma; brightness multiplies last.
    """
    saturated = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[None, :]
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = brightness * contrast * saturated
    matrix[:, 3] = brightness * (1 - contrast) * 127.5
    return matrix
