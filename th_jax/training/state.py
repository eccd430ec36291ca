"""State of a meta-learning run between two steps, including the video table W and its optimizer."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from th_jax.models.init import SHARED
from th_jax.models.networks import Networks
from th_jax.models.spectral import power_iterate
from th_jax.training.guard import GuardStatistics, no_statistics
from th_jax.training.objectives import draw_sources, embed_sources
from th_jax.training.optimizers import Optimizers
from th_jax.types import EpisodeBatch, MetaWeights, NetworkState

ROW_MULTIPLE = 256
"""Rows are padded to a multiple of this, so that they divide over any usual number of devices."""


class VideoTable(NamedTuple):
    """Rows of W and their optimizer state."""

    rows: Float[Array, "V N"]
    second_moment: Float[Array, "V N"]
    """Second moment of the gradient at the row's last update."""
    last_update: Int[Array, " V"]
    """Number of the row's last update, from 1; 0 if the row was never visited."""


def padded_rows(videos: int) -> int:
    """Return the number of table rows for a number of videos.

    Raises:
        ValueError: if `videos` is below 1.
    """
    if videos < 1:
        raise ValueError(f"a video table needs at least 1 video, but {videos} were given")
    return -(-videos // ROW_MULTIPLE) * ROW_MULTIPLE


def init_video_table(key: PRNGKeyArray, *, videos: int, width: int) -> VideoTable:
    """Create an initial, padded table: rows are normal with standard deviation 0.02 (docs/paper-map.md), none visited."""
    count = padded_rows(videos)
    return VideoTable(
        rows=SHARED(key, (count, width), jnp.float32),
        second_moment=jnp.zeros((count, width), jnp.float32),
        last_update=jnp.zeros((count,), jnp.int32),
    )


def visited(video_index: Int[Array, " B"]) -> Int[Array, " V"]:
    """Return the rows that a batch reads and writes; a single row is repeated.

    XLA turns the gather and the scatter of one index into slices, fuses them, and then copies the whole table to keep them
    apart: 1.2 GB per step at 150,000 rows. With two indices, gather and scatter stay in place.
    """
    return jnp.concatenate([video_index, video_index]) if video_index.shape[0] == 1 else video_index


def identity_rows(
    table: VideoTable, video_index: Int[Array, " B"], *, axis_name: str | None = None
) -> Float[Array, "b N"]:
    """Return W_i of each episode.

    With `axis_name`, the table is this device's part, the index is the whole batch's on every device, and the result has
    the episodes of this device, brought together by one reduce-scatter.
    """
    rows = _read(table.rows, _positions(table, video_index, axis_name), axis_name)[: video_index.shape[0]]
    if axis_name is None:
        return rows
    # Exactly one device holds a row; all others add zeros.
    own: Array = jax.lax.psum_scatter(rows, axis_name, scatter_dimension=0, tiled=True)
    return own


def restored_unless(
    keep: Bool[Array, ""],
    table: VideoTable,
    before: VideoTable,
    video_index: Int[Array, " B"],
    *,
    axis_name: str | None = None,
) -> VideoTable:
    """Return the table if `keep`, else the table with the batch's rows restored.

    Args:
        keep: whether to keep the table unchanged.
        table: the table after an update.
        before: the batch's rows before the update, from `rows_of_batch`.
        video_index: row of each episode.
        axis_name: as in `identity_rows`; no device needs anything from another one.
    """
    index = _positions(table, video_index, axis_name)
    return VideoTable(
        *(
            leaf.at[index].set(jnp.where(keep, _read(leaf, index, axis_name), old))
            for leaf, old in zip(table, before, strict=True)
        )
    )


def rows_of_batch(table: VideoTable, video_index: Int[Array, " B"], *, axis_name: str | None = None) -> VideoTable:
    """Return the entries of the table for the rows that a batch visits; zeros for rows of other devices."""
    index = _positions(table, video_index, axis_name)
    return VideoTable(*(_read(leaf, index, axis_name) for leaf in table))


def _positions(table: VideoTable, video_index: Int[Array, " B"], axis_name: str | None) -> Int[Array, " V"]:
    """Return where the visited rows are in this device's part of the table.

    Those of other devices are beyond its end, where writes are dropped.
    """
    index = visited(video_index)
    if axis_name is None:
        return index
    rows = table.rows.shape[0]
    own = index - jax.lax.axis_index(axis_name) * rows
    return jnp.where((own >= 0) & (own < rows), own, rows)


def _read(leaf: Array, index: Int[Array, " V"], axis_name: str | None) -> Array:
    return leaf[index] if axis_name is None else leaf.at[index].get(mode="fill", fill_value=0)


def update_video_table(
    table: VideoTable,
    video_index: Int[Array, " B"],
    gradients: Float[Array, "B N"],
    *,
    update: Int[Array, ""],
    learning_rate: float | Float[Array, ""] = 2e-4,
    beta2: float = 0.999,
    eps: float = 1e-5,
    axis_name: str | None = None,
) -> VideoTable:
    """Apply one Adam update with beta1 = 0 to the visited rows; equal to dense Adam over the whole table.

    Args:
        table: the table before the update.
        video_index: row of each episode; a row may occur more than once.
        gradients: gradient of the loss with respect to each episode's row; gradients of the same row are summed.
        update: number of this update, from 1, counted over the whole table; the bias correction uses it regardless of when the
            row was last visited.
        learning_rate, beta2, eps: Adam's parameters (paper, section 4; docs/paper-map.md).
        axis_name: as in `identity_rows`: every device has the whole batch's indices and gradients, and updates its own rows.
    """
    index = _positions(table, video_index, axis_name)
    if video_index.shape[0] == 1:  # see `visited`; the repeated row adds nothing to the sum
        gradients = jnp.concatenate([gradients, jnp.zeros_like(gradients)])
    video_index = visited(video_index)
    # All episodes of a row hold that row's sum, so the order of writing does not matter.
    same_row = (video_index[:, None] == video_index[None, :]).astype(gradients.dtype)
    total = jnp.matmul(same_row, gradients, precision=jax.lax.Precision.HIGHEST)
    passed = (update - _read(table.last_update, index, axis_name)).astype(jnp.float32)
    decayed = _read(table.second_moment, index, axis_name) * jnp.power(beta2, passed)[:, None]
    second_moment = decayed + (1.0 - beta2) * jnp.square(total)
    corrected = second_moment / (1.0 - jnp.power(beta2, update.astype(jnp.float32)))
    rows = _read(table.rows, index, axis_name) - learning_rate * total / (jnp.sqrt(corrected) + eps)
    return VideoTable(
        rows=table.rows.at[index].set(rows),
        second_moment=table.second_moment.at[index].set(second_moment),
        last_update=table.last_update.at[index].set(update.astype(jnp.int32)),
    )


def descend_video_table(
    table: VideoTable,
    video_index: Int[Array, " B"],
    gradients: Float[Array, "B N"],
    *,
    learning_rate: float | Float[Array, ""],
    axis_name: str | None = None,
) -> VideoTable:
    """Apply one step of plain gradient descent to the visited rows; gradients of the same row are summed.

    With `axis_name`, as in `update_video_table`.
    """
    if video_index.shape[0] == 1:
        gradients = jnp.concatenate([gradients, jnp.zeros_like(gradients)])
    index = _positions(table, video_index, axis_name)
    return table._replace(rows=table.rows.at[index].add(-learning_rate * gradients))


EVALUATION_ITERATIONS = 20
"""Power iterations on averaged weights before they are evaluated, saved for release or exported."""


class TrainState(NamedTuple):
    """State of a run. It contains arrays only: settings and names are kept elsewhere."""

    step: Int[Array, ""]
    """Number of batches consumed, which is the reader's position."""
    discriminator_updates: Int[Array, ""]
    """Number of updates of the discriminator and of W."""
    weights: MetaWeights
    averaged: NetworkState
    """E, P and G, averaged over steps; `refreshed` updates their u and v."""
    table: VideoTable
    synthesis_moments: Any
    discriminator_moments: Any
    skipped: Int[Array, ""]
    """Total number of steps that changed nothing because a value was not finite, or an outlier."""
    skipped_in_a_row: Int[Array, ""]
    guard: GuardStatistics
    """Statistics by which outliers are found."""


def init_table(networks: Networks, key: PRNGKeyArray, *, videos: int) -> VideoTable:
    """Create an initial table that is as wide as the networks' embedding."""
    return init_video_table(key, videos=videos, width=networks.plan.embedding)


def start_from(optimizers: Optimizers, weights: MetaWeights, table: VideoTable) -> TrainState:
    """Create the state of a run that starts from given weights, with fresh moments.

    The function is pure, so that it can be traced for its shapes.
    """
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
        guard=no_statistics(),
    )


def state_shapes(networks: Networks, optimizers: Optimizers, *, videos: int) -> TrainState:
    """Return the shapes and dtypes of a run's state without allocating it."""
    table = jax.eval_shape(lambda key: init_table(networks, key, videos=videos), jax.random.key(0))
    return jax.eval_shape(lambda weights, table: start_from(optimizers, weights, table), networks.shapes(), table)


def refreshed(averaged: NetworkState) -> NetworkState:
    """Recompute u and v of averaged weights (docs/paper-map.md), as needed before they are evaluated, saved or exported."""
    stats = power_iterate(averaged.params, averaged.spectral_stats, iterations=EVALUATION_ITERATIONS)
    return NetworkState(averaged.params, stats)


def make_embed_batch(networks: Networks) -> Callable[[NetworkState, EpisodeBatch], Float[Array, "B N"]]:
    """Build a pure function that computes ê of each episode of a batch."""

    def embed(synthesis: NetworkState, batch: EpisodeBatch) -> Float[Array, "B N"]:
        return embed_sources(networks, synthesis, draw_sources(networks, batch))

    return embed


def set_rows_to_embeddings(table: VideoTable, batch: EpisodeBatch, embeddings: Float[Array, "B N"]) -> VideoTable:
    """Set the rows of a batch's videos to their embeddings."""
    return table._replace(rows=table.rows.at[jnp.asarray(batch.video_index)].set(embeddings))


def reset_table_to_embeddings(
    state: TrainState,
    batches: Iterable[EpisodeBatch],
    *,
    embed: Callable[[NetworkState, EpisodeBatch], Float[Array, "B N"]],
    set_rows: Callable[[VideoTable, EpisodeBatch, Float[Array, "B N"]], VideoTable] = set_rows_to_embeddings,
    keep_shared: bool = False,
) -> TrainState:
    """Set W to the embeddings of E, so that the discriminator starts with score = Vᵀê + b.

    Args:
        state: state after the content stage.
        batches: batches that visit every video once.
        embed: function from `make_embed_batch`, jitted.
        set_rows: `set_rows_to_embeddings`, jitted.
        keep_shared: leave w0 unchanged, for a discriminator that was already trained with other rows.
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
