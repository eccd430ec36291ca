"""The package as a library: pieces inside a caller's jit, vmap and shard_map."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.render import generate_frames, render
from th_jax.training.finetune import avatar_of, feed_forward, make_finetune_chunk, start_finetune
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.training.sharding import DATA_AXIS, make_mesh
from th_jax.types import MetaWeights, Shots

pytestmark = pytest.mark.usefixtures("quickly_compiled")

NETWORKS = Networks(image_size=16, base_width=4)
OPTIMIZERS = Optimizers(AdamSettings(1e-3, kind="sgd"), AdamSettings(1e-3, kind="sgd"))


@pytest.fixture(scope="module")
def weights() -> MetaWeights:
    return NETWORKS.init(jax.random.key(0))


def noise(people: int) -> Shots:
    rng = np.random.default_rng(0)
    return Shots(
        rng.integers(0, 256, (people, 2, 16, 16, 3), dtype=np.uint8),
        rng.uniform(0.2, 0.8, (people, 2, 68, 2)).astype(np.float32),
        np.ones((people, 2), np.float32),
    )


def close(one: Any, other: Any) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), one, other)


def test_fine_tuning_inside_a_callers_jit_and_vmap(weights: MetaWeights) -> None:
    """Two people at once do not touch each other: who the second one is changes nothing of the first."""
    chunk = make_finetune_chunk(NETWORKS, LossWeights({}, pixel=1.0), OPTIMIZERS, steps=1)

    def tuned(shots: Shots) -> Any:
        state = start_finetune(NETWORKS, weights, shots, optimizers=OPTIMIZERS, key=jax.random.key(0))
        state, _ = chunk(state, {}, shots, jnp.int32(1))
        return avatar_of(state)

    # That people at once are what they are alone is the test of finetune_many's rounds.
    together, shots = jax.jit(jax.vmap(tuned)), noise(2)
    first, swapped = (jax.tree.map(np.asarray, together(given)) for given in (shots, Shots(*(x[::-1] for x in shots))))
    close(first, jax.tree.map(lambda leaf: leaf[::-1], swapped))
    assert not all(np.allclose(leaf[0], leaf[1], atol=1e-3) for leaf in jax.tree.leaves(first))


def test_rendering_inside_a_callers_vmap_and_shard_map(weights: MetaWeights) -> None:
    shots = noise(2)
    points = np.random.default_rng(1).uniform(0.2, 0.8, (3, 68, 2)).astype(np.float32)
    avatars = jax.jit(jax.vmap(lambda one: feed_forward(NETWORKS, weights, one)))(shots)

    def drawn(avatars: Any) -> jax.Array:
        return jax.vmap(lambda avatar: generate_frames(NETWORKS, avatar, points))(avatars)

    mesh = make_mesh()
    over, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    spec = over if 2 % mesh.devices.size == 0 else whole
    sharded = jax.jit(jax.shard_map(drawn, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(avatars)
    for number in range(2):
        alone = render(NETWORKS, jax.tree.map(lambda leaf, number=number: leaf[number], avatars), points)
        assert np.abs(np.asarray(sharded)[number].astype(int) - alone.astype(int)).max() <= 1
