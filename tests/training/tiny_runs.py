"""Tiny networks, states, batches and compiled steps that the tests of training share."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

VIDEOS = 12


@functools.cache
def networks(compute_dtype: str = "float32") -> Any:
    """The smallest networks there are."""
    from th_jax.models.networks import Networks

    return Networks(image_size=16, base_width=4, compute_dtype=compute_dtype)


def losses() -> Any:
    """Every term has a weight, and none drowns the others."""
    from th_jax.losses import LossWeights

    return LossWeights({"vgg16": 1e-2}, pixel=10.0, landmark_box=3.0)


def optimizers(kind: str = "sgd") -> Any:
    """Descent, whose updates are continuous in the gradients, or Adam."""
    from th_jax.training.optimizers import AdamSettings, Optimizers

    return Optimizers(AdamSettings(1e-3, kind=kind), AdamSettings(1e-3, kind=kind), averaging=0.9)


@pytest.fixture(scope="module")
def perceptual() -> Iterator[dict[str, Any]]:
    """VGG16 with a few channels a layer."""
    from th_jax.perceptual import vgg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, "CHANNELS", (2, 3, 4, 5, 6))
        rng = np.random.default_rng(0)
        yield {
            "vgg16": {
                name: {
                    "kernel": jnp.asarray(rng.normal(size=shape, scale=0.3).astype(np.float32)),
                    "bias": jnp.zeros(shape[-1]),
                }
                for name, shape in vgg.layer_shapes("vgg16").items()
            }
        }


@functools.cache
def compiled_step(kind: str = "sgd", compute_dtype: str = "float32", **settings: Any) -> Callable[..., Any]:
    """A jitted step, compiled once for all tests of a process."""
    from th_jax.training.meta_step import make_meta_train_step

    return jax.jit(make_meta_train_step(networks(compute_dtype), optimizers(kind), losses(), **settings))


def tiny_state(kind: str = "sgd", *, seed: int = 0, videos: int = VIDEOS) -> Any:
    """A state at its start."""
    from th_jax.training.state import init_table, start_from

    table = init_table(networks(), jax.random.key(seed + 1), videos=videos)
    return start_from(optimizers(kind), networks().init(jax.random.key(seed)), table)


def tiny_batch(*, episodes: int = 8, sources: int = 2, seed: int = 0, videos: int = VIDEOS) -> Any:
    """Noise with landmarks inside the frame; videos may occur twice."""
    from th_jax.types import EpisodeBatch

    rng = np.random.default_rng(seed)
    size = 16
    return EpisodeBatch(
        source_frames=rng.integers(0, 256, (episodes, sources, size, size, 3), dtype=np.uint8),
        source_landmarks=rng.uniform(0.2, 0.8, (episodes, sources, 68, 2)).astype(np.float32),
        target_frame=rng.integers(0, 256, (episodes, size, size, 3), dtype=np.uint8),
        target_landmarks=rng.uniform(0.2, 0.8, (episodes, 68, 2)).astype(np.float32),
        video_index=rng.integers(0, videos, episodes, dtype=np.int32),
    )


def largest_difference(one: Any, other: Any) -> float:
    """Over all numbers of two trees, as a share of the largest number of the leaf, or of 1e-3 if all are smaller."""

    def difference(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1e-3))

    return max(jax.tree.leaves(jax.tree.map(difference, one, other)))


def equal_bits(one: Any, other: Any) -> bool:
    """Whether two trees are the same to the last bit."""
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), one, other)))
