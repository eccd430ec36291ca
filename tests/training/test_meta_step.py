"""The step: who moves, by how much, in what slices, and what happens when a number is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import (
    compiled_step,
    equal_bits,
    largest_difference,
    losses,
    networks,
    optimizers,
    perceptual,  # noqa: F401 - a fixture
    tiny_batch,
    tiny_state,
)

from th_jax.models.spectral import power_iterate
from th_jax.training import meta_step
from th_jax.training.meta_step import make_meta_train_step
from th_jax.training.objectives import discriminator_objective, draw_sources, draw_targets, synthesize
from th_jax.training.optimizers import AdamSettings, Optimizers
from th_jax.training.state import identity_rows

pytestmark = pytest.mark.usefixtures("perceptual")


def moved(before: Any, after: Any) -> dict[str, bool]:
    """For each leaf, whether it changed."""
    flat = jax.tree_util.tree_flatten_with_path(before)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): not np.array_equal(a, b)
        for (path, a), b in zip(flat, jax.tree.leaves(after), strict=True)
    }


def test_both_players_and_their_vectors_move_and_untouched_rows_stay(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    after, metrics = compiled_step()(state, perceptual, batch)
    still = [name for name, changed in moved(state.weights, after.weights).items() if not changed]
    # While no score leaves the hinge's margin, real and generated frames push b up and down alike.
    assert still == ["discriminator/params/bias"]
    assert all(moved(state.averaged.params, after.averaged.params).values())
    rows = {int(i) for i in np.flatnonzero((np.asarray(state.table.rows) != np.asarray(after.table.rows)).any(-1))}
    assert rows == set(batch.video_index.tolist())
    assert (int(after.step), int(after.discriminator_updates), int(after.skipped)) == (1, 2, 0)
    assert {"loss/content", "loss/pixel", "loss/adversarial", "loss/feature_matching", "loss/matching"} <= set(metrics)


def test_vectors_move_once_an_update(perceptual: Any) -> None:  # noqa: F811
    """One power iteration on the parameters that an update left: E, G and P once, the discriminator twice a step."""
    state = tiny_state()
    after, _ = compiled_step()(state, perceptual, tiny_batch())
    synthesis = after.weights.synthesis
    wanted = jax.jit(power_iterate)(synthesis.params, state.weights.synthesis.spectral_stats)
    assert largest_difference(synthesis.spectral_stats, wanted) < 1e-4


def test_the_discriminators_vectors_follow_each_of_its_updates(perceptual: Any) -> None:  # noqa: F811
    """Two updates of a step are two steps of one update each, vectors included."""
    state, batch = tiny_state(), tiny_batch()
    twice, _ = compiled_step(players=("discriminator",))(state, perceptual, batch)
    once, _ = compiled_step(players=("discriminator",), discriminator_updates=1)(state, perceptual, batch)
    again, _ = compiled_step(players=("discriminator",), discriminator_updates=1)(once, perceptual, batch)
    assert largest_difference(twice.weights.discriminator, again.weights.discriminator) < 1e-4
    wanted = state.weights.discriminator.spectral_stats
    for weights in (once.weights, again.weights):
        wanted = jax.jit(power_iterate)(weights.discriminator.params, wanted)
    assert largest_difference(twice.weights.discriminator.spectral_stats, wanted) < 1e-4


def test_the_average_takes_in_the_new_weights_by_one_less_the_decay(perceptual: Any) -> None:  # noqa: F811
    """At step 1 the decay is 2 / 11, so an average of zero becomes 9 / 11 of the new weights."""
    state = tiny_state()
    zeros = jax.tree.map(jnp.zeros_like, state.averaged.params)
    state = state._replace(averaged=state.averaged._replace(params=zeros), step=jnp.int32(1))
    after, _ = compiled_step(players=("synthesis",))(state, perceptual, tiny_batch())
    wanted = jax.tree.map(lambda new: (1 - 2 / 11) * new, after.weights.synthesis.params)
    assert largest_difference(after.averaged.params, wanted) < 1e-5


def test_the_first_update_of_a_warm_up_has_its_first_rate(perceptual: Any) -> None:  # noqa: F811
    """With a warm-up of four updates, D and the rows of W first move by a quarter of the rate times the gradient."""
    rate = 1e-2
    warm = Optimizers(AdamSettings(rate, kind="sgd"), AdamSettings(rate, kind="sgd", warmup=4), averaging=0.9)
    step = jax.jit(
        make_meta_train_step(networks(), warm, losses(), players=("discriminator",), discriminator_updates=1)
    )
    state, batch = tiny_state(), tiny_batch()._replace(video_index=np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32))
    after, said = step(state, perceptual, batch)
    np.testing.assert_allclose(said["rate/discriminator"], rate / 4, rtol=1e-6)

    @jax.jit
    def slopes(state: Any, batch: Any) -> Any:
        targets = draw_targets(networks(), batch, landmark_box=losses().landmark_box)
        made = synthesize(networks(), state.weights.synthesis, draw_sources(networks(), batch), targets.landmarks)
        judge = state.weights.discriminator

        def objective(params: Any, rows: Any) -> Any:
            return discriminator_objective(
                *(networks(), params, judge.spectral_stats, rows),
                synthesis=made,
                targets=targets,
                matching=losses().matching,
            )[0]

        return jax.grad(objective, argnums=(0, 1))(judge.params, identity_rows(state.table, batch.video_index))

    of_params, of_rows = slopes(state, jax.tree.map(jnp.asarray, batch))
    wanted = jax.tree.map(lambda slope: -rate / 4 * slope, of_params)
    change = jax.tree.map(jnp.subtract, after.weights.discriminator.params, state.weights.discriminator.params)
    assert largest_difference(change, wanted) < 1e-2  # a change of 1e-5 of a weight is known to two digits
    dense = np.zeros(state.table.rows.shape, np.float32)
    np.add.at(dense, batch.video_index, -rate / 4 * np.asarray(of_rows))
    np.testing.assert_allclose(after.table.rows - state.table.rows, dense, rtol=1e-3, atol=1e-7)


def test_it_is_a_function_of_state_and_batch(perceptual: Any) -> None:  # noqa: F811
    one, said = compiled_step()(tiny_state(), perceptual, tiny_batch(seed=3))
    of_another_batch, _ = compiled_step()(tiny_state(), perceptual, tiny_batch(seed=4))
    of_another_state, _ = compiled_step()(tiny_state(seed=1), perceptual, tiny_batch(seed=3))
    again = compiled_step()(tiny_state(), perceptual, tiny_batch(seed=3))
    assert equal_bits((one, said), again), "calls in between leave no trace"
    for other in (of_another_batch, of_another_state):
        assert all(moved(one.weights.synthesis.params, other.weights.synthesis.params).values())


def test_slices_give_the_same_update(perceptual: Any) -> None:  # noqa: F811
    exact = 0
    for seed in range(3):
        state, batch = tiny_state(seed=seed), tiny_batch(seed=seed)
        whole, metrics = compiled_step()(state, perceptual, batch)
        sliced, metrics_of_slices = compiled_step(grad_accumulation_steps=2)(state, perceptual, batch)
        difference = largest_difference(sliced, whole)
        # A sum that rounds to the other side of a ReLU's zero moves single biases by so much; another gradient, by far more.
        assert difference < 1e-3
        exact += difference < 1e-5
        for name in metrics:
            np.testing.assert_allclose(metrics_of_slices[name], metrics[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert exact >= 2


def test_content_alone_leaves_the_discriminator_and_its_table(perceptual: Any) -> None:  # noqa: F811
    state = tiny_state()
    after, metrics = compiled_step(players=("synthesis",))(state, perceptual, tiny_batch())
    assert equal_bits(after.weights.discriminator, state.weights.discriminator)
    assert equal_bits(after.table, state.table)
    assert all(moved(state.weights.synthesis.params, after.weights.synthesis.params).values())
    assert int(after.discriminator_updates) == 0
    assert "loss/adversarial" not in metrics


def test_rematerialised_networks_give_the_same_update(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    kept, _ = compiled_step(players=("synthesis",))(state, perceptual, batch)
    again, _ = compiled_step(players=("synthesis",), remat_perceptual=True)(state, perceptual, batch)
    assert largest_difference(again, kept) < 1e-5


def test_bfloat16_comes_close(perceptual: Any) -> None:  # noqa: F811
    state, batch = tiny_state(), tiny_batch()
    _, exact = compiled_step(players=("synthesis",))(state, perceptual, batch)
    after, rough = compiled_step(players=("synthesis",), compute_dtype="bfloat16")(state, perceptual, batch)
    for name in ("loss/content", "loss/pixel", "norm/embedding"):
        np.testing.assert_allclose(rough[name], exact[name], rtol=0.03, err_msg=name)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.weights)} == {jnp.dtype("float32")}


def test_different_episodes_give_each_update_its_own_part(perceptual: Any) -> None:  # noqa: F811
    batch = tiny_batch()._replace(video_index=np.arange(8, dtype=np.int32))
    state = tiny_state("adam")
    step = compiled_step("adam", players=("discriminator",), discriminator_episodes="different")
    after, _ = step(state, perceptual, batch)
    assert after.table.last_update[:8].tolist() == [1, 2] * 4
    assert equal_bits(after.weights.synthesis, state.weights.synthesis)
    same, _ = compiled_step("adam", players=("discriminator",))(state, perceptual, batch)
    assert same.table.last_update[:8].tolist() == [2] * 8


@pytest.mark.parametrize("players", [("synthesis", "discriminator"), ("discriminator",)])
def test_a_step_that_is_not_finite_changes_nothing(players: tuple[str, ...], perceptual: Any) -> None:  # noqa: F811
    step = compiled_step() if len(players) == 2 else compiled_step("adam", players=players)
    state = tiny_state("sgd" if len(players) == 2 else "adam")
    trunk = state.weights.discriminator
    broken_trunk = trunk._replace(params={**trunk.params, "bias": jnp.float32(jnp.inf)})
    broken = state._replace(weights=state.weights._replace(discriminator=broken_trunk))
    for count in (1, 2):
        after, metrics = step(broken, perceptual, tiny_batch(seed=count))
        assert not all(np.isfinite(value) for value in metrics.values())
        assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (count, count, count)
        counters = {name: getattr(broken, name) for name in ("step", "skipped", "skipped_in_a_row")}
        assert equal_bits(after._replace(**counters), broken)
        broken = after
    well, _ = step(state._replace(skipped_in_a_row=jnp.int32(5)), perceptual, tiny_batch())
    assert (int(well.skipped), int(well.skipped_in_a_row)) == (0, 0)


def test_a_gradient_that_is_not_finite_changes_nothing_though_every_loss_is(
    perceptual: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The root of zero is zero, and its slope is not finite."""
    terms = meta_step.generator_terms

    def with_a_kink(*arguments: Any, **settings: Any) -> Any:
        weighted, plain = terms(*arguments, **settings)
        return weighted | {"kink": jnp.sqrt(0.0 * jnp.sum(arguments[1].fake))}, plain

    monkeypatch.setattr(meta_step, "generator_terms", with_a_kink)
    step = jax.jit(make_meta_train_step(networks(), optimizers(), losses(), players=("synthesis",)))
    state = tiny_state()
    after, said = step(state, perceptual, tiny_batch())
    assert all(np.isfinite(value) for name, value in said.items() if name.startswith("loss/"))
    assert not np.isfinite(said["grad_norm/synthesis"])
    assert int(after.skipped) == 1
    assert equal_bits((after.weights, after.averaged, after.table), (state.weights, state.averaged, state.table))


def test_descending_both_objectives_lowers_them(perceptual: Any) -> None:  # noqa: F811
    """On one batch over and over, content falls and the discriminator learns to tell."""
    state, batch = tiny_state("adam"), tiny_batch()
    first: dict[str, Any] = {}
    for _ in range(30):
        state, metrics = compiled_step("adam", players=("synthesis",))(state, perceptual, batch)
        first = first or metrics
    assert metrics["loss/generator"] < 0.8 * first["loss/generator"]
    first = {}
    for _ in range(30):
        state, metrics = compiled_step("adam", players=("discriminator",))(state, perceptual, batch)
        first = first or metrics
    assert metrics["loss/discriminator_hinge"] < 0.7 * first["loss/discriminator_hinge"]


def test_settings_that_fit_no_step_are_refused() -> None:
    def make(**settings: Any) -> Any:
        return make_meta_train_step(networks(), optimizers(), losses(), **settings)

    with pytest.raises(ValueError, match="players must be among synthesis, discriminator and not empty, but are"):
        make(players=("generator",))
    with pytest.raises(ValueError, match='discriminator_episodes must be "same" or "different", but is'):
        make(discriminator_episodes="other")
    with pytest.raises(ValueError, match="must be at least 1"):
        make(grad_accumulation_steps=0)
    with pytest.raises(ValueError, match="a batch of 8 episodes does not divide into 3 slices"):
        jax.eval_shape(make(grad_accumulation_steps=3), tiny_state(), {}, tiny_batch())


def test_adam_without_first_moment_is_adam() -> None:
    settings = optimizers("adam").synthesis
    ours, theirs = settings.optimizer(), optax.adam(settings.learning_rate, b1=0.0, b2=settings.beta2, eps=settings.eps)
    rng = np.random.default_rng(0)
    params = mine = {"kernel": jnp.asarray(rng.normal(size=(5, 3)).astype(np.float32))}
    state, reference = ours.init(mine), theirs.init(params)
    for _ in range(50):
        gradients = {"kernel": jnp.asarray(10.0 ** rng.uniform(-4, 1) * rng.normal(size=(5, 3)).astype(np.float32))}
        changes, state = ours.update(gradients, state, mine)
        mine = optax.apply_updates(mine, changes)
        changes, reference = theirs.update(gradients, reference, params)
        params = optax.apply_updates(params, changes)
    np.testing.assert_allclose(mine["kernel"], params["kernel"], rtol=1e-6)
