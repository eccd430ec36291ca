"""Growing to larger frames: existing layers are copied exactly, and new ones do not change the function."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.models.architecture import neutral_adain
from th_jax.models.grow import grow
from th_jax.models.networks import Networks, group
from th_jax.storage.tensors import leaves_by_name
from th_jax.types import MetaWeights

SMALL = Networks(image_size=64, base_width=4, pool="mean", projection_spectral_norm=False)
LARGE = dataclasses.replace(SMALL, image_size=128, embedder_size=64)


def test_the_embedding_and_the_adain_parameters_stay_exactly() -> None:
    weights = SMALL.init(jax.random.key(0))
    grown, _ = grow(SMALL, weights, LARGE, jax.random.key(1))
    frame, drawn = jax.random.uniform(jax.random.key(2), (2, 2, 128, 128, 3), minval=-1.0)
    halves = [jnp.asarray(np.asarray(x).reshape(2, 64, 2, 64, 2, 3).mean((2, 4))) for x in (frame, drawn)]
    before = SMALL.embed(group(weights.synthesis, "embedder"), *halves)
    after = LARGE.embed(group(grown.synthesis, "embedder"), frame, drawn)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        LARGE.project(group(grown.synthesis, "projection"), before),
        SMALL.project(group(weights.synthesis, "projection"), before),
    )


def test_layers_are_copied_whole_and_new_ones_keep_their_initial_values() -> None:
    weights = SMALL.init(jax.random.key(0))
    weights = jax.tree.map(lambda x: x + 0.25, weights)  # nothing, and no gamma, is at its start any more
    grown, fresh = grow(SMALL, weights, LARGE, jax.random.key(1))
    old, new, initial = (leaves_by_name(tree) for tree in (weights, grown, LARGE.init(jax.random.key(1))))
    for name, leaf in new.items():
        np.testing.assert_array_equal(leaf, initial[name] if name in fresh else old[name], err_msg=name)
    kernels = {name.split("params/")[1] for name in fresh if name.endswith("kernel")}
    attention = ("generator/attention_down", "generator/attention_up", "attention")
    layers = {f"{place}/{kernel}/kernel" for place in attention for kernel in ("query", "key", "value", "out")}
    assert {name for name in kernels if "attention" in name} == layers
    assert {name.split("/")[0] for name in kernels if "attention" not in name} == {"down_4"}  # of D
    gammas = [float(new[name]) for name in fresh if name.endswith("gamma")]
    assert gammas == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_width": 8}, "base_width"),
        ({"pool": "sum"}, "pool"),
        ({"projection_spectral_norm": True}, "projection_spectral_norm"),
        ({"image_size": 32, "embedder_size": 0}, "reduced"),
    ],
)
def test_incompatible_networks_are_rejected(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grow(SMALL, SMALL.shapes(), dataclasses.replace(LARGE, **changes), jax.random.key(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "said"), [(256, "at most image_size"), (48, "must be one of")])
def test_an_embedder_size_that_fits_no_network_is_rejected(size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(LARGE, embedder_size=size)


CORE = Networks(image_size=32, base_width=8, pool="mean", projection_spectral_norm=False)
OUTER = dataclasses.replace(CORE, image_size=64, base_width=4, max_width=64)


@pytest.mark.parametrize("embedder_size", [0, 32])
def test_an_outer_block_initially_changes_no_function(embedder_size: int) -> None:
    larger = dataclasses.replace(OUTER, embedder_size=embedder_size)
    weights = CORE.init(jax.random.key(0))
    grown, fresh = grow(CORE, weights, larger, jax.random.key(1))
    assert all("outer" in name or name.endswith("generator/gamma") for name in fresh)
    frame, drawn = jax.random.uniform(jax.random.key(2), (2, 2, 64, 64, 3), minval=-1.0)
    halves = [jnp.asarray(np.asarray(x).reshape(2, 32, 2, 32, 2, 3).mean((2, 4))) for x in (frame, drawn)]
    (before, old_adain, old_image, old_scores), (after, adain, image, scores) = (
        all_functions(networks, given, *images)
        for networks, given, images in ((CORE, weights, halves), (larger, grown, (frame, drawn)))
    )
    np.testing.assert_allclose(after, before, atol=1e-6)
    np.testing.assert_allclose(adain[:, : old_adain.shape[1]], old_adain, atol=1e-6)
    enlarged = np.repeat(np.repeat(old_image, 2, 1), 2, 2)
    assert np.abs(image - enlarged).mean() < 1e-6
    np.testing.assert_allclose(image, enlarged, atol=1e-5)  # more inputs sum in another order, and norms magnify it
    np.testing.assert_allclose(scores, old_scores, rtol=1e-5, atol=1e-6)


def all_functions(
    networks: Networks, weights: MetaWeights, frame: jax.Array, drawn: jax.Array
) -> tuple[np.ndarray, ...]:
    """ê, ψ̂, x̂ and D's scores."""
    embedding = networks.embed(group(weights.synthesis, "embedder"), frame, drawn)
    adain = networks.project(group(weights.synthesis, "projection"), embedding)
    image = networks.generate(group(weights.synthesis, "generator"), drawn, adain)
    scores, features = networks.discriminate(weights.discriminator, frame, drawn, embedding)
    assert len(features) == len(networks.plan.encoder) + 1 + bool(networks.plan.outer)
    return tuple(np.asarray(x) for x in (embedding, adain, image, scores))


def test_the_outer_block_draws_what_its_weight_lets_in() -> None:
    grown, _ = grow(CORE, CORE.init(jax.random.key(0)), OUTER, jax.random.key(1))
    generator, drawn = group(grown.synthesis, "generator"), jnp.zeros((1, 64, 64, 3)).at[0, 20, 30].set(1.0)
    adain = neutral_adain(OUTER.plan.adain_widths)[None]

    def image(gamma: float) -> np.ndarray:
        state = generator._replace(params={**generator.params, "gamma": jnp.float32(gamma)})
        return np.arctanh(np.asarray(OUTER.generate(state, drawn, adain), np.float64))

    none, half, whole = (image(gamma) for gamma in (0.0, 0.1, 0.2))
    assert np.abs(half - none).max() > 1e-3
    exact = np.abs(whole) < 2  # beyond, tanh in float32 leaves too few digits
    assert exact.mean() > 0.5
    np.testing.assert_allclose((whole - none)[exact], 2 * (half - none)[exact], atol=1e-4)


def test_the_plan_of_an_outer_block_is_that_of_its_core() -> None:
    paper = Networks(image_size=128, base_width=64).plan
    wide = Networks(image_size=256, base_width=32, max_width=512).plan
    assert wide._replace(outer=0) == paper
    assert (wide.outer, wide.embedding) == (32, 512)
    assert wide.adain_widths == (*paper.adain_widths, 64, 32, 32)
    assert Networks(image_size=256, base_width=64, max_width=512).plan == Networks().plan


@pytest.mark.parametrize(
    ("larger", "said"),
    [
        (dataclasses.replace(OUTER, projection_spectral_norm=True), "projection_spectral_norm"),
        (dataclasses.replace(OUTER, base_width=8, max_width=128), "same base_width"),
    ],
)
def test_an_outer_block_around_another_core_is_rejected(larger: Networks, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grow(CORE, CORE.shapes(), larger, jax.random.key(0))


def test_p_with_spectral_norm_gets_no_outer_block() -> None:
    normalized = [dataclasses.replace(networks, projection_spectral_norm=True) for networks in (CORE, OUTER)]
    with pytest.raises(ValueError, match="P must have no spectral norm"):
        grow(normalized[0], CORE.shapes(), normalized[1], jax.random.key(0))


def test_a_second_outer_block_is_rejected() -> None:
    with pytest.raises(ValueError, match="same outer block"):
        grow(OUTER, OUTER.shapes(), Networks(64, 8, pool="mean", projection_spectral_norm=False), jax.random.key(0))


def test_other_maximum_widths_are_rejected() -> None:
    with pytest.raises(ValueError, match="max_width must be 0, 64 or 128 at base_width 8, got 100"):
        dataclasses.replace(CORE, max_width=100)
