"""What each player minimizes, term by term: which side is pulled where, by how much, and with which sign."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tiny_runs import networks, tiny_batch, tiny_state

from th_jax.losses import LossWeights
from th_jax.training.objectives import (
    Synthesis,
    Targets,
    discriminator_objective,
    draw_sources,
    draw_targets,
    embed_sources,
    generator_terms,
    precompute_targets,
)
from th_jax.types import NetworkState


class Scene(NamedTuple):
    """Two episodes as the players see them; generated frames and rows of W are noise."""

    discriminator: NetworkState
    targets: Targets
    made: Synthesis
    rows: jax.Array


def scene() -> Scene:
    rng = np.random.default_rng(0)
    frames, width = (2, 16, 16, 3), networks().plan.embedding
    return Scene(
        tiny_state().weights.discriminator,
        draw_targets(networks(), jax.tree.map(jnp.asarray, tiny_batch(episodes=2))),
        Synthesis(
            jnp.asarray(rng.uniform(-1, 1, frames), jnp.float32), jnp.asarray(rng.normal(size=(2, width)), jnp.float32)
        ),
        jnp.asarray(rng.normal(size=(2, width)), jnp.float32),
    )


@functools.partial(jax.jit, static_argnames="matching")
def objective(seen: Scene, rows: jax.Array, *, matching: float) -> Any:
    return discriminator_objective(
        networks(),
        seen.discriminator.params,
        seen.discriminator.spectral_stats,
        rows,
        synthesis=seen.made,
        targets=seen.targets,
        matching=matching,
    )


def score(seen: Scene, frames: jax.Array) -> jax.Array:
    scores, _ = networks().discriminate(seen.discriminator, frames, seen.targets.landmarks, seen.rows)
    return scores


def test_the_discriminator_learns_to_call_real_frames_real() -> None:
    seen = scene()
    real, fake = score(seen, seen.targets.frames), score(seen, seen.made.fake)
    assert abs(float(jnp.mean(real) - jnp.mean(fake))) > 1e-3
    loss, parts = objective(seen, seen.rows, matching=0.0)
    np.testing.assert_allclose(parts["score/real"], jnp.mean(real), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts["score/fake"], jnp.mean(fake), rtol=1e-4, atol=1e-5)
    hinge = np.maximum(0, 1 + np.asarray(fake)).mean() + np.maximum(0, 1 - np.asarray(real)).mean()
    np.testing.assert_allclose(loss, hinge, rtol=1e-4)


def test_rows_are_drawn_to_the_embeddings() -> None:
    """The gradient that the matching loss adds is its weight times the sign of W - ê, over the number of numbers."""
    seen = scene()
    slope = jax.jit(jax.grad(lambda rows, matching: objective(seen, rows, matching=matching)[0]), static_argnums=1)
    with_matching, without = (slope(seen.rows, matching) for matching in (100.0, 0.0))
    wanted = 100 * np.sign(seen.rows - seen.made.embedding) / seen.rows.size
    np.testing.assert_allclose(with_matching - without, wanted, atol=1e-4)


def test_the_generator_wants_high_scores_and_the_ramp_weighs_both_terms_of_the_adversary() -> None:
    seen = scene()
    precomputed = precompute_targets(
        networks(), seen.discriminator, seen.rows, {}, targets=seen.targets, loss_weights=LossWeights({})
    )
    weighted, plain = generator_terms(
        networks(),
        seen.made,
        precomputed,
        targets=seen.targets,
        loss_weights=LossWeights({}, feature_matching=10.0, matching=3.0),
        adversary=jnp.float32(0.25),
    )
    np.testing.assert_allclose(plain["adversarial"], -jnp.mean(score(seen, seen.made.fake)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weighted["adversarial"], 0.25 * plain["adversarial"], rtol=1e-5)
    np.testing.assert_allclose(weighted["feature_matching"], 2.5 * plain["feature_matching"], rtol=1e-5)
    np.testing.assert_allclose(weighted["matching"], 3 * plain["matching"], rtol=1e-5)
    wanted = np.abs(np.asarray(seen.made.embedding - seen.rows)).mean()
    np.testing.assert_allclose(plain["matching"], wanted, rtol=1e-5)
    assert plain["feature_matching"] > 0


def test_embeddings_are_means_over_an_episodes_own_sources() -> None:
    state, batch = tiny_state(), jax.tree.map(jnp.asarray, tiny_batch(episodes=3))
    whole = embed_sources(networks(), state.weights.synthesis, draw_sources(networks(), batch))
    for episode in range(3):
        alone = jax.tree.map(lambda x, one=episode: x[one : one + 1], batch)
        own = embed_sources(networks(), state.weights.synthesis, draw_sources(networks(), alone))
        np.testing.assert_allclose(whole[episode], own[0], rtol=1e-4, atol=1e-5)
