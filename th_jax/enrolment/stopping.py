"""When to stop fine-tuning: too few steps lose identity, too many lose expression. Shots that are held out decide.

With 8 shots or more, some are kept from training. Every few steps the avatar redraws them; the landmark error and the identity
distance to the real pictures, each relative to the feed-forward avatar's, are averaged, and the avatar with the smallest is
kept. With fewer shots there is none to spare: then the number of steps is that of the schedule (docs/fine-tuning.md).
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from th_jax.evaluation import metrics
from th_jax.evaluation.face_measures import FaceMeasures, measure_faces
from th_jax.evaluation.scores import FAILURE_VALUES
from th_jax.models.networks import Networks
from th_jax.rendering.render import FEW, render
from th_jax.topology import IBUG_POINTS
from th_jax.types import Avatar, Shots


class StoppingSettings(NamedTuple):
    """When held-out shots decide, and how patiently."""

    from_shots: int = 8
    """Fewer real shots than this are all trained on."""
    held_out: float = 0.25
    """Share of the shots that is kept from training; at least two."""
    patience: int = 3
    """Looks without a better avatar after which it ends."""


def check_stopping(settings: StoppingSettings) -> None:
    """Refuse what could hold out nothing or everything, or would never stop.

    Raises:
        ValueError: saying what is needed.
    """
    from_shots, held_out, patience = settings
    numbers = type(from_shots) is int and isinstance(held_out, int | float) and type(patience) is int
    if not numbers or from_shots < 3 or not 0 < held_out < 1 or patience < 1:
        raise ValueError(
            "early stopping needs from_shots of at least 3 (0 switches it off), a share held_out between 0 and 1 and a "
            f"patience of at least 1, but they are {from_shots!r}, {held_out!r} and {patience!r}"
        )


def split_shots(shots: Shots, settings: StoppingSettings) -> tuple[Shots, Shots | None]:
    """The shots to train on, and those held out: evenly among the real ones; None if there are too few.

    Shots come in the order in which they were chosen, the most typical pose first: that one is trained on.

    Raises:
        ValueError: as `check_stopping`.
    """
    check_stopping(settings)
    real = np.flatnonzero(np.asarray(shots.mask) > 0)
    if len(real) < settings.from_shots:
        return shots, None
    count = min(max(2, round(settings.held_out * len(real))), len(real) - 1)
    chosen = real[np.linspace(1, len(real) - 1, count).round().astype(int)]
    kept = np.setdiff1d(real, chosen)
    return _taken(shots, kept), _taken(shots, chosen)


class Stopper:
    """One person's: `stop = stopper.look(avatar, step)`, then `stopper.best`.

    Args:
        networks: of the avatars.
        held_out: shots that are not trained on.
        patience: looks without a better avatar after which `look` says stop.

    Raises:
        ImportError, FileNotFoundError: without dlib or its models.
    """

    def __init__(self, networks: Networks, held_out: Shots, *, patience: int) -> None:
        """Measure the real pictures."""
        self._networks, self._landmarks = networks, np.asarray(held_out.landmarks)
        self._real: FaceMeasures = measure_faces(np.asarray(held_out.frames))
        self._patience, self._first = patience, np.zeros(0)
        self.best: Avatar | None = None
        """Its arrays are on the host; those of the first look as they came."""
        self.best_step = 0
        self.scores: list[float] = []
        """Of each look; 1 is as good as the feed-forward avatar, lower is better."""

    @property
    def usable(self) -> Bool[np.ndarray, " T"]:
        """In which of the real pictures the detector sees a face: without any there is nothing to decide by."""
        seen: Bool[np.ndarray, " T"] = np.isfinite(self._real.landmarks).all((-1, -2))
        return seen

    def look(self, avatar: Avatar, step: int) -> bool:
        """Score an avatar, and say whether to stop. The first look must be at the feed-forward avatar."""
        errors = self._errors(avatar)
        self._first = errors if not self.scores else self._first
        self.scores.append(float(np.mean(errors / np.maximum(self._first, 1e-6))))
        if self.scores[-1] <= min(self.scores):
            # On the host: as many people may wait as a round has places. The first one's generator is the meta weights' own.
            self.best = jax.device_get(avatar) if len(self.scores) > 1 else avatar
            self.best_step = step
        return len(self.scores) - 1 - int(np.argmin(self.scores)) >= self._patience

    def _errors(self, avatar: Avatar) -> Float[np.ndarray, "2"]:
        """Mean landmark error and identity distance; a frame without a face is charged for one."""
        seen = self.usable
        frames = render(self._networks, avatar, self._landmarks[seen], chunk=FEW)
        made = measure_faces(frames)
        true = self._landmarks[seen][:, :IBUG_POINTS]
        landmark = metrics.landmark_error(made.landmarks, true)
        identity = metrics.identity_l2(made.descriptors, self._real.descriptors[seen])
        pairs = ((landmark, FAILURE_VALUES["landmark_error"]), (identity, FAILURE_VALUES["identity/l2"]))
        return np.array([np.where(np.isnan(values), charge, values).mean() for values, charge in pairs])


def _taken(shots: Shots, which: np.ndarray) -> Shots:
    return Shots(np.asarray(shots.frames)[which], np.asarray(shots.landmarks)[which], np.asarray(shots.mask)[which])
