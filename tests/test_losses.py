"""The losses against PyTorch's numbers, their gradients, and which side of each passes one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden.compare import assert_golden
from th_jax import losses

WEIGHTS = {"vgg19": 0.15, "vggface": 0.025}


def features(inputs, prefix: str):
    return [inputs[f"{prefix}_{layer}"] for layer in range(3)]


def test_content() -> None:
    def run(params, stats, inputs):
        fake = {network: features(inputs, f"fake_{network}") for network in WEIGHTS}
        real = {network: features(inputs, f"real_{network}") for network in WEIGHTS}
        return {"loss": losses.content_loss(fake, real, weights=WEIGHTS)}

    assert_golden("losses", "content", run)


def test_feature_matching() -> None:
    def run(params, stats, inputs):
        return {"loss": losses.feature_matching_loss(features(inputs, "fake"), features(inputs, "real"))}

    assert_golden("losses", "feature_matching", run)


def test_hinge() -> None:
    def run(params, stats, inputs):
        return {"loss": losses.discriminator_hinge_loss(inputs["fake"], inputs["real"])}

    assert_golden("losses", "discriminator", run)


def test_generator_adversarial() -> None:
    assert_golden("losses", "adversarial", lambda p, s, i: {"loss": losses.generator_adversarial_loss(i["fake"])})


def test_matching() -> None:
    def for_the_generator(params, stats, inputs):
        return {"loss": losses.matching_loss(inputs["embedding"], inputs["video_vector"])}

    def for_the_discriminator(params, stats, inputs):
        return {"loss": losses.matching_loss(inputs["video_vector"], inputs["embedding"])}

    assert_golden("losses", "matching", for_the_generator, gradients_of={"embedding"})
    assert_golden("losses", "matching", for_the_discriminator, gradients_of={"video_vector"})


def test_pixels_count_by_each_images_own_emphasis() -> None:
    """By hand: one place of four off by a half, three times as heavy as the others; and a half everywhere."""
    made, real = jnp.zeros((2, 2, 2, 3)), np.zeros((2, 2, 2, 3), np.float32)
    real[0, 0, 0], real[1] = 1.0, -1.0
    emphasis = np.full((2, 2, 2, 1), 6.0, np.float32)
    emphasis[0] = 1.0
    emphasis[0, 0, 0] = 3.0
    first, second = 0.5 * (3 / 1.5) / 4, 0.5
    loss = losses.pixel_loss(made, jnp.asarray(real), emphasis=jnp.asarray(emphasis))
    np.testing.assert_allclose(loss, (first + second) / 2, rtol=1e-6)


def test_the_box_spans_its_known_points_in_x_and_y() -> None:
    points = np.full((2, 68, 2), np.nan, np.float32)
    points[0, 0], points[0, 1] = (0.25, 0.0), (0.75, 0.5)  # the middle columns of the upper rows
    points[1, 5], points[1, 9] = (0.0, 0.5), (0.25, 1.0)  # the first column of the lower rows
    box = losses.pixel_emphasis(jnp.asarray(points), size=4, landmark_box=3.0)
    wanted = np.ones((2, 4, 4, 1), np.float32)
    wanted[0, 0:2, 1:3], wanted[1, 2:4, 0:1] = 3.0, 3.0
    np.testing.assert_array_equal(box, wanted)


def test_eyes_weigh_more_within_the_box_and_also_when_shut() -> None:
    points = np.full((2, 68, 2), np.nan, np.float32)
    points[:, 0], points[:, 16] = (0.0, 0.0), (1.0, 1.0)
    points[0, 36], points[0, 39] = (
        (0.1, 0.5),
        (0.4, 0.5),
    )  # shut: a line of 3 pixels, with a margin of 1 above and below
    for place in range(42, 48):
        points[0, place] = 0.75, 0.7 + 0.1 * (place == 44)  # of no width: its own pixels alone
    weight = np.asarray(losses.pixel_emphasis(jnp.asarray(points), size=10, landmark_box=3.0, eyes=4.0))[..., 0]
    wanted = np.full((2, 10, 10), 3.0, np.float32)
    wanted[0, 4:6, 1:4] = 12.0
    wanted[0, 7, 7] = 12.0
    np.testing.assert_array_equal(weight, wanted)
    plain = losses.pixel_emphasis(jnp.asarray(points), size=10, landmark_box=3.0)
    np.testing.assert_array_equal(plain, np.full((2, 10, 10, 1), 3.0, np.float32))


def test_bfloat16_features_are_compared_in_float32() -> None:
    rng = np.random.default_rng(0)
    fake, real = ([jnp.asarray(rng.normal(size=(2, 8, 8, 5)), jnp.bfloat16)] for _ in range(2))
    for compare in (
        losses.feature_matching_loss,
        lambda fake, real: losses.content_loss({"n": fake}, {"n": real}, weights={"n": 1.0}),
    ):
        exact = compare(*([layer.astype(jnp.float32) for layer in side] for side in (fake, real)))
        loss = compare(fake, real)
        assert loss.dtype == jnp.float32
        np.testing.assert_allclose(loss, exact, rtol=1e-6)


def test_targets_pass_no_gradient() -> None:
    a, b = jnp.ones((2, 4)), jnp.zeros((2, 4))
    assert not np.any(jax.grad(losses.matching_loss, argnums=1)(a, b))
    image = jnp.ones((1, 2, 2, 3))
    toward_real = jax.grad(lambda real: losses.feature_matching_loss([image], [real]))(image * 2)
    assert not np.any(toward_real)
    toward_real = jax.grad(lambda real: losses.content_loss({"n": [image]}, {"n": [real]}, weights={"n": 1.0}))(
        image * 2
    )
    assert not np.any(toward_real)


def test_a_weighted_network_without_features_is_named() -> None:
    with pytest.raises(ValueError, match="vggface, but its features are missing"):
        losses.content_loss({}, {}, weights={"vggface": 1.0})


def test_layers_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match="same layers on both sides"):
        losses.feature_matching_loss([jnp.ones((1, 2, 2, 3))], [jnp.ones((1, 4, 4, 3))])


def test_presets_hold_the_published_numbers() -> None:
    v1, iccv, embedded = (losses.loss_preset(name) for name in ("arxiv_v1", "iccv", "embedded"))
    assert (v1.content["vgg19"], v1.content["vggface"], v1.feature_matching, v1.matching) == (1e-2, 2e-3, 10, 80)
    assert (iccv.content["vgg19"], iccv.content["vggface"], iccv.feature_matching, iccv.matching) == (
        0.15,
        0.025,
        10,
        10,
    )
    assert (embedded.content, embedded.feature_matching, embedded.matching) == ({"vgg16": 0.15}, 10, 10)
    with pytest.raises(ValueError, match=r"unknown loss weights 'icvc'; .*arxiv_v1, iccv, embedded"):
        losses.loss_preset("icvc")
