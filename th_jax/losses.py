"""The losses of the paper's section 3.2 as pure functions of arrays, and the published sets of their weights.

"L1" is the mean over batch, positions and channels, summed over layers (docs/paper-map.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

Features = Sequence[Float[Array, "B _ _ _"]]
"""Activations of one frozen network, or of the discriminator, layer by layer."""

Scalar = Float[Array, ""]


def content_loss(
    generated: Mapping[str, Features], real: Mapping[str, Features], *, weights: Mapping[str, float]
) -> Scalar:
    """Compute L_CNT: weighted L1 between frozen networks' activations on x̂ and on x (paper, equation 3).

    The real side passes no gradient, because it depends on nothing that trains.

    Args:
        generated, real: feature pyramid of each network.
        weights: weight of each network; see `LossWeights.content`.

    Raises:
        ValueError: if a network with a weight has no features, or the layers differ in number or shape.
    """
    total = jnp.zeros((), jnp.float32)
    for network, weight in weights.items():
        if network not in generated or network not in real:
            raise ValueError(f"the content loss has a weight for {network}, but its features are missing")
        total += weight * sum(_layer_distances(generated[network], real[network], f"features of {network}"))
    return total


def pixel_loss(
    generated: Float[Array, "B H W 3"], real: Float[Array, "B H W 3"], *, emphasis: Float[Array, "B H W 1"]
) -> Scalar:
    """Compute L1 between the images themselves on a scale of [0, 1], its mean over positions weighted by `emphasis`.

    This term is not in the paper, which compares features only; with it, small networks learn pose and colors sooner
    (docs/learning.md). Its weight is zero in the published sets.

    Args:
        generated, real: images in [-1, 1].
        emphasis: relative weight of each position, at least 0; each image's weights are normalized to a mean of 1.
    """
    distance = 0.5 * jnp.abs(generated - jax.lax.stop_gradient(real))
    relative = emphasis / jnp.mean(emphasis, axis=(1, 2, 3), keepdims=True)
    return jnp.mean(distance * relative)


def pixel_emphasis(
    points: Float[Array, "B P 2"], *, size: int, landmark_box: float, eyes: float = 1.0
) -> Float[Array, "B H W 1"]:
    """Return the weight of each pixel in `pixel_loss`: `eyes` on the eyes, else `landmark_box` inside the box around a face.

    Pixels outside the box around a frame's known landmarks weigh 1. An eye is the box around its lids, taller by a third of
    its width at the top and at the bottom, so that shut eyes count as well.

    Args:
        points: landmarks in [0, 1], NaN where unknown.
        size: side of the image in pixels.
        landmark_box: weight inside the box.
        eyes: factor of that weight on the eyes.
    """
    face = _inside(points, size=size)
    weight = jnp.where(face, jnp.float32(landmark_box), jnp.float32(1.0))
    if eyes != 1.0:
        taller = jnp.array([0.0, 1 / 3])
        for lids in (points[:, 36:42], points[:, 42:48]):
            margin = (jnp.nanmax(lids[..., 0], 1) - jnp.nanmin(lids[..., 0], 1))[:, None, None] * taller[None, None]
            eye = _inside(jnp.concatenate([lids - margin, lids + margin], axis=1), size=size)
            weight = jnp.where(eye, jnp.float32(landmark_box * eyes), weight)
    return weight[..., None]


def _inside(points: Float[Array, "B P 2"], *, size: int) -> Bool[Array, "B H W"]:
    """Return which pixels lie in the box around the known points."""
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    low = jnp.nanmin(points, axis=1)[:, None, :]
    high = jnp.nanmax(points, axis=1)[:, None, :]
    inside = (centres[None, :, None] >= low) & (centres[None, :, None] <= high)
    return inside[:, :, 1][:, :, None] & inside[:, :, 0][:, None, :]


def feature_matching_loss(fake_features: Features, real_features: Features) -> Scalar:
    """Compute L_FM: L1 between the discriminator's activations on x̂ and x, the mean over its blocks (paper, section 3.2).

    Raises:
        ValueError: if the blocks differ in number or shape.
    """
    distances = _layer_distances(fake_features, real_features, "the discriminator's features")
    return jnp.mean(jnp.stack(distances))


def identity_loss(generated: Float[Array, "B F"], real: Float[Array, "B F"]) -> Scalar:
    """Compute 1 − the cosine of a face network's features of x̂ and of x, the mean over the batch.

    This term is not in the paper. The real side passes no gradient.

    Args:
        generated, real: features of both images' faces (`th_jax.perceptual.face_features.face_features`).
    """
    pairs = (generated, jax.lax.stop_gradient(real))
    # A small constant inside the root keeps the gradient finite for features that are all zero.
    a, b = (x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-8) for x in pairs)
    return 1.0 - jnp.mean(jnp.sum(a * b, axis=-1))


def generator_adversarial_loss(fake_score: Float[Array, " B"]) -> Scalar:
    """Compute −D(x̂, y, i), the mean over the batch (paper, equation 4, without feature matching)."""
    return -jnp.mean(fake_score)


def discriminator_hinge_loss(fake_score: Float[Array, " B"], real_score: Float[Array, " B"]) -> Scalar:
    """Compute max(0, 1 + D(x̂)) + max(0, 1 − D(x)), the mean over the batch (paper, equation 6)."""
    return jnp.mean(nn.relu(1.0 + fake_score)) + jnp.mean(nn.relu(1.0 - real_score))


def matching_loss(moving: Float[Array, "B N"], target: Float[Array, "B N"]) -> Scalar:
    """Compute L_MCH: L1 between ê_i and W_i, the mean over their numbers (paper, section 3.2).

    The target passes no gradient: each player moves its own side, E in the generator's objective and W in the discriminator's
    (docs/paper-map.md).
    """
    return jnp.mean(jnp.abs(moving - jax.lax.stop_gradient(target)))


def _layer_distances(moving: Features, target: Features, what: str) -> list[Scalar]:
    if len(moving) != len(target) or any(a.shape != b.shape for a, b in zip(moving, target, strict=False)):
        raise ValueError(f"{what} must have the same layers on both sides, got {_shapes(moving)} and {_shapes(target)}")
    return [
        jnp.mean(jnp.abs(a.astype(jnp.float32) - jax.lax.stop_gradient(b).astype(jnp.float32)))
        for a, b in zip(moving, target, strict=True)
    ]


def _shapes(features: Features) -> str:
    return ", ".join(str(list(layer.shape)) for layer in features)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms. Sources of the numbers: docs/paper-map.md.

    Attributes:
        content: weight of each frozen network's summed L1.
        feature_matching: weight of L_FM relative to the adversarial loss.
        matching: weight of L_MCH, for each player; 0 in the feed-forward variant.
        pixel: weight of the L1 between the images themselves; 0 in the paper.
        landmark_box: relative weight of that L1 inside the box around the landmarks.
        eyes: factor of that weight on the eyes, which are too small for the other losses to show where they look.
        face_content: weight, relative to `content`, of the content loss on the square around the face, which plays the role of
            the paper's face network; 0 in the paper.
        face_size: side in pixels to which that square is resampled.
        content_size: side in pixels of the whole images that the frozen networks see; 0 for the original size. Together with
            `face_content`, half the size costs half the arithmetic and keeps the detail of the face.
        identity: weight of `identity_loss` on the square around the face, by the face MobileNet, whose weights must be
            installed (`th-jax prepare convert-weights face_mobilenet`); 0 in the paper.
        identity_size: side in pixels to which the square is resampled for the face MobileNet.
    """

    content: Mapping[str, float] = field(default_factory=lambda: {"vgg19": 1.5e-1, "vggface": 2.5e-2})
    feature_matching: float = 10.0
    matching: float = 10.0
    pixel: float = 0.0
    landmark_box: float = 1.0
    eyes: float = 1.0
    face_content: float = 0.0
    face_size: int = 64
    content_size: int = 0
    identity: float = 0.0
    identity_size: int = 128

    def __post_init__(self) -> None:
        """Check that all weights and sizes are in range."""
        numbers = {**self.content, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "content"}}
        for name, weight in numbers.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"the loss weight {name} must be finite and at least 0, got {weight}")
        for name, least in (("face_size", 16), ("content_size", 0), ("identity_size", 32)):
            size = getattr(self, name)
            if not isinstance(size, int) or size < least or size % 16:
                raise ValueError(f"{name} must be a multiple of 16 and at least {least} pixels, got {size}")


LOSS_PRESETS: dict[str, LossWeights] = {
    "arxiv_v1": LossWeights({"vgg19": 1e-2, "vggface": 2e-3}, feature_matching=10.0, matching=80.0),
    "iccv": LossWeights({"vgg19": 1.5e-1, "vggface": 2.5e-2}, feature_matching=10.0, matching=10.0),
    "embedded": LossWeights({"vgg16": 1.5e-1}, feature_matching=10.0, matching=10.0),
    "heads": LossWeights({"vgg16": 1.5e-1}, feature_matching=10.0, matching=10.0, pixel=10.0, landmark_box=3.0),
}
"""The numbers of arXiv v1; those of v2 and ICCV, the paper's default; and two sets for the bundled VGG16 alone, the second for
small networks (docs/learning.md)."""


def loss_preset(preset: str, **changes: Any) -> LossWeights:
    """Return the weights of a published version with changes: `loss_preset("iccv", matching=0.0)`.

    Raises:
        ValueError: if the preset or a weight is unknown, or a weight is negative or not finite.
    """
    if preset not in LOSS_PRESETS:
        raise ValueError(f"unknown loss weights {preset!r}; expected one of {', '.join(LOSS_PRESETS)}")
    return changed_losses(LOSS_PRESETS[preset], changes)


def changed_losses(weights: LossWeights, changes: Mapping[str, Any]) -> LossWeights:
    """Return weights with changes by name.

    Raises:
        ValueError: if a weight is unknown, negative, not finite or not a number.
    """
    known = [entry.name for entry in fields(LossWeights)]
    if unknown := sorted(set(changes) - set(known)):
        raise ValueError(f"unknown loss weight {unknown[0]!r}; expected {', '.join(known)}")
    try:
        return replace(weights, **changes)
    except TypeError as error:
        raise ValueError(f"loss weights must be numbers, and content must have one per network: {error}") from error
