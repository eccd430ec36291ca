"""Rendered heads of the bundled data set at any size, and the changes that an image may undergo."""

import functools
import itertools

import cv2
import jax
import numpy as np

from th_jax.data.episodes import decode_frame
from th_jax.data.records import FRAME_SIZE, bundled_heads, read_videos
from th_jax.provenance.watermark.embed import embed, make_mark
from th_jax.provenance.watermark.layout import Kind, layout_of

program = jax.jit(embed)


@functools.cache
def heads(size: int, *, people: int = 6, frames: int = 1) -> np.ndarray:
    """`[people * frames, size, size, 3]`: the first frames of held-out people, one person after the other."""
    chosen = itertools.islice(read_videos(bundled_heads(), "heldout"), people)
    images = [decode_frame(jpeg, size=FRAME_SIZE) for _, record in chosen for jpeg in record.frames[:frames]]
    method = cv2.INTER_AREA if size < FRAME_SIZE else cv2.INTER_CUBIC
    resized = np.stack([cv2.resize(image, (size, size), interpolation=method) for image in images])
    resized.flags.writeable = False
    return resized


def message_for(size: int, kind: Kind, *, seed: int = 0) -> int:
    """A random message that fills its layout."""
    return int(np.random.default_rng([seed, size]).integers(0, 1 << layout_of(size, kind).bits))


def marked(frames: np.ndarray, message: int, *, kind: Kind = "still", key: bytes | None = None) -> np.ndarray:
    """Embed the message in the frames."""
    options = {} if key is None else {"key": key}
    return np.asarray(program(frames, make_mark(message, size=frames.shape[1], kind=kind, **options)))


def psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """PSNR of each frame, in dB."""
    difference = frames.astype(np.float64) - others.astype(np.float64)
    return 10 * np.log10(255.0**2 / np.mean(difference**2, axis=(1, 2, 3)))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The image after JPEG with chroma subsampling."""
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """The image at another size."""
    height, width = image.shape[:2]
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def cropped(image: np.ndarray, *, left: int, top: int, share: float = 0.9) -> np.ndarray:
    """A crop of `share` of the image's sides, from a corner."""
    side = int(image.shape[0] * share)
    return np.ascontiguousarray(image[top : top + side, left : left + side])
