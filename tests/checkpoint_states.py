"""States to save in the tests of checkpoints: every dtype, NaN, an empty part, a table with rows."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from th_jax.storage.checkpoint_format import named_leaves
from th_jax.storage.checkpoints import Checkpoints

ABOUT = {"config": {"networks": {"image_size": 16, "base_width": 4}, "seed": 0}, "video_list": "ab" * 32}


class Group(NamedTuple):
    params: dict
    stats: dict


class State(NamedTuple):
    step: jax.Array
    weights: Group
    table: jax.Array


def state_of(seed: int, *, width: int = 16) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "kernel": rng.normal(size=(3, 3, 4, width)).astype(np.float32),
        "half": rng.normal(size=(5,)).astype(jnp.bfloat16),
        "flags": rng.random(7) < 0.5,
        "bytes": rng.integers(0, 256, (3, 5), dtype=np.uint8),
        "nan": np.array([np.nan, -0.0, np.inf], np.float32),
        "none": {},
    }
    table = rng.normal(size=(256, width)).astype(np.float32)
    return jax.tree.map(jnp.asarray, State(np.int32(seed), Group(params, {}), table))


def shapes_of(state, sharding: jax.sharding.Sharding | None = None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def assert_same_bits(a: State, b: State) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for name, leaf in named_leaves(a).items():
        other = named_leaves(b)[name]
        assert leaf.dtype == other.dtype, name
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes(), name


def three_in(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1, 2 and 3."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            assert checkpoints.save(step, state_of(step), description=ABOUT)
    return folder
