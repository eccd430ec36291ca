"""VGG pyramids against PyTorch with seeded weights, and the bundled VGG16 against ONNX Runtime on a photo."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.compare import assert_golden
from tests.golden.seeded import GOLDEN
from th_jax.images import to_network_range
from th_jax.perceptual.frozen import load_perceptual, load_weights
from th_jax.perceptual.pyramids import feature_pyramids
from th_jax.perceptual.vgg import feature_pyramid, layer_names


@pytest.fixture(scope="module")
def photo() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "vgg16_photo.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def errors(weights, photo: dict[str, np.ndarray]) -> list[tuple[float, float]]:
    """For each level, the largest and the root mean square difference, as shares of the level's own."""
    pyramid = feature_pyramid(weights, to_network_range(jnp.asarray(photo["photo"])[None]), network="vgg16")
    found = []
    for level, feature in enumerate(pyramid, 1):
        expected = photo[f"relu{level}_1"]
        step = feature.shape[1] // expected.shape[0]
        difference = np.asarray(feature)[0, ::step, ::step, ::4][: len(expected), : len(expected)] - expected
        root_mean_square = np.sqrt(np.mean(difference**2)) / np.sqrt(np.mean(expected**2))
        found.append((float(np.abs(difference).max() / np.abs(expected).max()), float(root_mean_square)))
    return found


@pytest.mark.parametrize("network", ["vgg16", "vgg19", "vggface"])
def test_pyramid(network: str) -> None:
    def run(params, stats, inputs):
        pyramid = feature_pyramid(params, inputs["frame"], network=network)
        return {f"relu{level}_1": feature for level, feature in enumerate(pyramid, 1)}

    case = assert_golden("perceptual", network, run)
    assert {path.split("/")[0] for path in case.parameters} == set(layer_names(network))


def test_bundled_vgg16_on_a_photo(photo) -> None:
    weights = load_perceptual(["vgg16"], folder=Path("nowhere"))["vgg16"]
    for level, (_, root_mean_square) in enumerate(errors(weights, photo), 1):
        assert root_mean_square < 5e-3, f"relu{level}_1"


@pytest.mark.oracle
def test_float32_vgg16_on_a_photo(photo) -> None:
    folder = os.environ.get("TH_JAX_WEIGHTS")
    assert folder, "make oracle-test converts the float32 weights and sets TH_JAX_WEIGHTS"
    weights = load_weights(Path(folder) / "vgg16.safetensors", network="vgg16")
    for level, (largest, _) in enumerate(errors(weights, photo), 1):
        assert largest < 1e-4, f"relu{level}_1"


def test_the_frozen_weights_are_arguments_of_the_program(photo) -> None:
    weights = load_perceptual(["vgg16"], folder=Path("nowhere"))
    picture = to_network_range(jnp.asarray(photo["photo"])[None, :32, :32])
    lowered = jax.jit(lambda w, x: feature_pyramids(w, x)["vgg16"][-1].mean()).lower(weights, picture)
    assert len(lowered.as_text()) < 100_000  # a closed-over VGG16 would be tens of megabytes of program text


def test_no_gradient_reaches_the_frozen_weights(photo) -> None:
    weights = load_perceptual(["vgg16"], folder=Path("nowhere"))
    picture = to_network_range(jnp.asarray(photo["photo"])[None, :16, :16])
    toward = jax.grad(lambda w, x: sum(jnp.abs(feature).mean() for feature in feature_pyramids(w, x)["vgg16"]), (0, 1))
    toward_weights, toward_picture = jax.jit(toward)(weights, picture)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(toward_weights))
    assert np.any(toward_picture)


def test_bfloat16_features_stay_within_two_percent(photo) -> None:
    weights = load_perceptual(["vgg16"], folder=Path("nowhere"))["vgg16"]
    picture = to_network_range(jnp.asarray(photo["photo"])[None])
    wide = feature_pyramid(weights, picture, network="vgg16")
    half = feature_pyramid(weights, picture, network="vgg16", dtype=jnp.bfloat16)
    for level, (a, b) in enumerate(zip(wide, half, strict=True), 1):
        assert b.dtype == jnp.bfloat16
        error = jnp.linalg.norm(a - b.astype(jnp.float32)) / jnp.linalg.norm(a)
        assert float(error) < 0.02, f"relu{level}_1"


def test_error_messages() -> None:
    picture = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match="unknown VGG network 'vgg11'"):
        feature_pyramid({}, picture, network="vgg11")
    with pytest.raises(ValueError, match="vgg16: block1_conv1 is missing"):
        feature_pyramid({}, picture, network="vgg16")
    weights = {name: {} for name in layer_names("vgg16")}
    with pytest.raises(ValueError, match="got 40x40"):
        feature_pyramid(weights, jnp.zeros((1, 40, 40, 3)), network="vgg16")
