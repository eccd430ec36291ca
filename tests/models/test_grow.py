"""Growing to larger frames: existing layers are copied exactly, and new ones do not change the function."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.models.grow import grow
from th_jax.models.networks import Networks, group
from th_jax.storage.tensors import leaves_by_name

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
