"""Fine-tuning one person: what moves, what may not, where it starts, and that padding changes nothing."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import (
    equal_bits,
    largest_difference,
    losses,
    networks,
    optimizers,
    perceptual,  # noqa: F401 - a fixture
    tiny_batch,
)

from th_jax.losses import LossWeights
from th_jax.models.networks import group
from th_jax.training.finetune import (
    avatar_of,
    choose_shots,
    embed_shots,
    feed_forward,
    make_finetune_chunk,
    start_finetune,
    steps_of,
)
from th_jax.training.finetune_objectives import Frames, generator_terms_of_person, hinge_of_person
from th_jax.types import Avatar, MetaWeights, NetworkState, Shots

pytestmark = pytest.mark.usefixtures("perceptual")


@functools.cache
def meta_weights() -> MetaWeights:
    weights: MetaWeights = networks().init(jax.random.key(0))
    return weights


def tiny_shots(real: int, *, padded: int, seed: int = 0) -> Shots:
    """Noise; the padding holds other noise and unknown landmarks."""
    batch = tiny_batch(episodes=padded, sources=1, seed=seed)
    frames, landmarks = batch.target_frame, batch.target_landmarks.copy()
    landmarks[real:] = np.nan
    return Shots(frames, landmarks, (np.arange(padded) < real).astype(np.float32))


@functools.cache
def chunk(steps: int) -> Callable[..., Any]:
    return jax.jit(make_finetune_chunk(networks(), losses(), optimizers("adam"), steps=steps))


def started(shots: Shots) -> Any:
    return start_finetune(networks(), meta_weights(), shots, optimizers=optimizers("adam"), key=jax.random.key(7))


def run(shots: Shots, *, steps: int, perceptual: Any) -> Any:  # noqa: F811
    return chunk(3)(started(shots), perceptual, shots, jnp.int32(steps))


def mean_embedding(shots: Shots) -> Any:
    """E of each real shot alone, and their mean."""
    embedder = group(meta_weights().synthesis, "embedder")
    real = int(shots.mask.sum())
    drawn = networks().landmark_image(jnp.asarray(shots.landmarks[:real]))
    frames = jnp.asarray(shots.frames[:real], jnp.float32) / 127.5 - 1
    embed = jax.jit(networks().embed)
    return jnp.stack([embed(embedder, frames[i : i + 1], drawn[i : i + 1])[0] for i in range(real)]).mean(0)


def test_padding_does_not_shrink_the_embedding() -> None:
    padded = tiny_shots(5, padded=8)
    np.testing.assert_allclose(
        embed_shots(networks(), meta_weights(), padded), mean_embedding(padded), rtol=1e-4, atol=1e-5
    )


def test_it_starts_where_the_paper_says() -> None:
    shots = tiny_shots(5, padded=8)
    state = started(shots)
    embedding = mean_embedding(shots)
    shared = meta_weights().discriminator.params["shared"]
    np.testing.assert_allclose(state.discriminator.params["shared"], shared + embedding, rtol=1e-4, atol=1e-5)
    adain = networks().project(group(meta_weights().synthesis, "projection"), embedding[None])[0]
    np.testing.assert_allclose(state.adain, adain, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.adain, feed_forward(networks(), meta_weights(), shots).adain)
    assert equal_bits(state.generator.params, meta_weights().synthesis.params["generator"])


def test_at_step_zero_the_output_is_the_feed_forward_one() -> None:
    """To the last bit, through the same compiled program."""
    shots = tiny_shots(5, padded=8)

    @jax.jit
    def generate(avatar: Avatar) -> Any:
        state = NetworkState(avatar.generator_params, avatar.spectral_stats)
        return networks().generate(
            state, networks().landmark_image(jnp.asarray(shots.landmarks[:1])), avatar.adain[None]
        )

    one, other = generate(avatar_of(started(shots))), generate(feed_forward(networks(), meta_weights(), shots))
    np.testing.assert_array_equal(one, other)


def test_at_step_zero_the_discriminator_knows_the_person() -> None:
    """w' = w0 + ê scores as the meta discriminator would with a row of ê."""
    shots = tiny_shots(8, padded=8)
    state, embedding = started(shots), embed_shots(networks(), meta_weights(), shots)
    frame, landmarks = (
        jnp.asarray(shots.frames[:1]) / 127.5 - 1,
        networks().landmark_image(jnp.asarray(shots.landmarks[:1])),
    )
    ours, _ = networks().discriminate(state.discriminator, frame, landmarks, jnp.zeros((1, embedding.size)))
    theirs, _ = networks().discriminate(meta_weights().discriminator, frame, landmarks, embedding[None])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_everything_of_the_person_moves(perceptual: Any) -> None:  # noqa: F811
    """ψ' and w' above all: optimisers that were made before they took their places would never train them."""
    shots = tiny_shots(8, padded=8)
    before = started(shots)
    after, metrics = run(shots, steps=3, perceptual=perceptual)
    assert np.abs(after.adain - before.adain).max() > 1e-4
    moved = np.asarray(after.discriminator.params["shared"] != before.discriminator.params["shared"])
    assert moved.mean() > 0.5
    for tree in ("generator", "discriminator"):
        changed = jax.tree.map(
            lambda a, b: not np.array_equal(a, b), getattr(after, tree).params, getattr(before, tree).params
        )
        still = [jax.tree_util.keystr(p) for p, c in jax.tree_util.tree_flatten_with_path(changed)[0] if not c]
        assert still == [], tree
    assert all(values.shape == (3,) and np.isfinite(values).all() for values in metrics.values())
    assert int(after.step) == 3
    for moments, updates in ((after.discriminator_moments, 6), (after.synthesis_moments, 3)):  # D moves twice a step
        counts = optax.tree_utils.tree_get_all_with_path(moments, "count")
        assert {int(count) for _, count in counts} == {updates}


def test_the_terms_of_a_person_are_what_they_are_called() -> None:
    """Scores equal D applied to real and generated shots apart; the adversary's factor weighs both of its terms."""
    shots = tiny_shots(3, padded=3)
    frames = Frames.of(networks(), shots, jnp.arange(3), jnp.array([0.5, 0.25, 0.25]))
    trunk = meta_weights().discriminator
    fake = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, frames.real.shape), jnp.float32)
    nobody = jnp.zeros((3, networks().plan.embedding))
    real_score, fake_score = (
        np.asarray(networks().discriminate(trunk, pictures, frames.landmarks, nobody)[0])
        for pictures in (frames.real, fake)
    )
    weight = np.asarray(frames.weight)
    hinge, said = jax.jit(functools.partial(hinge_of_person, networks()))(trunk, fake, frames)
    np.testing.assert_allclose(said["score/real"], weight @ real_score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(said["score/fake"], weight @ fake_score, rtol=1e-4, atol=1e-5)
    wanted = weight @ (np.maximum(0, 1 + fake_score) + np.maximum(0, 1 - real_score))
    np.testing.assert_allclose(hinge, wanted, rtol=1e-4)
    assert abs(weight @ (real_score - fake_score)) > 1e-3

    weights = LossWeights({}, feature_matching=10.0, pixel=2.0)
    terms = functools.partial(generator_terms_of_person, networks(), loss_weights=weights, adversary=0.25)
    weighted, plain = jax.jit(terms)(fake, frames, trunk, {})
    np.testing.assert_allclose(plain["adversarial"], -(weight @ fake_score), rtol=1e-4, atol=1e-5)
    for name, factor in {"adversarial": 0.25, "feature_matching": 2.5, "pixel": 2.0}.items():
        np.testing.assert_allclose(weighted[name], factor * plain[name], rtol=1e-5, err_msg=name)
        assert abs(float(plain[name])) > 1e-3, name


def test_only_what_the_paper_names_can_move() -> None:
    """E and P are not even in the state: no leaf of it has their shape of tree."""
    state = started(tiny_shots(8, padded=8))
    names = {
        jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in jax.tree_util.tree_flatten_with_path(state)[0]
    }
    assert not [name for name in names if "embedder" in name or "projection" in name]
    trained = [name for name in names if name.startswith(("generator/params", "adain", "discriminator/params"))]
    assert "adain" in trained
    assert "discriminator/params/shared" in trained
    assert "discriminator/params/bias" in trained


def test_padding_changes_nothing(perceptual: Any) -> None:  # noqa: F811
    """Five shots among eight, whatever the other three hold."""
    shots = tiny_shots(5, padded=8)
    noise = np.random.default_rng(5).integers(0, 256, shots.frames[5:].shape, dtype=np.uint8)
    other = shots._replace(frames=np.concatenate([shots.frames[:5], noise]))
    one, _ = run(shots, steps=3, perceptual=perceptual)
    two, _ = run(other, steps=3, perceptual=perceptual)
    assert largest_difference(one._replace(key=0), two._replace(key=0)) < 1e-4


def test_chunks_compose(perceptual: Any) -> None:  # noqa: F811
    shots = tiny_shots(8, padded=8)
    whole, _ = run(shots, steps=3, perceptual=perceptual)
    state = started(shots)
    for end in (1, 3):
        state, metrics = chunk(3)(state, perceptual, shots, jnp.int32(end))
        assert np.isfinite(metrics["loss/generator"]).tolist() == (
            [True, False, False] if end == 1 else [True, True, False]
        )
    assert int(state.step) == 3
    assert equal_bits(state._replace(key=0), whole._replace(key=0))


def test_steps_of_the_papers_shots() -> None:
    assert [steps_of(shots, epochs=40) for shots in (1, 8, 32, 5, 20)] == [40, 40, 160, 40, 100]
    with pytest.raises(ValueError, match="at least 1 shot and 1 epoch"):
        steps_of(0, epochs=40)


def test_one_shot_is_a_batch_of_one() -> None:
    chosen, weight = choose_shots(jax.random.key(0), jnp.int32(3), jnp.ones(1))
    assert (chosen.tolist(), weight.tolist()) == ([0], [1.0])


def test_up_to_eight_shots_are_all_taken_each_step() -> None:
    mask = jnp.asarray(np.arange(8) < 5, jnp.float32)
    chosen, weight = choose_shots(jax.random.key(0), jnp.int32(3), mask)
    np.testing.assert_allclose(weight, mask / 5)
    assert chosen.tolist() == list(range(8))


@pytest.mark.parametrize("real", [20, 32, 9])
def test_more_shots_are_visited_once_an_epoch(real: int) -> None:
    mask = jnp.asarray(np.arange(32) < real, jnp.float32)
    choose = jax.jit(choose_shots)
    seen = np.concatenate([choose(jax.random.key(0), jnp.int32(step), mask)[0] for step in range(real)])
    epochs = seen.reshape(8, real)
    assert (np.sort(epochs, axis=1) == np.arange(real)).all()
    assert not (epochs[0] == epochs[1]).all()


def test_few_shots_in_much_padding_are_all_taken() -> None:
    mask = jnp.zeros(32).at[jnp.array([3, 17, 30])].set(1.0)
    chosen, weight = choose_shots(jax.random.key(0), jnp.int32(2), mask)
    assert set(np.asarray(chosen)[np.asarray(weight) > 0].tolist()) == {3, 17, 30}
    np.testing.assert_allclose(np.asarray(weight).sum(), 1.0)


def test_impossible_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match="a chunk needs at least 1 step"):
        make_finetune_chunk(networks(), losses(), optimizers("adam"), steps=0)
    with pytest.raises(ValueError, match="discriminator_updates must be at least 1"):
        make_finetune_chunk(networks(), losses(), optimizers("adam"), steps=1, discriminator_updates=0)
    with pytest.raises(ValueError, match=r"averaging must be in \[0, 1\), but is 1.0"):
        make_finetune_chunk(networks(), losses(), optimizers("adam"), steps=1, averaging=1.0)


def test_the_averaged_avatar_is_the_mean_of_the_steps_by_the_decays(perceptual: Any) -> None:  # noqa: F811
    shots = tiny_shots(8, padded=8)
    step = jax.jit(make_finetune_chunk(networks(), losses(), optimizers("adam"), steps=1, averaging=0.15))
    state = start_finetune(
        networks(), meta_weights(), shots, optimizers=optimizers("adam"), key=jax.random.key(7), averaging=0.15
    )
    expected = jax.tree.map(np.asarray, (state.generator.params, state.adain))
    assert equal_bits((avatar_of(state).generator_params, avatar_of(state).adain), expected)
    for number, decay in enumerate((0.1, 0.15)):  # the first is (1 + 0) / (10 + 0)
        state, _ = step(state, perceptual, shots, jnp.int32(number + 1))
        latest = jax.tree.map(np.asarray, (state.generator.params, state.adain))
        expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, expected, latest)
    averaged = avatar_of(state)
    assert largest_difference((averaged.generator_params, averaged.adain), expected) < 1e-6
    assert largest_difference(averaged.generator_params, state.generator.params) > 1e-6
    unaveraged, _ = chunk(3)(started(shots), perceptual, shots, jnp.int32(2))
    assert largest_difference(state.generator.params, unaveraged.generator.params) < 1e-6  # training itself is the same
