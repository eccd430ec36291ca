"""What the networks refuse, each with its sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from th_jax.models.checks import check_same_tree
from th_jax.models.networks import Networks, group
from th_jax.models.spectral import power_iterate

NETWORKS = Networks(image_size=16, base_width=4)


@pytest.fixture(scope="module")
def generator():
    return group(NETWORKS.init(jax.random.key(0)).synthesis, "generator")


def adain() -> jax.Array:
    return jnp.ones((1, NETWORKS.plan.adain_size))


def test_wrong_picture_size(generator) -> None:
    with pytest.raises(ValueError, match=r"landmark_image must be \[B, 16, 16, 3\] .* has the shape \(1, 32, 32, 3\)"):
        NETWORKS.generate(generator, jnp.zeros((1, 32, 32, 3)), adain())


def test_wrong_range(generator) -> None:
    with pytest.raises(ValueError, match=r"landmark_image must lie in \[-1, 1\], but reaches from 0 to 255"):
        NETWORKS.generate(generator, jnp.zeros((1, 16, 16, 3)).at[0, 0, 0, 0].set(255.0), adain())


def test_nan_is_out_of_range(generator) -> None:
    with pytest.raises(ValueError, match="landmark_image must lie in"):
        NETWORKS.generate(generator, jnp.full((1, 16, 16, 3), jnp.nan), adain())


def test_wrong_dtype(generator) -> None:
    with pytest.raises(TypeError, match=r"landmark_image must be floating point .* came as uint8; .*to_network_range"):
        NETWORKS.generate.__wrapped__(NETWORKS, generator, jnp.zeros((1, 16, 16, 3), jnp.uint8), adain())


def test_wrong_number_of_adain_parameters(generator) -> None:
    with pytest.raises(ValueError, match=r"adain must be \[B, 192\] for these networks, but has the shape \(1, 7\)"):
        NETWORKS.generate(generator, jnp.zeros((1, 16, 16, 3)), jnp.ones((1, 7)))


def test_shape_errors_come_inside_jit_too(generator) -> None:
    with pytest.raises(ValueError, match="landmark_image must be"):
        jax.jit(lambda y: NETWORKS.generate(generator, y, adain()))(jnp.zeros((1, 8, 8, 3)))


def test_unknown_config_key() -> None:
    with pytest.raises(ValueError, match="'base_widht' is not a setting of the networks; did you mean 'base_width'"):
        Networks.from_settings({"image_size": 64, "base_widht": 32})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, "image_size must be one of 256, 128, 64, 32, 16, but is 100"),
        ({"base_width": 6}, "base_width must be a positive multiple of 4, but is 6"),
        ({"pool": "max"}, "pool must be one of sum, mean, but is 'max'"),
        ({"pool_order": "relu"}, "pool_order must be one of sum_relu, relu_sum, but is 'relu'"),
        ({"compute_dtype": "float16"}, "compute_dtype must be one of float32, bfloat16, but is 'float16'"),
    ],
)
def test_values_no_network_has(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Networks.from_settings(settings)


def test_weights_of_another_network() -> None:
    wanted = NETWORKS.shapes().synthesis.params["generator"]
    wider = Networks(image_size=16, base_width=8).shapes().synthesis.params["generator"]
    with pytest.raises(
        ValueError, match=r"not the weights of the generator: down_0/conv_0/bias is \(8,\) instead of \(4,\)"
    ):
        check_same_tree("the generator", wanted, wider)
    embedder = NETWORKS.shapes().synthesis.params["embedder"]
    with pytest.raises(ValueError, match=r"missing 'down_1/norm_0/bias'.* and .* more; unknown 'down_1/conv_0/bias'"):
        check_same_tree("the generator", wanted, embedder)
    check_same_tree("the generator", wanted, wanted)


def test_stats_of_another_network() -> None:
    stats = {"conv_9": {"u": jnp.ones(2), "v": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"different networks: no parameters for \['conv_9'\]"):
        power_iterate({"conv_0": {"kernel": jnp.ones((1, 1, 2, 2))}}, stats)
    with pytest.raises(ValueError, match="belong to a layer with a kernel, but the layer holds"):
        power_iterate({"conv_9": {"bias": jnp.ones(2)}}, stats)


def test_numpy_scalars_do_not_slip_through(generator) -> None:
    with pytest.raises(ValueError, match="adain must be"):
        NETWORKS.generate(generator, jnp.zeros((1, 16, 16, 3)), jnp.asarray(np.float32(1.0)).reshape(1, 1))
