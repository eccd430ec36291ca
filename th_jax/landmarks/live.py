"""Retargeting with the 3D landmark model frame by frame, for a live driver: warm starts, and a running neutral expression.

The first frames of a driver may show a smile. The neutral expression is therefore a running mean of the calm frames: those
whose expression energy is near the lowest so far, a level that rises slowly so that a changed camera or mood is followed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from th_jax.landmarks.model3d import Frames, LandmarkModel, fit_frame, fit_frames, load_model, with_pupil_rows
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.landmarks.transfer import UNCHANGED, Face, Gains, check_gains, fit_face, transfer_one

LIVE_STEPS = 4
"""Gauss-Newton iterations per frame, from the frame before."""

_CALM, _CALM_OFFSET = 1.5, 1.0
"""A frame is calm if its energy is below this factor of the lowest, plus an offset."""

_FOLLOW, _RISE = 0.1, 0.002
"""Share of a calm frame in the running mean, and the relative rise of the lowest energy per frame."""


class LiveState(NamedTuple):
    """What is known of the driver so far."""

    driver: Face
    frame: Frames
    lowest: Float[Array, ""]
    """Lowest expression energy so far, slowly rising."""


class LiveRetargeter:
    """Adapts a live driver's landmarks to a target's face; call it with consecutive frames."""

    def __init__(
        self,
        target: Float[np.ndarray, "T P 2"],
        first: Float[np.ndarray, "S P 2"],
        *,
        model: LandmarkModel | None = None,
        gains: Gains = UNCHANGED,
    ) -> None:
        """Fit both faces.

        Args:
            target: landmarks of the target's shots in [0, 1].
            first: landmarks of the driver's first frames, which fix their identity.
            model: the landmark model; the bundled one by default.
            gains: factors of the motion by region.

        Raises:
            ValueError: if either has no usable frame, or a gain is not from 0 to 2.
        """
        check_gains(gains)
        self._model = load_model() if model is None else model
        self._target, driver = fit_face(target, model=self._model), fit_face(first, model=self._model)
        self._gains = Gains(*map(jnp.float32, gains))
        frames = fit_frames(first[-1:], driver.person, model=self._model)
        lowest = (driver.neutral.expression**2).sum()
        self.state = LiveState(driver, Frames(*(leaf[0] for leaf in frames)), lowest)

    @property
    def driver(self) -> Face:
        """The driver's face, as known so far."""
        return self.state.driver

    def __call__(self, landmarks: Float[np.ndarray, "S P 2"]) -> Float[np.ndarray, "S P 2"]:
        """Adapt one frame or several consecutive ones; frames without all 68 points stay unknown and change nothing."""
        result = np.full(landmarks.shape, np.nan, landmarks.dtype)
        for number, points in enumerate(with_pupil_rows(landmarks)):
            if np.isfinite(points[:IBUG_POINTS]).all():
                result[number] = self.move(points, self.fit(points))[: landmarks.shape[1]]
        return result

    def fit(self, points: Float[np.ndarray, "70 2"]) -> Frames:
        """Fit the next frame, all 68 points of which are known, and update what is known of the driver."""
        self.state = live_fit(self._model, self.state, jnp.asarray(points))
        return self.state.frame

    def move(self, points: Float[np.ndarray, "70 2"], frame: Frames) -> Float[np.ndarray, "70 2"]:
        """Move a fitted frame to the target; pupils are NaN where the driver's are."""
        return np.asarray(transfer_one(self._model, jnp.asarray(points), frame, self.driver, self._target, self._gains))


@jax.jit
def live_fit(model: LandmarkModel, state: LiveState, points: Float[Array, "70 2"]) -> LiveState:
    """Fit one frame from the one before, and update the neutral expression.

    Args:
        model: the landmark model.
        state: what is known of the driver.
        points: the driver's points in [0, 1], all 68 known.
    """
    driver = state.driver
    frame = fit_frame(model, driver.person, points, state.frame, steps=LIVE_STEPS)
    energy = (frame.expression**2).sum()
    share = jnp.where(energy < _CALM * state.lowest + _CALM_OFFSET, _FOLLOW, 0.0)
    usual = driver.neutral
    calm = usual.expression + share * (frame.expression - usual.expression)
    driver = driver._replace(neutral=usual._replace(expression=calm))
    lowest = jnp.minimum(energy, state.lowest * (1 + _RISE) + 1e-3)
    return LiveState(driver, frame, lowest)
