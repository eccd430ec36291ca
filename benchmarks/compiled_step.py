"""A meta-learning step of ours, compiled apart from its first run, with noise to work on: what several benchmarks time."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from th_jax.landmarks.scheme import PUPIL_POINTS
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.training.dry_run import batch_shapes, perceptual_shapes
from th_jax.training.meta_step import Metrics
from th_jax.training.optimizers import Optimizers
from th_jax.training.programs import MetaPrograms
from th_jax.training.sharding import make_mesh, put_batch
from th_jax.types import EpisodeBatch


class CompiledStep:
    """The whole step of both players on one device: `step()` runs it once and returns when the result is there.

    Args:
        networks: E, P, G and D.
        episodes, sources: B and K of the batch.
        videos: rows of W before padding.
        loss_weights: their `content` names the frozen networks; the paper's by default.
    """

    def __init__(
        self,
        networks: Networks,
        *,
        episodes: int = 1,
        sources: int = 8,
        videos: int = 1000,
        loss_weights: LossWeights | None = None,
    ) -> None:
        """Make weights and batch; nothing is compiled yet."""
        loss_weights = loss_weights or LossWeights()
        frozen = tuple(loss_weights.content)
        self.programs = MetaPrograms(
            networks, Optimizers(), loss_weights, make_mesh(devices=jax.devices()[:1]), videos=videos
        )
        shapes = batch_shapes(episodes=episodes, sources=sources, size=networks.image_size, points=PUPIL_POINTS)
        self.perceptual = random_perceptual(frozen)
        self.batch = random_batch(shapes)
        self.metrics: Metrics = {}
        self.state = self.programs.begin(0)
        self.compile_seconds = 0.0
        """Of tracing, lowering and compiling, once `program` is there."""
        self._on_device = put_batch(self.programs.mesh, self.batch)

    @functools.cached_property
    def program(self) -> Any:
        """The compiled step."""
        start = time.perf_counter()
        compiled = self.programs.lowered_step(0, self.perceptual, self._on_device).compile()
        self.compile_seconds = time.perf_counter() - start
        return compiled

    def __call__(self) -> None:
        """One step on the same batch."""
        self.advance(self._on_device)
        jax.block_until_ready(self.state)

    def advance(self, batch: EpisodeBatch) -> None:
        """One step on a batch that is on the device; returns at once."""
        self.state, self.metrics = self.program(self.state, self.perceptual, batch)

    @property
    def peak_bytes(self) -> int:
        """What the program holds at once: state, frozen networks, batch and its own intermediate arrays."""
        memory = self.program.memory_analysis()
        taken = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return int(taken - memory.alias_size_in_bytes)

    @property
    def temporary_bytes(self) -> int:
        """The intermediate arrays alone."""
        return int(self.program.memory_analysis().temp_size_in_bytes)


def random_perceptual(frozen: Sequence[str]) -> dict[str, Any]:
    """Frozen networks of the right shapes with weights that keep the activations' size."""
    rng = np.random.default_rng(0)

    def draw(layer: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        shape = layer["kernel"].shape
        kernel = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        return {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(shape[-1])}

    return {
        network: {name: draw(layer) for name, layer in layers.items()}
        for network, layers in perceptual_shapes(tuple(frozen)).items()
    }


def random_batch(shapes: EpisodeBatch, *, seed: int = 0) -> EpisodeBatch:
    """Frames of noise with landmarks inside of them; every episode has a video of its own."""
    rng = np.random.default_rng(seed)
    return EpisodeBatch(
        source_frames=rng.integers(0, 256, shapes.source_frames.shape, dtype=np.uint8),
        source_landmarks=rng.uniform(0.2, 0.8, shapes.source_landmarks.shape).astype(np.float32),
        target_frame=rng.integers(0, 256, shapes.target_frame.shape, dtype=np.uint8),
        target_landmarks=rng.uniform(0.2, 0.8, shapes.target_landmarks.shape).astype(np.float32),
        video_index=np.arange(*shapes.video_index.shape, dtype=np.int32),
    )
