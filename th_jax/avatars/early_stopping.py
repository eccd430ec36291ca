"""Early stopping of fine-tuning by held-out shots.

Too few steps lose identity, and too many lose expression. With 8 shots or more, some are held out of training. Every
few steps the avatar reconstructs them. Their landmark error and the identity distance to the real images, each relative
to that of the feed-forward avatar, are averaged, and the avatar with the smallest average is kept. With fewer shots,
none can be spared, and the schedule sets the number of steps (docs/fine-tuning.md).
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from th_jax.evaluation import metrics
from th_jax.evaluation.face_measures import FaceMeasures, measure_faces
from th_jax.evaluation.scores import FAILURE_VALUES
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.models.networks import Networks
from th_jax.render import FEW, render
from th_jax.types import Avatar, Shots


class StoppingSettings(NamedTuple):
    """Settings of early stopping."""

    from_shots: int = 8
    """Minimum number of real shots for early stopping; with fewer, all of them are trained on."""
    held_out: float = 0.25
    """Share of the shots that is held out of training; at least two shots are."""
    patience: int = 3
    """Number of evaluations without improvement after which fine-tuning stops."""

    def checked(self) -> "StoppingSettings":
        """Return the settings, if they hold out some shots but not all, and fine-tuning can stop.

        Raises:
            ValueError: if a setting is out of range.
        """
        from_shots, held_out, patience = self
        numbers = type(from_shots) is int and isinstance(held_out, int | float) and type(patience) is int
        if not numbers or from_shots < 3 or not 0 < held_out < 1 or patience < 1:
            raise ValueError(
                "early stopping needs from_shots >= 3 (or 0 to disable it), 0 < held_out < 1 and patience >= 1, got "
                f"{from_shots!r}, {held_out!r} and {patience!r}"
            )
        return self


def split_shots(shots: Shots, settings: StoppingSettings) -> tuple[Shots, Shots | None]:
    """Split shots into a training set and a held-out set.

    The held-out shots are spread evenly over the real ones. The first shot, which has the most typical pose, is always
    trained on.

    Returns:
        The shots to train on, and the held-out shots, or None if there are too few shots to hold any out.

    Raises:
        ValueError: if the settings are invalid (see `StoppingSettings.checked`).
    """
    settings.checked()
    real = np.flatnonzero(np.asarray(shots.mask) > 0)
    if len(real) < settings.from_shots:
        return shots, None
    count = min(max(2, round(settings.held_out * len(real))), len(real) - 1)
    chosen = real[np.linspace(1, len(real) - 1, count).round().astype(int)]
    kept = np.setdiff1d(real, chosen)
    return _taken(shots, kept), _taken(shots, chosen)


class Stopper:
    """Early stopping for one person: call `stop = stopper.look(avatar, step)`, then use `stopper.best`.

    Args:
        networks: networks of the avatars.
        held_out: shots that are not trained on.
        patience: number of evaluations without improvement after which `look` returns True.

    Raises:
        ImportError: if dlib is not installed.
        FileNotFoundError: if dlib's models are not installed.
    """

    def __init__(self, networks: Networks, held_out: Shots, *, patience: int) -> None:
        """Measure the faces of the held-out images."""
        self._networks, self._landmarks = networks, np.asarray(held_out.landmarks)
        self._real: FaceMeasures = measure_faces(np.asarray(held_out.frames))
        self._patience, self._first = patience, np.zeros(0)
        self.best: Avatar | None = None
        """Best avatar so far. Its arrays are on the host, except for an avatar from the first evaluation, which is kept
        unchanged."""
        self.best_step = 0
        self.scores: list[float] = []
        """Score of each evaluation, relative to the feed-forward avatar (1.0); lower is better."""

    @property
    def usable(self) -> Bool[np.ndarray, " T"]:
        """Mask of the held-out images in which a face was detected; without any, scores cannot be computed."""
        seen: Bool[np.ndarray, " T"] = np.isfinite(self._real.landmarks).all((-1, -2))
        return seen

    def look(self, avatar: Avatar, step: int) -> bool:
        """Score an avatar and return whether to stop; the first call must pass the feed-forward avatar."""
        errors = self._errors(avatar)
        self._first = errors if not self.scores else self._first
        self.scores.append(float(np.mean(errors / np.maximum(self._first, 1e-6))))
        if self.scores[-1] <= min(self.scores):
            # Copied to the host, because a whole round of people may be waiting with theirs. The first avatar shares
            # its generator with the meta weights and needs no copy.
            self.best = jax.device_get(avatar) if len(self.scores) > 1 else avatar
            self.best_step = step
        return len(self.scores) - 1 - int(np.argmin(self.scores)) >= self._patience

    def _errors(self, avatar: Avatar) -> Float[np.ndarray, "2"]:
        """Compute the mean landmark error and identity distance; frames without a detected face count with a penalty."""
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
