"""Temporal smoothing of a face's motion: the 3D model's pose, expression and gaze are filtered, not the points.

All 68 points of a frame determine each coefficient, so that their noise is averaged before it is filtered: less of it is taken
for motion, which would raise the filter's cutoff. Coefficients are scaled to the distances by which they move points in the
image, so that the settings mean the same as for points. What the model does not explain is filtered point by point, and more.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from th_jax.landmarks.model3d import Frames, LandmarkModel, Person, eye_radius, predict
from th_jax.landmarks.smooth import LandmarkFilter, OneEuro

_RESIDUAL_CUTOFF = 0.25
"""Cutoff at rest of what the model does not explain, relative to that of its coefficients: it is mostly noise."""


_BETA = 2.0
"""Factor of beta: a point's motion is shared by several signals, each of which is slower."""


class MotionFilter:
    """Filter of one face's motion; call it with consecutive frames."""

    def __init__(self, settings: OneEuro, model: LandmarkModel, person: Person) -> None:
        """Create a filter without history.

        Raises:
            ValueError: if the cutoff is not positive or beta is negative.
        """
        self._model, self._person = model, person
        names = (*Frames._fields, "residual")
        settings = settings._replace(beta=_BETA * settings.beta)
        slow = settings._replace(min_cutoff=_RESIDUAL_CUTOFF * settings.min_cutoff)
        self._filters: Mapping[str, LandmarkFilter] = {
            name: LandmarkFilter(slow if name == "residual" else settings) for name in names
        }
        moved = np.linalg.norm(np.asarray(model.expression), axis=-1).max(-1)
        self._reach = {**dict.fromkeys(names, np.ones(1)), "expression": moved}
        self._reach["gaze"] = np.asarray(eye_radius(model, person))[None]
        self.reset()

    def reset(self) -> None:
        """Clear the history; the next frame passes unchanged."""
        self._size: float | None = None
        for one in self._filters.values():
            one.reset()

    def __call__(
        self, points: Float[np.ndarray, "70 2"], frame: Frames, *, time: float
    ) -> tuple[Float[np.ndarray, "70 2"], Frames]:
        """Smooth a frame at `time` seconds, and return its points and its motion.

        Args:
            points: points in [0, 1]; NaN stays NaN.
            frame: motion fitted to them.
            time: seconds.

        Raises:
            ValueError: if `time` does not increase.
        """
        residual = points - np.asarray(predicted(self._model, self._person, frame))
        if self._size is None:
            self._size = float(np.exp(frame.log_scale))  # of a model unit in the image
        smoothed = {"residual": self._filters["residual"](residual.astype(np.float64), time=time)}
        for name, value in frame._asdict().items():
            reach = self._reach[name] * (1.0 if name == "place" else self._size)
            row = np.atleast_1d(np.asarray(value, np.float64))[None]  # one row: its entries share a speed
            smoothed[name] = self._filters[name](row * reach, time=time)[0] / reach
        still = Frames(*(jnp.asarray(smoothed[name], jnp.float32) for name in Frames._fields))
        still = still._replace(log_scale=still.log_scale[0])
        points = np.asarray(predicted(self._model, self._person, still)) + smoothed["residual"]
        return points.astype(np.float32), still


@jax.jit
def predicted(model: LandmarkModel, person: Person, frame: Frames) -> Float[Array, "70 2"]:
    """Compute `predict` as one compiled program."""
    return predict(model, person, frame)
