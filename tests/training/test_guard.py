"""The guard: steps far outside of the recent range change nothing, and lasting changes are accepted."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.training.guard import WATCHED, GuardSettings, GuardStatistics, judge, no_statistics
from th_jax.training.meta_step import of_all_devices
from th_jax.training.programs import guarded
from th_jax.training.state import VideoTable

SETTINGS = GuardSettings(sigma=6.0, decay=0.98, warm_up=50)


@functools.partial(jax.jit, static_argnums=2)
def judged(statistics: Any, metrics: Any, stage: int) -> Any:
    return judge(statistics, metrics, SETTINGS, stage=stage)


def after(values: Iterable[float], *, stage: int = 1, start: Any = None) -> tuple[list[bool], list[float], Any]:
    """Which values pass, and how far above the mean they are."""
    statistics, passed, deviations = no_statistics() if start is None else start, [], []
    for value in values:
        ok, above, statistics = judged(statistics, {"loss/generator": jnp.float32(value)}, stage)
        passed.append(bool(ok))
        deviations.append(float(above))
    return passed, deviations, statistics


def logs(count: int, *, mean: float, deviation: float, seed: int = 0) -> np.ndarray:
    """Values whose log(1 + x) is normal."""
    return np.expm1(np.random.default_rng(seed).normal(mean, deviation, count))


def test_the_statistics_are_those_of_the_last_steps() -> None:
    _, _, statistics = after(logs(2000, mean=2.0, deviation=0.3))
    assert WATCHED[0] == "loss/generator"
    np.testing.assert_allclose(statistics.mean[0], 2.0, atol=0.15)
    np.testing.assert_allclose(np.sqrt(statistics.variance[0]), 0.3, atol=0.06)
    assert statistics.steps.tolist() == [2000, 0, 0, 0, 0]
    _, _, few = after([3.0, 5.0, 9.0])
    value = np.log1p([3.0, 5.0, 9.0])
    np.testing.assert_allclose((few.mean[0], few.variance[0]), (value.mean(), value.var()), rtol=1e-5)


def test_six_sigma_pass_and_seven_do_not() -> None:
    passed, _, statistics = after(logs(500, mean=2.0, deviation=0.1))
    assert all(passed), "of a thousand million normal values, one is that far"
    mean, deviation = float(statistics.mean[0]), float(np.sqrt(statistics.variance[0]))
    for sigmas, passes in ((5.9, True), (6.1, False), (-50.0, True)):
        (ok,), (above,), _ = after([np.expm1(mean + sigmas * deviation)], start=statistics)
        assert ok is passes
        assert above == pytest.approx(max(sigmas, 0), abs=0.02)


def test_nothing_is_judged_while_it_warms_up_or_in_a_new_stage() -> None:
    passed, deviations, statistics = after([*[1.0] * 49, 1e6])
    assert all(passed)
    assert not any(deviations)
    _, _, settled = after(logs(200, mean=2.0, deviation=0.1))
    assert after([1e4], start=settled)[0] == [False]
    passed, _, statistics = after([1e4, 2e4], start=settled, stage=3)
    assert passed == [True, True]
    assert (int(statistics.stage), int(statistics.steps[0])) == (3, 2)


def test_a_lasting_change_is_accepted_and_single_outliers_leave_no_trace() -> None:
    _, _, settled = after(logs(500, mean=2.0, deviation=0.1))
    passed, _, _ = after(logs(60, mean=6.0, deviation=0.1), start=settled)
    assert not passed[0]
    assert passed.index(True) < 20, "before the run is rolled back"
    _, _, once = after([1e9], start=settled)
    assert abs(once.mean[0] - settled.mean[0]) < 0.02
    assert int(once.outliers) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_stay_out_of_the_statistics(value: float) -> None:
    """The step itself skips them."""
    _, _, settled = after(logs(100, mean=2.0, deviation=0.1))
    passed, _, statistics = after([value], start=settled)
    assert passed == [True]
    for before, now in zip(settled, statistics, strict=True):
        np.testing.assert_array_equal(before, now)


class State(NamedTuple):
    step: Any
    skipped: Any
    skipped_in_a_row: Any
    weights: Any
    table: VideoTable
    guard: GuardStatistics


class Batch(NamedTuple):
    video_index: Any
    loss: Any


def step(state: State, perceptual: Any, batch: Batch) -> tuple[State, dict[str, Any]]:
    """Adds the loss to everything; skips what is not finite, as the step of meta-learning does."""
    finite = jnp.isfinite(batch.loss)
    add = jnp.where(finite, batch.loss, 0)
    table = VideoTable(*(leaf.at[batch.video_index].add(add.astype(leaf.dtype)) for leaf in state.table))
    new = state._replace(
        step=state.step + 1,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * ~finite,
        weights=state.weights + add,
        table=table,
    )
    return new, {"loss/generator": batch.loss}


def test_a_skipped_step_changes_counters_and_statistics_alone() -> None:
    table = VideoTable(jnp.zeros((8, 2)), jnp.zeros((8, 2)), jnp.zeros(8, jnp.int32))
    zero = jnp.zeros((), jnp.int32)
    state = State(zero, zero, zero, jnp.zeros(3), table, no_statistics())
    program = jax.jit(guarded(step, SETTINGS, players=("synthesis",)), donate_argnums=0)
    plain = jax.jit(step)
    losses = [2.0 + 0.1 * (number % 7) for number in range(60)]
    expected, state = state, jax.tree.map(jnp.copy, state)
    for loss in losses:
        batch = Batch(jnp.asarray([1, 5]), jnp.float32(loss))
        expected, _ = plain(expected, None, batch)
        state, metrics = program(state, None, batch)
    bad = [1e5, 1e5, np.nan, 1e5]
    for loss in bad:
        state, metrics = program(state, None, Batch(jnp.asarray([2, 5]), jnp.float32(loss)))
    assert metrics["guard/deviation"] > 6
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (64, 4, 4)
    assert int(state.guard.outliers) == 3
    np.testing.assert_array_equal(state.weights, expected.weights)
    for ours, theirs in zip(state.table, expected.table, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    state, _ = program(state, None, Batch(jnp.asarray([2, 5]), jnp.float32(2.0)))
    assert int(state.skipped_in_a_row) == 0
    assert float(state.table.rows[2, 0]) == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -1.0}, "guard.sigma must be 0 or more"),
        ({"sigma": float("nan")}, "guard.sigma must be 0 or more"),
        ({"decay": 1.0}, r"guard.decay must be in \[0, 1\)"),
        ({"warm_up": 1}, "guard.warm_up must be at least 2"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuardSettings(**settings).checked()


def test_without_a_guard_the_step_is_the_step() -> None:
    assert guarded(step, GuardSettings(sigma=0), players=("synthesis",)) is step


def test_on_several_devices_an_outlier_restores_the_rows_of_each() -> None:
    """Each device has its own part of the table, and its own episodes with the numbers of all rows."""
    devices, rows = 2, 4

    def step(state: Any, perceptual: Any, batch: Any) -> Any:
        index = of_all_devices(batch.video_index, "data")
        own = index - jax.lax.axis_index("data") * rows
        at = jnp.where((own >= 0) & (own < rows), own, rows)
        table = VideoTable(*(leaf.at[at].add(batch.loss[0].astype(leaf.dtype)) for leaf in state.table))
        new = state._replace(step=state.step + 1, weights=state.weights + batch.loss[0], table=table)
        return new, {"loss/generator": batch.loss[0]}

    guarded_step = jax.jit(
        jax.vmap(
            guarded(step, SETTINGS._replace(warm_up=5), players=("synthesis",), axis_name="data"),
            in_axes=(0, None, 0), axis_name="data",
        )
    )  # fmt: skip
    zero = jnp.zeros((), jnp.int32)
    table = VideoTable(jnp.zeros((rows, 2)), jnp.zeros((rows, 2)), jnp.zeros(rows, jnp.int32))
    one = State(zero, zero, zero, jnp.zeros(3), table, no_statistics())
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), one)

    def batch(loss: float) -> Batch:  # the first device visits a row of the second, and the other way around
        return Batch(jnp.asarray([[5], [1]], jnp.int32), jnp.full((devices, 1), loss, jnp.float32))

    for number in range(20):
        state, _ = guarded_step(state, None, batch(2 + 0.1 * (number % 7)))
    assert np.count_nonzero(state.table.rows[..., 0]) == 2
    after_it, metrics = guarded_step(state, None, batch(1e5))
    assert (np.asarray(metrics["guard/deviation"]) > 6).all()
    for name in ("weights", "table"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after_it, name), getattr(state, name))
    assert [int(leaf[0]) for leaf in (after_it.step, after_it.skipped, after_it.skipped_in_a_row)] == [21, 1, 1]
