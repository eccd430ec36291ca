"""All that a meta-learning run is between two steps, as one tree of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, PRNGKeyArray

from th_jax.models.networks import Networks
from th_jax.models.spectral import power_iterate
from th_jax.training.optimizers import Optimizers
from th_jax.training.video_table import VideoTable, init_video_table
from th_jax.types import MetaWeights, NetworkState

EVALUATION_ITERATIONS = 20
"""Power iterations on averaged weights before they are evaluated, saved for release or exported."""


class TrainState(NamedTuple):
    """The state of a run. Arrays only: settings and names stay outside."""

    step: Int[Array, ""]
    """Batches consumed, which is the reader's position."""
    discriminator_updates: Int[Array, ""]
    """Updates of the discriminator and of W."""
    weights: MetaWeights
    averaged: NetworkState
    """E, P and G, averaged over steps; their u and v wait for `refreshed`."""
    table: VideoTable
    synthesis_moments: Any
    discriminator_moments: Any
    skipped: Int[Array, ""]
    """Steps in all that changed nothing because something was not finite."""
    skipped_in_a_row: Int[Array, ""]


def init_table(networks: Networks, key: PRNGKeyArray, *, videos: int) -> VideoTable:
    """A fresh table of so many videos, as wide as the networks' embedding."""
    return init_video_table(key, videos=videos, width=networks.plan.embedding)


def start_from(optimizers: Optimizers, weights: MetaWeights, table: VideoTable) -> TrainState:
    """The state of a run that goes on from given weights with fresh moments; pure, so it can be traced for its shapes."""
    count = jnp.zeros((), jnp.int32)
    return TrainState(
        step=count,
        discriminator_updates=jnp.zeros((), jnp.int32),
        weights=weights,
        averaged=jax.tree.map(jnp.copy, weights.synthesis),
        table=table,
        synthesis_moments=optimizers.synthesis.optimizer().init(weights.synthesis.params),
        discriminator_moments=optimizers.discriminator.optimizer().init(weights.discriminator.params),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def state_shapes(networks: Networks, optimizers: Optimizers, *, videos: int) -> TrainState:
    """Shapes and dtypes of a run's state, without making any of it."""
    table = jax.eval_shape(lambda key: init_table(networks, key, videos=videos), jax.random.key(0))
    return jax.eval_shape(lambda weights, table: start_from(optimizers, weights, table), networks.shapes(), table)


def refreshed(averaged: NetworkState) -> NetworkState:
    """Averaged weights with u and v of their own kernels (docs/paper-map.md): to evaluate, save or export them."""
    stats = power_iterate(averaged.params, averaged.spectral_stats, iterations=EVALUATION_ITERATIONS)
    return NetworkState(averaged.params, stats)
