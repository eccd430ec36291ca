"""What is known of each picture of a person before shots are chosen: its verdict and, if usable, its face and square."""

import enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from th_jax.faces import Square

MIN_FACE = 24.0
"""Pixels of a face's box below which a picture is left out."""


class Verdict(enum.StrEnum):
    """What became of a picture."""

    USED = "used"
    SPARE = "spare"
    """Good, but others show more varied poses."""
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    """Another face has at least half the score and 0.6 of the side of the most prominent one."""
    TOO_SMALL = "too small"
    OTHER_PERSON = "other person"
    """A stretch of a video whose face is not that of the longest stretch."""
    UNREADABLE = "unreadable"
    NOT_LOOKED_AT = "not looked at"
    """A file in a folder of photos whose ending is none of a picture's that is read."""


class Source(NamedTuple):
    """One picture that was looked at."""

    path: Path
    time: float | None
    """Seconds into a video; None for a photo."""
    verdict: Verdict
    detail: str = ""


class Candidate(NamedTuple):
    """A picture that can be used."""

    source: int
    """Its place in the list of sources."""
    landmarks: Float[np.ndarray, "P 2"]
    """Pixels of the picture after its quarter turns."""
    square: Square
    """In the picture after its quarter turns."""
    quarter_turns: int = 0
    """Counterclockwise, as `numpy.rot90` makes them, so that the face stands up."""
