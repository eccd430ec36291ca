"""Monitors a run on held-out people at intervals: scores, baselines, and a grid of samples."""

import functools
from typing import Any

import numpy as np

from th_jax.data import VideoRecords
from th_jax.evaluation.face_measures import check_face_models
from th_jax.evaluation.heldout import BASELINES, baseline_frames, generate_heldout, sample_grid
from th_jax.evaluation.people import load_heldout
from th_jax.evaluation.scores import RealFaces, heldout_scores, real_faces
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.run_log import RunLog
from th_jax.types import NetworkState


class HeldOutWatch:
    """Fixed held-out people; their real frames are measured and the baselines scored once, at the first evaluation."""

    def __init__(self, records: VideoRecords, *, faces: bool = True, **chosen: Any) -> None:
        """Load the people's frames.

        Args:
            records: split that the run does not train on.
            faces: whether to measure landmark and identity errors, which requires the extra "video" and takes about 0.3
                s per frame.
            chosen: arguments of `load_heldout`: image_size, people, sources, targets, landmarks, seed.

        Raises:
            ValueError: as `load_heldout`.
            ImportError, FileNotFoundError: as `check_face_models`, if `faces` is True.
        """
        self.held = load_heldout(records, **chosen)
        if faces:
            check_face_models()
        self._faces = faces
        self._baselines: dict[str, dict[str, float]] = {}

    def baselines(self, perceptual: PerceptualWeights) -> dict[str, float]:
        """Compute the scores of every baseline: `heldout/nearest_copy/l1/box` and so on."""
        if not self._baselines:
            for kind in BASELINES:
                self._baselines[kind] = self._scores(baseline_frames(self.held, kind), perceptual)
        return {f"heldout/{kind}/{name}": v for kind, scores in self._baselines.items() for name, v in scores.items()}

    def evaluate(
        self, log: RunLog, step: int, networks: Networks, averaged: NetworkState, perceptual: PerceptualWeights
    ) -> dict[str, float]:
        """Score and render averaged weights, whose u and v match their kernels; logs metrics and samples/STEP.png."""
        if not self._baselines:
            log.metrics(step, self.baselines(perceptual))
        frames = generate_heldout(networks, averaged, self.held)
        scores = {f"heldout/{name}": value for name, value in self._scores(frames, perceptual).items()}
        log.metrics(step, scores)
        log.picture(step, "samples", sample_grid(self.held, frames))
        return scores

    def _scores(self, frames: np.ndarray, perceptual: PerceptualWeights) -> dict[str, float]:
        return heldout_scores(self.held, frames, perceptual=perceptual, faces=self._faces, real=self._real)

    @functools.cached_property
    def _real(self) -> RealFaces | None:
        return real_faces(self.held) if self._faces else None
