"""Training diagnostics, computed at log lines: norms, scores, dead channels, and the gradient of each loss term on x̂."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.losses import LossWeights
from th_jax.models.layers import global_pool
from th_jax.models.networks import Networks, group
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.meta_step import Metrics
from th_jax.training.objectives import (
    Synthesis,
    Targets,
    draw_sources,
    draw_targets,
    generator_terms,
    precompute_targets,
    synthesize,
)
from th_jax.training.optimizers import AdversarySchedule
from th_jax.training.state import TrainState, identity_rows
from th_jax.types import EpisodeBatch


def make_health(
    networks: Networks,
    loss_weights: LossWeights,
    *,
    adversary: bool = True,
    schedule: AdversarySchedule | None = None,
) -> Callable[[TrainState, PerceptualWeights, EpisodeBatch], Metrics]:
    """Build a pure function that computes diagnostics of a state on one batch and changes nothing (docs/training.md).

    The returned metrics are:
        health/embedding_norm, health/row_norm: |ê| and |W_i|, means over the batch.
        health/score_size: mean |D(x)| and |D(x̂)|; the hinge is saturated if it reaches the hundreds.
        health/embedding_spread: standard deviation of P·ê over the people of the batch, root mean square over parameters;
            near 0, all people look alike.
        health/dead_embedding, health/dead_trunk: share of channels of ê and V that are 0 for every frame of the batch.
        health/gradient_NAME: norm of the gradient of each weighted term with respect to x̂, mean over images.
        health/adversary_share: gradient norm of the adversarial terms (score and feature matching) divided by that of content
            and pixels.

    Args:
        networks: networks that the state belongs to.
        loss_weights: weights of the loss terms.
        adversary: whether the discriminator trains at this stage; without it, its metrics are omitted.
        schedule: the adversary's weight by step; by default always 1.
    """
    schedule = schedule or AdversarySchedule()

    def health(state: TrainState, perceptual: PerceptualWeights, batch: EpisodeBatch) -> Metrics:
        targets = draw_targets(networks, batch, landmark_box=loss_weights.landmark_box, eyes=loss_weights.eyes)
        weights = state.weights
        synthesis = synthesize(networks, weights.synthesis, draw_sources(networks, batch), targets.landmarks)
        rows = identity_rows(state.table, jnp.asarray(batch.video_index))
        precomputed = precompute_targets(
            networks,
            weights.discriminator if adversary else None,
            rows,
            perceptual,
            targets=targets,
            loss_weights=loss_weights,
        )
        factor = schedule.adversary(state.step) if adversary else None

        def terms(fake: Float[Array, "B H W 3"]) -> Metrics:
            moving = Synthesis(fake, synthesis.embedding)
            weighted, _ = generator_terms(
                networks, moving, precomputed, targets=targets, loss_weights=loss_weights, adversary=factor
            )
            weighted.pop("matching", None)  # depends on ê, not on x̂
            return weighted

        values, pull = jax.vjp(terms, synthesis.fake)
        names = sorted(values)
        one = {name: {other: jnp.float32(other == name) for other in names} for name in names}
        gradients = {name: pull(one[name])[0] for name in names}
        metrics = {f"health/gradient_{name}": _length(gradient) for name, gradient in gradients.items()}
        adain = synthesis.embedding
        metrics |= {
            "health/embedding_norm": jnp.mean(jnp.linalg.norm(adain, axis=-1)),
            "health/dead_embedding": _dead(adain),
            "health/row_norm": jnp.mean(jnp.linalg.norm(rows, axis=-1)),
        }
        metrics["health/embedding_spread"] = _spread(networks, state, synthesis.embedding)
        if adversary:
            metrics |= _discriminator_health(networks, state, synthesis, targets, rows)
            opposed = gradients["adversarial"] + gradients["feature_matching"]
            faithful = sum(gradients[name] for name in names if name in ("content", "pixel", "identity"))
            metrics["health/adversary_share"] = _length(opposed) / _length(jnp.asarray(faithful))
        return metrics

    return health


def _spread(networks: Networks, state: TrainState, embedding: Float[Array, "B N"]) -> Float[Array, ""]:
    adain = networks.project(group(state.weights.synthesis, "projection"), embedding)
    return jnp.sqrt(jnp.mean(jnp.var(adain, axis=0)))


def _discriminator_health(
    networks: Networks,
    state: TrainState,
    synthesis: Synthesis,
    targets: Targets,
    rows: Float[Array, "B N"],
) -> Metrics:
    scores, features = networks.discriminate(
        state.weights.discriminator,
        jnp.concatenate([synthesis.fake, targets.frames]),
        jnp.concatenate([targets.landmarks, targets.landmarks]),
        jnp.concatenate([rows, rows]),
    )
    trunk = global_pool(features[-1], pool=networks.pool, pool_order=networks.pool_order)
    return {"health/score_size": jnp.mean(jnp.abs(scores)), "health/dead_trunk": _dead(trunk)}


def _dead(channels: Float[Array, "B N"]) -> Float[Array, ""]:
    return jnp.mean(jnp.all(channels == 0, axis=0).astype(jnp.float32))


def _length(gradient: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3))))
