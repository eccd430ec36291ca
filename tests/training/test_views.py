"""What the content loss looks at: the face's square by hand, crops of known functions, and where gradients reach."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.seeded import seeded_array
from tests.training.tiny_runs import perceptual  # noqa: F401
from th_jax.losses import LossWeights, content_loss, identity_loss
from th_jax.perceptual.face_features import face_features, layer_shapes
from th_jax.perceptual.frozen import FACE_MOBILENET, WeightsError
from th_jax.perceptual.pyramids import feature_pyramids
from th_jax.training.views import (
    crop_squares,
    face_squares,
    view_pyramids,
    views_content_loss,
    with_loss_networks,
)


def face(top: float, chin: float, left: float, right: float) -> np.ndarray:
    points = np.full((68, 2), 0.5 * (left + right), np.float32)
    points[:, 1] = 0.5 * (top + chin)
    points[0, 0], points[16, 0] = left, right
    points[27, 1], points[8, 1] = top, chin
    return points


def test_the_square_around_a_face() -> None:
    squares = face_squares(jnp.asarray(np.stack([face(0.4, 0.7, 0.3, 0.6), face(0.5, 0.52, 0.4, 0.8)])))
    # From 0.4 - 0.47 * 0.3 to 0.7 + 0.2 * 0.3, about x = 0.45.
    np.testing.assert_allclose(squares[0], [0.45 - 0.2505, 0.259, 0.501], atol=1e-6)
    # A face so flat gets the smallest square, about the same middle: 0.5 + 0.5 * (1 - 0.47 + 0.2) * 0.02.
    np.testing.assert_allclose(squares[1], [0.6 - 0.1, 0.5073 - 0.1, 0.2], atol=1e-6)


@pytest.mark.parametrize("unknown", [27, 8, slice(None)])
def test_an_unknown_chin_or_nose_means_the_whole_image(unknown: Any) -> None:
    points = face(0.4, 0.7, 0.3, 0.6)
    points[unknown] = np.nan
    np.testing.assert_array_equal(face_squares(jnp.asarray(points[None]))[0], [0.0, 0.0, 1.0])


def test_a_crop_of_a_ramp_has_the_ramps_values() -> None:
    x, y = np.meshgrid((np.arange(64) + 0.5) / 64, (np.arange(64) + 0.5) / 64)
    ramp = jnp.asarray(np.stack([x, y, x + y], -1)[None], jnp.float32)
    for size in (16, 48):
        crop = jax.jit(crop_squares, static_argnames="size")(ramp, jnp.asarray([[0.25, 0.125, 0.5]]), size=size)[0]
        crop = np.asarray(crop)
        at = (np.arange(size) + 0.5) / size * 0.5
        np.testing.assert_allclose(crop[..., 0], np.broadcast_to(0.25 + at, (size, size)), atol=1e-5)
        np.testing.assert_allclose(crop[..., 1], np.broadcast_to(0.125 + at[:, None], (size, size)), atol=1e-5)


def test_the_whole_image_alone_is_the_papers_content_loss(perceptual: dict[str, Any]) -> None:  # noqa: F811
    fake, real = jax.random.uniform(jax.random.key(0), (2, 2, 32, 32, 3), minval=-1.0)
    weights = LossWeights({"vgg16": 0.5})
    whole = jnp.tile(jnp.array([0.0, 0.0, 1.0]), (2, 1))

    @jax.jit
    def both(fake: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array]:
        sides = [view_pyramids(perceptual, images, whole, loss_weights=weights) for images in (fake, real)]
        plain = [feature_pyramids(perceptual, images) for images in (fake, real)]
        return views_content_loss(*sides, loss_weights=weights), content_loss(*plain, weights=weights.content)

    ours, expected = both(fake, real)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def assert_within_the_square(gradient: jax.Array) -> None:
    """The middle half of images of 64 px, and a pixel around it."""
    outside = np.array(gradient)
    assert np.abs(outside[:, 16:48, 16:48]).max() > 0
    outside[:, 15:49, 15:49] = 0
    assert np.abs(outside).max() < 1e-9


def test_the_face_adds_its_share_within_its_square_alone(perceptual: dict[str, Any]) -> None:  # noqa: F811
    fake, real = jax.random.uniform(jax.random.key(0), (2, 1, 64, 64, 3), minval=-1.0)
    square = jnp.asarray([[0.25, 0.25, 0.5]])
    halved = LossWeights({"vgg16": 1.0}, content_size=32)
    both = LossWeights({"vgg16": 1.0}, content_size=32, face_content=0.25, face_size=32)

    def loss(images: jax.Array, weights: LossWeights) -> jax.Array:
        sides = [view_pyramids(perceptual, x, square, loss_weights=weights) for x in (images, real)]
        return views_content_loss(*sides, loss_weights=weights)

    @jax.jit
    def of_crops(fake: jax.Array) -> jax.Array:
        crops = [feature_pyramids(perceptual, x[:, 16:48, 16:48]) for x in (fake, real)]
        return 0.25 * content_loss(*crops, weights=both.content)

    share, of_face = jax.jit(jax.value_and_grad(lambda x: loss(x, both) - loss(x, halved)))(fake)
    np.testing.assert_allclose(share, of_crops(fake), rtol=1e-4)
    assert_within_the_square(of_face)


def test_the_identity_term_is_one_minus_the_cosine_of_the_faces_features(
    perceptual: dict[str, Any],  # noqa: F811
) -> None:
    layers = {
        name: {
            "kernel": jnp.asarray(
                seeded_array(f"{name}/kernel", shape, seed=3, scale=1.5 * np.prod(shape[:3]) ** -0.5)
            ),
            "bias": jnp.asarray(seeded_array(f"{name}/bias", shape[-1:], seed=3, scale=0.2, offset=0.3)),
        }
        for name, shape in layer_shapes().items()
    }
    fake, real = jax.random.uniform(jax.random.key(0), (2, 1, 64, 64, 3), minval=-1.0)
    square = jnp.asarray([[0.25, 0.25, 0.5]])
    weights = LossWeights({"vgg16": 1.0}, identity=3.0, identity_size=32)
    networks = {**perceptual, FACE_MOBILENET: layers}

    def loss(images: jax.Array) -> jax.Array:
        views = [view_pyramids(networks, x, square, loss_weights=weights) for x in (images, real)]
        assert set(views[0].whole) == {"vgg16"}  # the face network is no part of the content loss
        return identity_loss(views[0].identity, views[1].identity)

    features = jax.jit(lambda x: face_features(layers, x[:, 16:48, 16:48], size=32))
    a, b = (np.asarray(features(x), np.float64)[0] for x in (fake, real))
    value_and_gradient = jax.jit(jax.value_and_grad(loss))
    value, gradient = value_and_gradient(fake)
    np.testing.assert_allclose(value, 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-3)
    assert_within_the_square(gradient)
    assert float(value_and_gradient(real)[0]) < 1e-5


def test_an_identity_loss_needs_its_network(perceptual: dict[str, Any]) -> None:  # noqa: F811
    images, weights = jnp.zeros((1, 32, 32, 3)), LossWeights({"vgg16": 1.0}, identity=1.0)
    with pytest.raises(ValueError, match="the weights of face_mobilenet are missing"):
        view_pyramids(perceptual, images, jnp.asarray([[0.0, 0.0, 1.0]]), loss_weights=weights)


def test_the_weights_of_the_identity_network_are_loaded_where_the_loss_needs_them(
    perceptual: dict[str, Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TH_JAX_WEIGHTS", str(tmp_path))
    assert with_loss_networks(perceptual, LossWeights({"vgg16": 1.0})) is perceptual
    with pytest.raises(WeightsError, match="th-jax prepare convert-weights face_mobilenet"):
        with_loss_networks(perceptual, LossWeights({"vgg16": 1.0}, identity=1.0))
    there = {**perceptual, FACE_MOBILENET: {}}
    assert with_loss_networks(there, LossWeights({"vgg16": 1.0}, identity=1.0)) is there


@pytest.mark.parametrize(("name", "size"), [("face_size", 0), ("face_size", 40), ("content_size", 8)])
def test_sizes_that_no_frozen_network_takes_are_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a multiple of 16"):
        LossWeights(**{name: size})  # type: ignore[arg-type]
