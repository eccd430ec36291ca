"""Smooths landmarks over time by the one-euro filter: steady when a face rests, without delay when it moves.

G. Casiez, N. Roussel and D. Vogel, *1 € Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems*,
CHI 2012. A first-order low-pass filter whose cutoff frequency grows with the speed of the signal.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_SPEED_CUTOFF = 1.0
"""Hz, of the filter that the speed itself passes; the paper's value."""


class OneEuro(NamedTuple):
    """Settings of the filter, for signals in shares of a frame's side and seconds."""

    min_cutoff: float = 2.0
    """Hz, of a signal that rests; lower is steadier."""
    beta: float = 20.0
    """Hz by which the cutoff grows with a speed of one side a second; higher follows faster."""


class LandmarkFilter:
    """The filter's state for one face: call it with the landmarks of one frame after the other."""

    def __init__(self, settings: OneEuro) -> None:
        """Nothing is known yet.

        Raises:
            ValueError: for a cutoff that is not positive, or a negative beta.
        """
        if not (settings.min_cutoff > 0 and settings.beta >= 0):
            raise ValueError(f"smoothing needs a positive cutoff and a beta of at least 0, but {settings} came")
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget the face: the next landmarks pass as they are."""
        self._time = -math.inf
        self._value: np.ndarray | None = None
        self._speed = np.zeros(0)

    def __call__(self, landmarks: Float[np.ndarray, "P 2"], *, time: float) -> Float[np.ndarray, "P 2"]:
        """The smoothed landmarks of a frame at `time` seconds; a point that is NaN stays it, and begins anew afterwards.

        Each point has its own cutoff, by its own speed: the jaw may rest while the lips move.

        Raises:
            ValueError: if time does not go on.
        """
        value = np.asarray(landmarks, np.float64)
        if self._value is None:
            self._value, self._speed, self._time = value, np.zeros_like(value), time
            return landmarks
        step = time - self._time
        if not step > 0:
            raise ValueError(f"frames must follow each other in time, but {time} s follows {self._time} s")
        before = np.where(np.isfinite(self._value), self._value, value)
        raw = np.nan_to_num((value - before) / step)
        self._speed += smoothing_factor(step, _SPEED_CUTOFF) * (raw - self._speed)
        speed = np.linalg.norm(self._speed, axis=-1, keepdims=True)
        share = smoothing_factor(step, self._settings.min_cutoff + self._settings.beta * speed)
        self._value, self._time = before + share * (value - before), time
        return self._value.astype(landmarks.dtype)


def smoothing_factor(step: float, cutoff: float | Float[np.ndarray, "*any"]) -> float | Float[np.ndarray, "*any"]:
    """The weight of a new value in a first-order low-pass filter, for a step in seconds and a cutoff in Hz."""
    turn = 2 * math.pi * cutoff * step
    return turn / (turn + 1)
