"""What a learned watermark has to offer to be used beside the built-in one. None is bundled, and none has been run yet."""

from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from th_jax.watermark.detect import Findings


class LearnedMark(Protocol):
    """An embedder and a detector with weights of their own, which the user names by path and loads without pickle.

    Video Seal (Fernandez et al., 2024) would be exported as two ONNX graphs and run by ONNX Runtime. Its score is a network's:
    whoever writes such a class has to measure its false finds, since no bound like that of the built-in mark holds for it.
    """

    bits: int
    """Size of the message."""

    def embed(self, frames: UInt8[np.ndarray, "B S S 3"], message: int) -> UInt8[np.ndarray, "B S S 3"]:
        """The frames with the message; RGB in 0..255, on the host, after generation."""
        ...

    def detect(self, picture: UInt8[np.ndarray, "H W 3"]) -> Findings:
        """The marks of a picture of any size, as the built-in detector reports them."""
        ...
