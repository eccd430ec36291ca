"""Settling sets the rows that are visited to their videos' embeddings, and w0 to zero."""

from typing import Any

import jax
import numpy as np
from tiny_runs import networks, tiny_batch, tiny_state

from th_jax.images import to_network_range
from th_jax.models.networks import group
from th_jax.training.state import make_embed_batch, reset_table_to_embeddings


def test_rows_become_mean_embeddings() -> None:
    state = tiny_state()
    batches = [tiny_batch(episodes=4, seed=seed) for seed in range(2)]
    batches = [b._replace(video_index=np.arange(4, dtype=np.int32) + 4 * i) for i, b in enumerate(batches)]
    settled = reset_table_to_embeddings(state, batches, embed=jax.jit(make_embed_batch(networks())))
    embedder = group(state.weights.synthesis, "embedder")

    def alone(batch: Any, episode: int) -> Any:
        frames = to_network_range(jax.numpy.asarray(batch.source_frames[episode]))
        points = jax.numpy.asarray(batch.source_landmarks[episode])
        return networks().embed(embedder, frames, networks().landmark_image(points)).mean(0)

    np.testing.assert_allclose(settled.table.rows[5], alone(batches[1], 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(settled.table.rows[2], alone(batches[0], 2), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(settled.table.rows[8:], state.table.rows[8:])
    assert not np.any(settled.weights.discriminator.params["shared"])
    assert settled.weights.synthesis is state.weights.synthesis


def test_a_trained_discriminator_keeps_its_shared_vector() -> None:
    state = tiny_state()
    settled = reset_table_to_embeddings(
        state, [tiny_batch(episodes=4)], embed=jax.jit(make_embed_batch(networks())), keep_shared=True
    )
    assert settled.weights is state.weights
