"""Gives every picture of a triplet the grain of a watermark, so that the mark of the generated one does not tell it.

Generated pictures are not shown unmarked, and small ones are marked so strongly that the grain is seen when they are enlarged
(docs/provenance.md). Real ones beside them get as much of it.
"""

import hashlib

import numpy as np
from jaxtyping import UInt8

from th_jax.watermark.detect import detect
from th_jax.watermark.messages import mark_frames, marking_of

_FALSE_FINDS = 1e-3
"""One real picture in a thousand may be taken for marked; a mark that is overlooked would be put in twice."""


def with_grain(picture: UInt8[np.ndarray, "S S 3"], *, digest: str) -> UInt8[np.ndarray, "S S 3"]:
    """The picture as it is if it has a mark, else with one; below 64 px, where no mark has room, always as it is.

    Args:
        picture: real or generated.
        digest: of which the message is the first bits, in hexadecimal. Another one for each picture: two of one grain would
            tell the third.

    Raises:
        ValueError: for a digest that is too short or not hexadecimal.
    """
    marking = marking_of(digest, size=len(picture), kind="still")
    if marking is None or detect(picture, false_finds=_FALSE_FINDS).marks:
        return picture
    return next(mark_frames([picture], marking.mark))


def grain_digest(study: str, *, path: str) -> str:
    """What the grain of a picture says: nothing but that it was shown in this study; SHA-256 in hexadecimal.

    Args:
        study: the study's random number.
        path: of the picture, inside the folder of frames.
    """
    return hashlib.sha256(f"{study}/{path}".encode()).hexdigest()
