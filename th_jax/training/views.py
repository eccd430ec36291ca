"""Inputs of the frozen networks: the whole image, possibly downsampled, and the square around the face at full detail."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.images import box_downsample
from th_jax.losses import LossWeights, content_loss
from th_jax.perceptual.face_features import face_features
from th_jax.perceptual.frozen import FACE_MOBILENET, PerceptualWeights, load_perceptual
from th_jax.perceptual.pyramids import feature_pyramids
from th_jax.perceptual.vgg import Pyramid

_NOSE_TOP, _CHIN = 27, 8

_ABOVE, _BELOW = 0.47, 0.2
"""How far the square extends above the nose's root and below the chin, relative to their distance (docs/paper-map.md)."""

_SMALLEST, _LARGEST = 0.2, 1.0
"""Limits of a square's side, as a fraction of the image's side: a face looking far up or down projects to a flat one."""


class Views(NamedTuple):
    """Features of one batch of images: pyramids by network, and the identity features of the faces."""

    whole: Mapping[str, Pyramid]
    face: Mapping[str, Pyramid]
    """Empty if the loss has no face term."""
    identity: Float[Array, "B F"] | None = None
    """None if the loss has no identity term."""


def identity_networks(loss_weights: LossWeights) -> tuple[str, ...]:
    """Return the names of the frozen networks that the loss needs beside those of the content loss."""
    return (FACE_MOBILENET,) if loss_weights.identity else ()


def with_loss_networks(perceptual: PerceptualWeights, loss_weights: LossWeights) -> PerceptualWeights:
    """Add the weights of the identity network, if the loss has an identity term and they are not included yet.

    Raises:
        WeightsError: if they are not installed; the message has the command that installs them.
    """
    missing = [network for network in identity_networks(loss_weights) if network not in perceptual]
    return {**perceptual, **load_perceptual(missing)} if missing else perceptual


def face_squares(points: Float[Array, "B P 2"]) -> Float[Array, "B 3"]:
    """Compute the square around each face: left, top and side, as fractions of the image's side.

    With d the vertical distance between the nose's root and the chin, the square extends from 0.47 d above the root to 0.2 d
    below the chin, and is centered horizontally on the known points. If one of the two points is unknown, it is the whole
    image.

    Args:
        points: landmarks in [0, 1], NaN where unknown.
    """
    top, chin = points[:, _NOSE_TOP, 1], points[:, _CHIN, 1]
    height = chin - top
    side = jnp.clip((1.0 + _ABOVE + _BELOW) * height, _SMALLEST, _LARGEST)
    middle_y = top + 0.5 * (1.0 - _ABOVE + _BELOW) * height
    middle_x = 0.5 * (jnp.nanmin(points[:, :, 0], axis=1) + jnp.nanmax(points[:, :, 0], axis=1))
    squares = jnp.stack([middle_x - 0.5 * side, middle_y - 0.5 * side, side], axis=-1)
    known = jnp.isfinite(squares).all(-1, keepdims=True)
    return jnp.where(known, squares, jnp.array([0.0, 0.0, 1.0], jnp.float32))


def crop_squares(
    images: Float[Array, "B H W C"], squares: Float[Array, "B 3"], *, size: int
) -> Float[Array, "B {size} {size} C"]:
    """Crop and resize squares of images by anti-aliased linear interpolation; differentiable in the images.

    Pixels beyond an image's edge are 0.

    Args:
        images: images of any range.
        squares: squares as returned by `face_squares`.
        size: side of the result in pixels.
    """

    def crop(image: Float[Array, "H W C"], square: Float[Array, "3"]) -> Array:
        pixels = square * image.shape[0]
        scale = size / pixels[2]
        return jax.image.scale_and_translate(
            image, (size, size, image.shape[-1]), (0, 1), jnp.stack([scale, scale]),
            jnp.stack([-pixels[1], -pixels[0]]) * scale, method="linear",
        )  # fmt: skip

    return jax.vmap(crop)(images, jax.lax.stop_gradient(squares))


def view_pyramids(
    perceptual: PerceptualWeights,
    images: Float[Array, "B H W 3"],
    squares: Float[Array, "B 3"],
    *,
    loss_weights: LossWeights,
    dtype: Any = jnp.float32,
) -> Views:
    """Compute the features of generated or real images that the content loss compares.

    Args:
        perceptual: weights of the frozen networks.
        images: images in [-1, 1].
        squares: squares around the faces of the real images, used for both sides of the comparison.
        loss_weights: `content_size`, `face_content`, `face_size`, `identity` and `identity_size` determine the views.
        dtype: dtype of the convolutions.

    Raises:
        ValueError: if the networks cannot divide an image size, or the weights of the identity network are missing.
    """
    identity = None
    if loss_weights.identity:
        if FACE_MOBILENET not in perceptual:
            raise ValueError(f"the loss has an identity term, but the weights of {FACE_MOBILENET} are missing")
        faces = crop_squares(images, squares, size=loss_weights.identity_size)
        frozen = jax.lax.stop_gradient(perceptual[FACE_MOBILENET])
        identity = face_features(frozen, faces, size=loss_weights.identity_size, dtype=dtype)
    perceptual = {network: layers for network, layers in perceptual.items() if network in loss_weights.content}
    whole = box_downsample(images, size=loss_weights.content_size or images.shape[1])
    face: Mapping[str, Pyramid] = {}
    if loss_weights.face_content:
        cropped = crop_squares(images, squares, size=loss_weights.face_size)
        face = feature_pyramids(perceptual, cropped, dtype=dtype)
    return Views(feature_pyramids(perceptual, whole, dtype=dtype), face, identity)


def views_content_loss(generated: Views, real: Views, *, loss_weights: LossWeights) -> Float[Array, ""]:
    """Compute L_CNT of the whole image plus `face_content` times L_CNT of the face's square.

    Raises:
        ValueError: if the features are invalid for `content_loss`.
    """
    loss = content_loss(generated.whole, real.whole, weights=loss_weights.content)
    if loss_weights.face_content:
        loss += loss_weights.face_content * content_loss(generated.face, real.face, weights=loss_weights.content)
    return loss
