"""Whole networks with copied weights against golden arrays from an independent PyTorch implementation."""

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from tests.golden.compare import assert_golden
from tests.golden.seeded import load_specification
from th_jax.models.networks import Networks, group
from th_jax.types import NetworkState

SIZES = [16, 32, 64]
ORDERS = ["sum_relu", "relu_sum"]


def networks(image_size: int, **settings) -> Networks:
    return Networks(image_size=image_size, base_width=4, **settings)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", ORDERS)
def test_embedder(size: int, order: str) -> None:
    nets = networks(size, pool_order=order)

    def run(params, stats, inputs):
        return {"embedding": nets.embed(NetworkState(params, stats), inputs["frame"], inputs["landmark_image"])}

    assert_golden(f"networks_{size}", f"embedder_{order}", run)


@pytest.mark.parametrize("size", SIZES)
def test_projection(size: int) -> None:
    def run(params, stats, inputs):
        return {"adain": networks(size).project(NetworkState(params, stats), inputs["embedding"])}

    assert_golden(f"networks_{size}", "adain_projection", run)


@pytest.mark.parametrize("size", SIZES)
def test_generator(size: int) -> None:
    def run(params, stats, inputs):
        state = NetworkState(params, stats)
        return {"frame": networks(size).generate(state, inputs["landmark_image"], inputs["adain"])}

    assert_golden(f"networks_{size}", "generator", run)


@pytest.mark.parametrize(
    ("size", "case"),
    [(size, f"discriminator_{order}") for size in SIZES for order in ORDERS] + [(16, "discriminator_features")],
)
def test_discriminator(size: int, case: str) -> None:
    nets = networks(size, pool_order="relu_sum" if case.endswith("relu_sum") else "sum_relu")

    def run(params, stats, inputs):
        state = NetworkState(params, stats)
        score, features = nets.discriminate(state, inputs["frame"], inputs["landmark_image"], inputs["identity"])
        return {"score": score} | {f"feature_{block}": feature for block, feature in enumerate(features)}

    assert_golden(f"networks_{size}", case, run)


@pytest.mark.parametrize("size", SIZES)
def test_both_renderings_have_the_same_parameters(size: int) -> None:
    shapes = networks(size).shapes()
    ours = {
        "embedder_sum_relu": shapes.synthesis.params["embedder"],
        "adain_projection": shapes.synthesis.params["projection"],
        "generator": shapes.synthesis.params["generator"],
        "discriminator_sum_relu": shapes.discriminator.params,
    }
    cases = load_specification(f"networks_{size}")["cases"]
    for case, params in ours.items():
        flat = {path: list(leaf.shape) for path, leaf in flatten_dict(params, sep="/").items()}
        assert flat == cases[case]["parameters"], case


def test_folded_kernels_are_the_same_function() -> None:
    nets = networks(32)
    weights = nets.init(jax.random.key(0))
    plain, folded = nets.folded(weights)
    key = jax.random.key(1)
    picture = jax.random.uniform(key, (2, 32, 32, 3), minval=-1, maxval=1)
    adain = 1 + 0.3 * jax.random.normal(key, (2, nets.plan.adain_size))
    full, light = (
        networks.generate(group(state.synthesis, "generator"), picture, adain)
        for networks, state in ((nets, weights), (plain, folded))
    )
    assert float(jnp.abs(full - light).max()) < 1e-5
