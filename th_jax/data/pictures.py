"""What happens to a frame between its JPEG and the batch: decoding, resizing, mirroring, colour jitter; by OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

# Rec. 601 luma: what a colour loses its saturation towards.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class UnreadableFrame(ValueError):
    """The bytes of a frame are no picture that can be used."""


class Look(NamedTuple):
    """How all frames of one episode are changed, so that sources and target keep showing the same person."""

    mirrored: bool
    color_matrix: Float32[np.ndarray, "3 4"] | None
    """RGB in 0..255 to RGB, the last column added; None leaves colours as they are."""


def decode_frame(jpeg: bytes, *, size: int, look: Look | None = None) -> UInt8[np.ndarray, "H H 3"]:
    """The RGB frame in a JPEG, reduced to `size` by area, then changed to its look.

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
    if look is not None and look.mirrored:
        frame = cv2.flip(frame, 1)
    if look is not None and look.color_matrix is not None:
        frame = cv2.transform(frame, look.color_matrix)
    return np.asarray(frame)


def jitter_matrix(*, brightness: float, contrast: float, saturation: float) -> Float32[np.ndarray, "3 4"]:
    """One affine map of RGB in 0..255 for three factors; 1 leaves each as it is.

    Contrast spreads around middle grey, saturation around each pixel's luma; brightness multiplies last.
    """
    saturated = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[None, :]
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = brightness * contrast * saturated
    matrix[:, 3] = brightness * (1 - contrast) * 127.5
    return matrix
