"""The 52 ARKit blend shapes of a fitted face: coefficients from expression and gaze, and back; in pure jnp.

The eight shapes of the eyes that follow the gaze are angles here: looking sideways by 0.41 radians, or up or down by 0.29, is
a coefficient of 1. The others are found by bounded least squares with a small penalty on their sum, because 70 points do not
determine 52 shapes: without it, small amounts of opposing shapes would explain noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from th_jax.landmarks.model3d import LandmarkModel

NAMES: tuple[str, ...] = (
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *("cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"),
    *("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker"),
    *("mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft"),
    *("mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""ARKit's names in the order of the model's arrays; left and right are the person's."""

LOOK_SIDEWAYS, LOOK_UP_OR_DOWN = 0.41, 0.29
"""Gaze in radians at a coefficient of 1."""

_INDEX = {name: number for number, name in enumerate(NAMES)}
_LOOKS = np.array([name.startswith("eyeLook") for name in NAMES])

_ITERATIONS = 200
_SPARSITY = 1e-4
"""Penalty on a coefficient, in squared model units summed over points; chosen on people outside the model's data and not held
out."""


def look_coefficients(gaze: Float[Array, "*batch 2"]) -> Float[Array, "*batch 52"]:
    """Compute the eight coefficients of the gaze; all others are zero.

    Args:
        gaze: yaw and pitch in radians, to the image's right and up. The image's right is the person's left.
    """
    yaw, pitch = gaze[..., 0] / LOOK_SIDEWAYS, gaze[..., 1] / LOOK_UP_OR_DOWN
    values = {
        **{name: jnp.maximum(yaw, 0) for name in ("eyeLookOutLeft", "eyeLookInRight")},
        **{name: jnp.maximum(-yaw, 0) for name in ("eyeLookInLeft", "eyeLookOutRight")},
        **{f"eyeLookUp{side}": jnp.maximum(pitch, 0) for side in ("Left", "Right")},
        **{f"eyeLookDown{side}": jnp.maximum(-pitch, 0) for side in ("Left", "Right")},
    }
    result = jnp.zeros((*gaze.shape[:-1], len(NAMES)))
    for name, value in values.items():
        result = result.at[..., _INDEX[name]].set(value)
    return result


def gaze_of(coefficients: Float[Array, "*batch 52"]) -> Float[Array, "*batch 2"]:
    """Compute the gaze in radians, the mean of both eyes; inverts `look_coefficients`."""

    def of(name: str) -> Array:
        return coefficients[..., _INDEX[name]]

    yaw = of("eyeLookOutLeft") + of("eyeLookInRight") - of("eyeLookInLeft") - of("eyeLookOutRight")
    pitch = sum(of(f"eyeLookUp{side}") - of(f"eyeLookDown{side}") for side in ("Left", "Right"))
    return jnp.stack([yaw / 2 * LOOK_SIDEWAYS, pitch / 2 * LOOK_UP_OR_DOWN], axis=-1)


def expression_of(model: LandmarkModel, coefficients: Float[Array, "*batch 52"]) -> Float[Array, "*batch E"]:
    """Compute the expression components of coefficients, with the lids' part of the gaze."""
    return coefficients @ jnp.asarray(model.arkit).T


def coefficients_of(
    model: LandmarkModel, expression: Float[Array, "S E"], gaze: Float[Array, "S 2"]
) -> Float[Array, "S 52"]:
    """Compute the coefficients, in [0, 1], of expressions relative to the neutral one.

    Args:
        model: the landmark model.
        expression: expression components minus the person's neutral ones.
        gaze: yaw and pitch of the eyes in radians.
    """
    free = np.where(_LOOKS[:, None, None], 0.0, np.asarray(model.arkit_shapes)).reshape(len(NAMES), -1)
    return _descended(model, expression, gaze, jnp.float32(1 / np.linalg.eigvalsh(free @ free.T)[-1]))


@jax.jit
def _descended(
    model: LandmarkModel, expression: Float[Array, "S E"], gaze: Float[Array, "S 2"], step: Float[Array, ""]
) -> Float[Array, "S 52"]:
    """Compute `coefficients_of` by accelerated descent (Beck and Teboulle 2009) in steps of one divided by the curvature."""
    shapes = jnp.asarray(model.arkit_shapes)
    looks = look_coefficients(gaze)
    moved = jnp.tensordot(expression, jnp.asarray(model.expression), 1) - jnp.tensordot(looks, shapes, 1)
    free = jnp.where(_LOOKS[:, None, None], 0.0, shapes)
    gram = jnp.einsum("upc,vpc->uv", free, free)
    right = jnp.einsum("upc,spc->su", free, moved) - _SPARSITY

    def descend(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        now, ahead, momentum = carry
        after = jnp.clip(ahead - step * (ahead @ gram - right), 0.0, 1.0)
        faster = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return (after, after + (momentum - 1) / faster * (after - now), faster), None

    start = jnp.zeros((len(expression), len(NAMES)))
    (found, _, _), _ = jax.lax.scan(descend, (start, start, jnp.ones(())), None, length=_ITERATIONS)
    return jnp.where(_LOOKS[None], jnp.clip(looks, 0.0, 1.0), found)
