"""The sparse update of W is dense Adam, row for row; its program does no work that grows with the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from th_jax.training.state import (
    ROW_MULTIPLE,
    VideoTable,
    descend_video_table,
    identity_rows,
    init_video_table,
    padded_rows,
    restored_unless,
    rows_of_batch,
    update_video_table,
)

WIDTH, BATCH, RATE, BETA2, EPS = 16, 4, 2e-3, 0.999, 1e-5


def updates(count: int, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Visits with gradients: a few rows often, most rarely, some never, some twice in a batch."""
    rng = np.random.default_rng(0)
    popular = rng.integers(0, rows // 2, (count, BATCH)) ** 2 // (rows // 2)
    popular[::5, 1] = popular[::5, 0]
    scale = 10.0 ** rng.uniform(-4, 1, (count, 1, 1))
    return [
        (i.astype(np.int32), g.astype(np.float32))
        for i, g in zip(popular, scale * rng.normal(size=(count, BATCH, WIDTH)), strict=True)
    ]


def test_it_equals_dense_adam() -> None:
    table = init_video_table(jax.random.key(0), videos=40, width=WIDTH)
    dense = table.rows
    adam = optax.adam(RATE, b1=0.0, b2=BETA2, eps=EPS)
    state = adam.init(dense)
    sparse_step = jax.jit(
        lambda table, i, g, n: update_video_table(table, i, g, update=n, learning_rate=RATE, beta2=BETA2, eps=EPS)
    )

    @jax.jit
    def dense_step(rows, state, i, g):
        gradient = jnp.zeros_like(rows).at[i].add(g)
        change, state = adam.update(gradient, state, rows)
        return optax.apply_updates(rows, change), state

    start = np.asarray(dense)
    for number, (index, gradient) in enumerate(updates(300, 40), 1):
        table = sparse_step(table, jnp.asarray(index), jnp.asarray(gradient), jnp.int32(number))
        dense, state = dense_step(dense, state, jnp.asarray(index), jnp.asarray(gradient))
        if number % 50 == 0:
            np.testing.assert_allclose(table.rows, dense, atol=1e-6, err_msg=f"after {number} updates")
    visited = np.asarray(table.last_update) > 0
    assert 10 < visited.sum() < 40
    np.testing.assert_array_equal(np.asarray(table.rows)[~visited], start[~visited])
    moved = np.abs(np.asarray(table.rows) - start).max(1)
    assert moved[visited].max() > 0.1, "a row-local step count would leave W at its start"


def test_a_row_that_occurs_twice_is_updated_once_with_the_sum() -> None:
    table = init_video_table(jax.random.key(1), videos=4, width=WIDTH)
    gradient = jnp.asarray(np.random.default_rng(2).normal(size=(2, WIDTH)), jnp.float32)
    update = jax.jit(update_video_table)
    twice = update(table, jnp.array([3, 3]), gradient, update=jnp.int32(1))
    once = update(table, jnp.array([3]), gradient.sum(0, keepdims=True), update=jnp.int32(1))
    for a, b in zip(twice, once, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_rows_are_gathered_in_order() -> None:
    table = init_video_table(jax.random.key(0), videos=10, width=WIDTH)
    np.testing.assert_array_equal(identity_rows(table, jnp.array([7, 2])), np.asarray(table.rows)[[7, 2]])


def test_the_start() -> None:
    table = init_video_table(jax.random.key(0), videos=300, width=64)
    assert table.rows.shape == (512, 64)
    assert float(table.rows.std()) == pytest.approx(0.02, rel=0.05)
    assert not np.any(table.second_moment)
    assert not np.any(table.last_update)


def test_rows_are_padded_for_devices() -> None:
    assert [padded_rows(n) for n in (1, 256, 257, 146_000)] == [256, 256, 512, 146_176]
    assert padded_rows(1000) % ROW_MULTIPLE == 0
    with pytest.raises(ValueError, match="needs at least 1 video, but 0 were given"):
        padded_rows(0)


def test_the_work_does_not_grow_with_the_rows() -> None:
    """FLOP and temporary memory of the compiled update, tables donated, for 1,024 and 150,016 rows."""

    def cost(rows: int) -> tuple[float, int]:
        table = VideoTable(
            jax.ShapeDtypeStruct((rows, 512), jnp.float32),
            jax.ShapeDtypeStruct((rows, 512), jnp.float32),
            jax.ShapeDtypeStruct((rows,), jnp.int32),
        )
        arguments = (
            table,
            jax.ShapeDtypeStruct((8,), jnp.int32),
            jax.ShapeDtypeStruct((8, 512), jnp.float32),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
        step = jax.jit(lambda t, i, g, n: update_video_table(t, i, g, update=n), donate_argnums=0)
        compiled = step.lower(*arguments).compile()
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    small, large = cost(1_024), cost(150_016)
    assert large[0] == small[0] > 0
    assert large[1] <= small[1] + 4 * 150_016, "at most the steps of last updates are copied, never rows"


@pytest.mark.parametrize("episodes", [1, 8])
def test_a_step_copies_no_table(episodes: int) -> None:
    """All that a step does with the table, twice over: its temporary memory stays far below one copy of the rows."""
    rows = 150_016
    table = VideoTable(
        jax.ShapeDtypeStruct((rows, 512), jnp.float32),
        jax.ShapeDtypeStruct((rows, 512), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    )

    def step(table: VideoTable, index: jax.Array, gradients: jax.Array, keep: jax.Array) -> VideoTable:
        before = rows_of_batch(table, index)
        for update in (1, 2):
            read = identity_rows(table, index)
            table = update_video_table(table, index, gradients * read, update=jnp.int32(update))
        return restored_unless(keep, table, before, index)

    arguments = (
        jax.ShapeDtypeStruct((episodes,), jnp.int32),
        jax.ShapeDtypeStruct((episodes, 512), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.bool),
    )
    memory = jax.jit(step, donate_argnums=0).lower(table, *arguments).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.01 * rows * 512 * 4


def test_plain_descent_moves_a_row_by_the_sum_of_its_episodes() -> None:
    table = init_video_table(jax.random.key(1), videos=4, width=WIDTH)
    gradients = jnp.asarray(np.random.default_rng(2).normal(size=(3, WIDTH)), jnp.float32)
    descend = jax.jit(descend_video_table)
    after = descend(table, jnp.array([3, 0, 3]), gradients, learning_rate=0.1)
    wanted = np.array(table.rows)
    wanted[3] -= 0.1 * np.asarray(gradients[0] + gradients[2])
    wanted[0] -= 0.1 * np.asarray(gradients[1])
    np.testing.assert_allclose(after.rows, wanted, rtol=1e-5, atol=1e-7)
    alone = descend(table, jnp.array([2]), gradients[:1], learning_rate=0.1)
    np.testing.assert_allclose(alone.rows[2], table.rows[2] - 0.1 * gradients[0], rtol=1e-5, atol=1e-7)


def test_rows_come_back_unless_they_are_kept() -> None:
    table = init_video_table(jax.random.key(0), videos=10, width=WIDTH)

    @jax.jit
    def changed_and_restored(index: jax.Array, keep: jax.Array) -> tuple[VideoTable, VideoTable]:
        before = rows_of_batch(table, index)
        changed = update_video_table(table, index, jnp.ones((len(index), WIDTH)), update=jnp.int32(1))
        return changed, restored_unless(keep, changed, before, index)

    for index in (jnp.array([3]), jnp.array([3, 5, 3])):
        for keep in (True, False):
            changed, restored = changed_and_restored(index, jnp.asarray(keep))
            for ours, theirs in zip(restored, changed if keep else table, strict=True):
                np.testing.assert_array_equal(ours, theirs)
