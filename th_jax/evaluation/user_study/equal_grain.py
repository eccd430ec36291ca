"""Adds the grain of a watermark to every image of a triplet, so that the mark of the generated one does not reveal it.

Generated images are not shown unmarked, and small ones are marked so strongly that the grain is visible when they are
enlarged (docs/provenance.md). The real ones beside them get the same amount.
"""

import hashlib

import numpy as np
from jaxtyping import UInt8

from th_jax.provenance.watermark.detect import detect
from th_jax.provenance.watermark.messages import mark_frames, marking_of

_FALSE_FINDS = 1e-3
"""One real image in a thousand may be taken for a marked one; an overlooked mark would be added twice."""


def with_grain(image: UInt8[np.ndarray, "S S 3"], *, digest: str) -> UInt8[np.ndarray, "S S 3"]:
    """Add a mark to an image that has none; below 64 px, where no mark fits, images are unchanged.

    The first bits of the digest are the message. It differs for each image, because two images with the same grain
    would reveal the third.

    Raises:
        ValueError: if the digest is too short or not hexadecimal.
    """
    marking = marking_of(digest, size=len(image), kind="still")
    if marking is None or detect(image, false_finds=_FALSE_FINDS).marks:
        return image
    return next(mark_frames([image], marking.mark))


def grain_digest(study: str, *, path: str) -> str:
    """Compute the digest for an image's grain, which only says that it was shown in this study; SHA-256 in hexadecimal.

    `study` is its random number, `path` that of the image inside the folder of frames.
    """
    return hashlib.sha256(f"{study}/{path}".encode()).hexdigest()
