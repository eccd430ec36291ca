"""W, one identity vector a training video, and its Adam that touches only the rows of a batch (docs/paper-map.md).

On VoxCeleb2 the table has more rows than the three networks together have parameters, and a batch visits a handful. With
beta1 = 0 dense Adam never moves a row whose gradient is zero; it only lets the row's second moment decay. So a row can keep
the step at which it was last touched and catch up at its next visit: the same numbers, at a cost that does not grow with
the rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from th_jax.models.starts import SHARED

ROW_MULTIPLE = 256
"""Rows are padded to a multiple of this, so that any usual number of devices can share them."""


class VideoTable(NamedTuple):
    """The rows and what their optimiser remembers."""

    rows: Float[Array, "V N"]
    second_moment: Float[Array, "V N"]
    """Of the gradient, as it was at the row's last update."""
    last_update: Int[Array, " V"]
    """Number of that update, from 1; 0 for a row that was never visited."""


def padded_rows(videos: int) -> int:
    """Rows of a table for so many videos.

    Raises:
        ValueError: if there is no video.
    """
    if videos < 1:
        raise ValueError(f"a video table needs at least 1 video, but {videos} were given")
    return -(-videos // ROW_MULTIPLE) * ROW_MULTIPLE


def init_video_table(key: PRNGKeyArray, *, videos: int, width: int) -> VideoTable:
    """A table at its start: rows normal with deviation 0.02 (docs/paper-map.md), padded; nothing visited."""
    count = padded_rows(videos)
    return VideoTable(
        rows=SHARED(key, (count, width), jnp.float32),
        second_moment=jnp.zeros((count, width), jnp.float32),
        last_update=jnp.zeros((count,), jnp.int32),
    )


def visited(video_index: Int[Array, " B"]) -> Int[Array, " V"]:
    """The rows that a batch reads and writes: a single one twice.

    XLA turns the gather and the scatter of one index into slices, fuses them, and then copies the whole table to keep them
    apart: at 150,000 rows 1.2 GB a step. Two indices stay a gather and a scatter, in place.
    """
    return jnp.concatenate([video_index, video_index]) if video_index.shape[0] == 1 else video_index


def identity_rows(table: VideoTable, video_index: Int[Array, " B"]) -> Float[Array, "B N"]:
    """W_i of each episode."""
    return table.rows[visited(video_index)][: video_index.shape[0]]


def restored_unless(
    keep: Bool[Array, ""], table: VideoTable, before: VideoTable, video_index: Int[Array, " B"]
) -> VideoTable:
    """The table if `keep`, else with the batch's rows as they were; `before` is of `rows_of_batch`."""
    index = visited(video_index)
    return VideoTable(
        *(leaf.at[index].set(jnp.where(keep, leaf[index], old)) for leaf, old in zip(table, before, strict=True))
    )


def rows_of_batch(table: VideoTable, video_index: Int[Array, " B"]) -> VideoTable:
    """What the table holds in the rows that a batch visits."""
    index = visited(video_index)
    return VideoTable(*(leaf[index] for leaf in table))


def update_video_table(
    table: VideoTable,
    video_index: Int[Array, " B"],
    gradients: Float[Array, "B N"],
    *,
    update: Int[Array, ""],
    learning_rate: float | Float[Array, ""] = 2e-4,
    beta2: float = 0.999,
    eps: float = 1e-5,
) -> VideoTable:
    """One Adam update with beta1 = 0 of the visited rows, equal to dense Adam over the whole table.

    Args:
        table: the table before.
        video_index: the row of each episode; a row may occur more than once.
        gradients: of the loss with respect to each episode's row; those of one row are summed.
        update: the number of this update, from 1, counted over the whole table: bias correction uses it, whenever the
            row was last visited.
        learning_rate, beta2, eps: Adam's (paper, section 4; docs/paper-map.md).
    """
    if video_index.shape[0] == 1:  # see `visited`; the second visit adds nothing to the sum
        gradients = jnp.concatenate([gradients, jnp.zeros_like(gradients)])
    video_index = visited(video_index)
    # Episodes of one row all carry that row's sum, so it does not matter which of them is written last.
    same_row = (video_index[:, None] == video_index[None, :]).astype(gradients.dtype)
    total = jnp.matmul(same_row, gradients, precision=jax.lax.Precision.HIGHEST)
    passed = (update - table.last_update[video_index]).astype(jnp.float32)
    decayed = table.second_moment[video_index] * jnp.power(beta2, passed)[:, None]
    second_moment = decayed + (1.0 - beta2) * jnp.square(total)
    corrected = second_moment / (1.0 - jnp.power(beta2, update.astype(jnp.float32)))
    rows = table.rows[video_index] - learning_rate * total / (jnp.sqrt(corrected) + eps)
    return VideoTable(
        rows=table.rows.at[video_index].set(rows),
        second_moment=table.second_moment.at[video_index].set(second_moment),
        last_update=table.last_update.at[video_index].set(update.astype(jnp.int32)),
    )


def descend_video_table(
    table: VideoTable,
    video_index: Int[Array, " B"],
    gradients: Float[Array, "B N"],
    *,
    learning_rate: float | Float[Array, ""],
) -> VideoTable:
    """One step of plain descent of the visited rows; gradients of one row are summed."""
    if video_index.shape[0] == 1:
        gradients = jnp.concatenate([gradients, jnp.zeros_like(gradients)])
    video_index = visited(video_index)
    return table._replace(rows=table.rows.at[video_index].add(-learning_rate * gradients))
