"""The signs of health are what they are called."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny_runs import losses, networks, perceptual, tiny_batch, tiny_state  # noqa: F401 - a fixture

from th_jax.models.networks import group
from th_jax.perceptual.pyramids import feature_pyramids
from th_jax.training.health import make_health
from th_jax.training.objectives import draw_sources, draw_targets, synthesize


def test_signs_of_a_fresh_state(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    health = jax.jit(make_health(networks(), losses()))(state, perceptual, batch)
    arrays = jax.tree.map(jnp.asarray, batch)
    sources, targets = draw_sources(networks(), arrays), draw_targets(networks(), arrays, landmark_box=3.0)
    made = jax.jit(functools.partial(synthesize, networks()))(state.weights.synthesis, sources, targets.landmarks)
    lengths = np.linalg.norm(np.asarray(made.embedding), axis=-1)
    np.testing.assert_allclose(health["health/embedding_norm"], lengths.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        health["health/dead_embedding"], (np.asarray(made.embedding) == 0).all(0).mean(), atol=1e-6
    )
    rows = state.table.rows[batch.video_index]
    np.testing.assert_allclose(health["health/row_norm"], np.linalg.norm(rows, axis=-1).mean(), rtol=1e-5)
    adain = jax.jit(networks().project)(group(state.weights.synthesis, "projection"), made.embedding)
    np.testing.assert_allclose(health["health/embedding_spread"], np.sqrt(np.var(adain, axis=0).mean()), rtol=1e-3)

    def judged(frames: Any) -> Any:
        return networks().discriminate(state.weights.discriminator, frames, targets.landmarks, rows)

    def distances(ours: Any, theirs: Any) -> Any:
        return jnp.stack([jnp.mean(jnp.abs(a - b)) for a, b in zip(ours, theirs, strict=True)])

    @jax.jit
    def looked_at(fake: Any) -> Any:
        (fake_scores, _), (real_scores, real_features) = judged(fake), judged(targets.frames)
        seen = feature_pyramids(perceptual, targets.frames)["vgg16"]
        terms = {
            "content": lambda x: 1e-2 * jnp.sum(distances(feature_pyramids(perceptual, x)["vgg16"], seen)),
            "adversarial": lambda x: -jnp.mean(judged(x)[0]),
            "feature_matching": lambda x: 10.0 * jnp.mean(distances(judged(x)[1], real_features)),
        }
        slopes = {name: jax.grad(term)(fake) for name, term in terms.items()}
        return slopes, jnp.abs(jnp.concatenate([fake_scores, real_scores])).mean()

    slopes, score_size = looked_at(made.fake)
    # Of 10 x mean |difference| / 2: its sign, times each position's weight.
    emphasis = targets.emphasis / targets.emphasis.mean((1, 2, 3), keepdims=True)
    slopes["pixel"] = 5 * np.sign(made.fake - targets.frames) * emphasis / made.fake.size
    lengths = {name: np.linalg.norm(np.reshape(slope, (len(rows), -1)), axis=1) for name, slope in slopes.items()}
    for name, length in lengths.items():
        np.testing.assert_allclose(health[f"health/gradient_{name}"], length.mean(), rtol=1e-2, err_msg=name)
    opposed, faithful = (
        np.linalg.norm(np.reshape(slopes[one] + slopes[other], (len(rows), -1)), axis=1).mean()
        for one, other in (("adversarial", "feature_matching"), ("content", "pixel"))
    )
    np.testing.assert_allclose(health["health/adversary_share"], opposed / faithful, rtol=1e-2)
    np.testing.assert_allclose(health["health/score_size"], score_size, rtol=1e-4)
    assert 0 <= health["health/dead_trunk"] < 1


def test_before_the_adversary_joins_only_content_is_looked_at(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    health = jax.jit(make_health(networks(), losses(), adversary=False))(state, perceptual, batch)
    assert {name for name in health if "gradient" in name} == {"health/gradient_content", "health/gradient_pixel"}
    assert "health/score_size" not in health
    assert "health/adversary_share" not in health
    # 10 x mean over positions and channels of |difference| / 2, whose weights average to one: each picture's gradient
    # has the length 10 / 2 / count x root of the sum of squared weights. Three times as much counts in the landmarks' box.
    count, episodes = 16 * 16 * 3, len(batch.video_index)
    lengths = []
    for points in batch.target_landmarks:
        centers = (np.arange(16) + 0.5) / 16
        x, y = ((centers >= axis.min()) & (centers <= axis.max()) for axis in points.T)
        weights = np.where(y[:, None] & x[None], 3.0, 1.0)
        lengths.append(5 / (episodes * count) * np.sqrt(3 * ((weights / weights.mean()) ** 2).sum()))
    np.testing.assert_allclose(health["health/gradient_pixel"], np.mean(lengths), rtol=1e-3)
