"""Feature pyramids of all given frozen networks, which the content loss compares (paper, section 3.2)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.perceptual.face_features import face_pyramid
from th_jax.perceptual.frozen import FACE_MOBILENET, PerceptualWeights
from th_jax.perceptual.vgg import Pyramid, feature_pyramid


def feature_pyramids(
    weights: PerceptualWeights, images: Float[Array, "B H W 3"], *, dtype: Any = jnp.float32
) -> Mapping[str, Pyramid]:
    """Compute the activations of each network in `weights` on RGB images in [-1, 1].

    No gradient reaches the frozen weights.

    Raises:
        ValueError: if weights belong to another network, or the sides of the images do not divide by 16.
    """
    weights = jax.lax.stop_gradient(weights)
    return {
        network: face_pyramid(layers, images, dtype=dtype)
        if network == FACE_MOBILENET
        else feature_pyramid(layers, images, network=network, dtype=dtype)
        for network, layers in weights.items()
    }
