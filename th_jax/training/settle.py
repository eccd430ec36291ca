"""Between content and adversary: every row of W becomes its video's mean embedding, and w0 zero (docs/training.md)."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.models.networks import Networks
from th_jax.training.objectives import draw_sources, embed_sources
from th_jax.training.state import TrainState
from th_jax.training.video_table import VideoTable
from th_jax.types import EpisodeBatch, MetaWeights, NetworkState


def make_embed_batch(networks: Networks) -> Callable[[NetworkState, EpisodeBatch], Float[Array, "B N"]]:
    """ê of each episode of a batch, as a pure function."""

    def embed(synthesis: NetworkState, batch: EpisodeBatch) -> Float[Array, "B N"]:
        return embed_sources(networks, synthesis, draw_sources(networks, batch))

    return embed


def settle_rows(table: VideoTable, batch: EpisodeBatch, embeddings: Float[Array, "B N"]) -> VideoTable:
    """The rows of a batch's videos set to their embeddings."""
    return table._replace(rows=table.rows.at[jnp.asarray(batch.video_index)].set(embeddings))


def settle(
    state: TrainState,
    batches: Iterable[EpisodeBatch],
    *,
    embed: Callable[[NetworkState, EpisodeBatch], Float[Array, "B N"]],
    set_rows: Callable[[VideoTable, EpisodeBatch, Float[Array, "B N"]], VideoTable] = settle_rows,
    keep_shared: bool = False,
) -> TrainState:
    """A state whose discriminator starts from the identities that E has learned: score = Vᵀê + b at its first step.

    Args:
        state: after the content stage.
        batches: batches that visit every video once.
        embed: of `make_embed_batch`, jitted.
        set_rows: `settle_rows`, jitted.
        keep_shared: leave w0 as it is: for a discriminator that was trained before, on other rows.
    """
    table = state.table
    for batch in batches:
        table = set_rows(table, batch, embed(state.weights.synthesis, batch))
    if keep_shared:
        return state._replace(table=table)
    discriminator = state.weights.discriminator
    params: dict[str, Any] = {
        **discriminator.params,
        "shared": jax.tree.map(jnp.zeros_like, discriminator.params["shared"]),
    }
    weights = MetaWeights(state.weights.synthesis, NetworkState(params, discriminator.spectral_stats))
    return state._replace(table=table, weights=weights)
