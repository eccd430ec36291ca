"""The signs of health are what they are called."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny_runs import losses, networks, perceptual, tiny_batch, tiny_state  # noqa: F401 - a fixture

from th_jax.training.health import make_health
from th_jax.training.objectives import draw_sources, draw_targets, synthesise


def test_signs_of_a_fresh_state(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    health = jax.jit(make_health(networks(), losses()))(state, perceptual, batch)
    sources, targets = (draw(networks(), jax.tree.map(jnp.asarray, batch)) for draw in (draw_sources, draw_targets))
    made = jax.jit(functools.partial(synthesise, networks()))(state.weights.synthesis, sources, targets.landmarks)
    lengths = np.linalg.norm(np.asarray(made.embedding), axis=-1)
    np.testing.assert_allclose(health["health/embedding_norm"], lengths.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        health["health/dead_embedding"], (np.asarray(made.embedding) == 0).all(0).mean(), atol=1e-6
    )
    rows = np.asarray(state.table.rows)[batch.video_index]
    np.testing.assert_allclose(health["health/row_norm"], np.linalg.norm(rows, axis=-1).mean(), rtol=1e-5)
    for term in ("content", "pixel", "adversarial", "feature_matching"):
        assert health[f"health/gradient_{term}"] > 0, term
    assert 0 < health["health/adversary_share"] < np.inf
    assert 0 <= health["health/dead_trunk"] < 1
    assert health["health/embedding_spread"] > 0


def test_before_the_adversary_joins_only_content_is_looked_at(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    health = jax.jit(make_health(networks(), losses(), adversary=False))(state, perceptual, batch)
    assert {name for name in health if "gradient" in name} == {"health/gradient_content", "health/gradient_pixel"}
    assert "health/score_size" not in health
    assert "health/adversary_share" not in health
    # 10 x mean over positions and channels of |difference| / 2, whose weights average to one: each picture's gradient
    # has the length 10 / 2 / count x root of the sum of squared weights, at least that of equal weights.
    count, episodes = 16 * 16 * 3, len(batch.video_index)
    assert health["health/gradient_pixel"] >= 0.99 * 5 / (episodes * np.sqrt(count))
