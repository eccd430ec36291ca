"""Temporal smoothing by the one-euro filter: steady while a face rests, without delay when it moves. NumPy only.

`LandmarkFilter` smooths points, each by its own speed. `th_jax.landmarks.smooth_motion` smooths what the 3D model finds.

G. Casiez, N. Roussel and D. Vogel, *1 € Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems*,
CHI 2012. A first-order low-pass filter whose cutoff frequency grows with the speed of the signal.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_SPEED_CUTOFF = 1.0
"""Cutoff in Hz of the filter applied to the speed itself; the value of the cited paper."""


class OneEuro(NamedTuple):
    """Settings of the filter, for signals in fractions of a frame's side and times in seconds."""

    min_cutoff: float = 2.0
    """Cutoff in Hz for a signal at rest; lower values are steadier."""
    beta: float = 20.0
    """Increase of the cutoff in Hz per speed of one side per second; higher values follow faster."""


class LandmarkFilter:
    """Filter of one face's landmarks; call it with the landmarks of consecutive frames."""

    def __init__(self, settings: OneEuro) -> None:
        """Create a filter without history.

        Raises:
            ValueError: if the cutoff is not positive or beta is negative.
        """
        if not (settings.min_cutoff > 0 and settings.beta >= 0):
            raise ValueError(f"smoothing needs a positive cutoff and a beta of at least 0, got {settings}")
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Clear the history; the next landmarks pass unchanged."""
        self._time = -math.inf
        self._value: np.ndarray | None = None
        self._speed = np.zeros(0)

    def __call__(self, landmarks: Float[np.ndarray, "P D"], *, time: float) -> Float[np.ndarray, "P D"]:
        """Smooth the landmarks of a frame at `time` seconds.

        A point that is NaN stays NaN, and restarts afterwards. Each point has its own cutoff that depends on its own speed,
        because the jaw may rest while the lips move. Points may have any number of dimensions.

        Raises:
            ValueError: if `time` does not increase.
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
    """Return the weight of a new value in a first-order low-pass filter, for a step in seconds and a cutoff in Hz."""
    turn = 2 * math.pi * cutoff * step
    return turn / (turn + 1)
