"""Objectives of both players for one person: the terms of meta-learning, weighted by shot, without the matching loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from th_jax.images import to_network_range
from th_jax.losses import (
    LossWeights,
    discriminator_hinge_loss,
    feature_matching_loss,
    generator_adversarial_loss,
    identity_loss,
    pixel_emphasis,
    pixel_loss,
)
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.views import face_squares, view_pyramids, views_content_loss
from th_jax.types import NetworkState, Shots

Scalar = Float[Array, ""]


class Frames(NamedTuple):
    """The shots of one step as the networks see them, with the weight of each shot."""

    real: Float[Array, "b H W 3"]
    landmarks: Float[Array, "b H W 3"]
    emphasis: Float[Array, "b H W 1"]
    face: Float[Array, "b 3"]
    weight: Float[Array, " b"]

    @classmethod
    def of(
        cls,
        networks: Networks,
        shots: Shots,
        chosen: Int[Array, " b"],
        weight: Float[Array, " b"],
        *,
        landmark_box: float = 1.0,
        eyes: float = 1.0,
    ) -> "Frames":
        """Gather the chosen shots, with frames in [-1, 1] and landmarks drawn.

        Args:
            networks: networks that draw the landmarks at their image size.
            shots: all shots of the person.
            chosen: indices of the shots of this step.
            weight: weight of each chosen shot.
            landmark_box, eyes: weights of the pixel loss (`pixel_emphasis`).
        """
        points = jnp.asarray(shots.landmarks)[chosen]
        return cls(
            real=to_network_range(jnp.asarray(shots.frames)[chosen]),
            landmarks=networks.landmark_image(points),
            emphasis=pixel_emphasis(points, size=networks.image_size, landmark_box=landmark_box, eyes=eyes),
            face=face_squares(points),
            weight=weight,
        )


def hinge_of_person(
    networks: Networks, discriminator: NetworkState, fake: Float[Array, "b H W 3"], frames: Frames
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute D's hinge loss on real and generated shots.

    The row of the video table is zero, because w' already contains the person.

    Returns:
        The loss, and the metrics of the discriminator by name.
    """
    pair = jnp.concatenate([fake, frames.real])
    landmarks = jnp.concatenate([frames.landmarks, frames.landmarks])
    scores, _ = networks.discriminate(discriminator, pair, landmarks, _no_row(networks, pair))
    fake_score, real_score = jnp.split(scores, 2)
    hinge = _weighted(
        jax.vmap(lambda a, b: discriminator_hinge_loss(a[None], b[None]))(fake_score, real_score), frames.weight
    )
    return hinge, {
        "loss/discriminator_hinge": hinge,
        "score/real": _weighted(real_score, frames.weight),
        "score/fake": _weighted(fake_score, frames.weight),
    }


def generator_terms_of_person(
    networks: Networks,
    fake: Float[Array, "b H W 3"],
    frames: Frames,
    discriminator: NetworkState,
    perceptual: PerceptualWeights,
    *,
    loss_weights: LossWeights,
    adversary: float = 1.0,
) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Compute the generator's loss terms (paper, section 3.3).

    Returns:
        The weighted terms, whose sum the generator minimizes, and all terms unweighted.
    """
    dtype: Any = jnp.dtype(networks.compute_dtype)
    real_views, views = (
        view_pyramids(perceptual, images, frames.face, loss_weights=loss_weights, dtype=dtype)
        for images in (jax.lax.stop_gradient(frames.real), fake)
    )
    row = _no_row(networks, fake)
    _, real_features = networks.discriminate(discriminator, frames.real, frames.landmarks, row)
    score, features = networks.discriminate(discriminator, fake, frames.landmarks, row)

    def of_one(leaves: Any) -> dict[str, Scalar]:
        (generated, real), (fake_features, true_features), one_score, (made, wanted, emphasis) = jax.tree.map(
            lambda leaf: leaf[None], leaves
        )
        identity = {}
        if generated.identity is not None:
            identity["identity"] = identity_loss(generated.identity, real.identity)
        return identity | {
            "content": views_content_loss(generated, real, loss_weights=loss_weights),
            "pixel": pixel_loss(made, wanted, emphasis=emphasis),
            "adversarial": generator_adversarial_loss(one_score),
            "feature_matching": feature_matching_loss(fake_features, true_features),
        }

    each = jax.vmap(of_one)(
        (
            (views, jax.lax.stop_gradient(real_views)),
            (tuple(features), jax.lax.stop_gradient(tuple(real_features))),
            score,
            (fake, frames.real, frames.emphasis),
        )
    )
    plain = {name: _weighted(values, frames.weight) for name, values in each.items()}
    factors = {
        "content": 1.0,
        "pixel": loss_weights.pixel,
        "identity": loss_weights.identity,
        "adversarial": adversary,
        "feature_matching": adversary * loss_weights.feature_matching,
    }
    return {name: factors[name] * value for name, value in plain.items() if factors[name]}, plain


def _weighted(values: Float[Array, " b"], weight: Float[Array, " b"]) -> Scalar:
    # A padded shot may contain NaN or infinity, so it is masked out rather than multiplied by zero.
    return jnp.sum(jnp.where(weight > 0, values * weight, 0.0))


def _no_row(networks: Networks, pictures: Float[Array, "b H W 3"]) -> Float[Array, "b N"]:
    return jnp.zeros((pictures.shape[0], networks.plan.embedding), jnp.float32)
