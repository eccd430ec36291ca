"""Distills identity features of a face recognition network into E; not in the paper.

In meta-learning, E sees identity only through G, and learns it slowly: optimizing ψ for a person directly, with everything
else frozen, finds far better parameters than E and P do (docs/learning.md). Here E and two linear maps of its embeddings
minimize, for each frame of person i,

    1 − cos(A ê + a, t_i) + ‖B ê + b − e‖²,

where t_i are identity targets from the face network, and e is the embedding of the same frame by the original E. In the end,
P∘B replaces P, so that G gets nearly the same AdaIN parameters as before; meta-learning then goes on from these weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from th_jax.images import to_network_range
from th_jax.models.networks import Networks, group
from th_jax.models.spectral import power_iterate
from th_jax.perceptual.face_features import FaceNetWeights, face_features
from th_jax.training.views import crop_squares, face_squares
from th_jax.types import AnyArray, MetaWeights, NetworkState, Params

Metrics = dict[str, Float[Array, ""]]

COMPONENTS = 128
"""Number of the principal components of the face network's features that are targets."""

RIDGE = 30.0
"""Regularization of the initial A, which is fitted to the original E."""

_LEAST_DEVIATION = 1e-4
"""Standard deviation of a component relative to the first one's, below which it is noise."""


class Teaching(NamedTuple):
    """State between two steps."""

    params: Params
    """E as "embedder", and the linear maps "identity" (A, a) and "reconstruction" (B, b)."""
    spectral_stats: Params
    """u and v of E."""
    moments: Any


TeachStep = Callable[[Teaching, NetworkState, AnyArray, AnyArray, AnyArray], tuple[Teaching, Metrics]]


def frame_features(
    face_network: FaceNetWeights, frames: Float[Array, "B H W 3"], landmarks: Float[Array, "B P 2"], *, size: int = 128
) -> Float[Array, "B F"]:
    """Compute the face network's features of the square around each face.

    Args:
        face_network: weights of the face MobileNet.
        frames: frames in [-1, 1].
        landmarks: their landmarks in [0, 1]; where these are NaN, the whole frame is used.
        size: side of the squares in pixels.
    """
    return face_features(face_network, crop_squares(frames, face_squares(landmarks), size=size), size=size)


class TargetBasis(NamedTuple):
    """Maps a face network's features to identity targets."""

    mean: Float[np.ndarray, " F"]
    basis: Float[np.ndarray, "F C"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "V F"], *, components: int = COMPONENTS) -> "TargetBasis":
        """Fit the basis: principal components, each divided by the fourth root of its variance.

        This is halfway between features as they are, in which few components dominate, and whitened ones, in which noise does.

        Args:
            features: mean features of each of V people.
            components: number C of components.

        Raises:
            ValueError: if the features have fewer components than that.
        """
        mean = features.mean(0)
        _, values, directions = np.linalg.svd((features - mean).astype(np.float64), full_matrices=False)
        usable = int((values > _LEAST_DEVIATION * values[0]).sum())
        if not 1 <= components <= usable:
            raise ValueError(
                f"components must be 1 to {usable}, the number that the features of {len(features)} people have, "
                f"got {components}"
            )
        deviations = values[:components] / np.sqrt(len(features))
        return cls(mean, (directions[:components].T / np.sqrt(deviations)).astype(np.float32))

    def targets(self, features: Float[np.ndarray, "V F"]) -> Float[np.ndarray, "V C"]:
        """Compute the targets of people by their mean features."""
        return np.asarray((features - self.mean) @ self.basis, np.float32)


def check_teachable(networks: Networks) -> None:
    """Check that another matrix can replace P.

    Raises:
        ValueError: if P has spectral norm.
    """
    if networks.projection.spectral_norm:
        raise ValueError("P must have no spectral norm (projection_spectral_norm=False): its sigma would change")


def start_teaching(
    networks: Networks,
    weights: MetaWeights,
    optimizer: optax.GradientTransformation,
    *,
    embeddings: Float[AnyArray, "M N"],
    targets: Float[AnyArray, "M C"],
) -> Teaching:
    """Build the state before the first step: A and a by ridge regression on the original E, B and b the identity.

    The state shares no arrays with `weights`, so that steps may donate it.

    Args:
        networks: networks that `weights` belong to.
        weights: meta-learned weights.
        optimizer: optimizer of `Teaching.params`.
        embeddings: embeddings of some frames by the original E.
        targets: identity targets of the people they show.

    Raises:
        ValueError: if P has spectral norm, so that P∘B could not replace it.
    """
    check_teachable(networks)
    e, t = np.asarray(embeddings, np.float64), np.asarray(targets, np.float64)
    middle = e - e.mean(0)
    kernel = np.linalg.solve(middle.T @ middle + RIDGE * np.eye(e.shape[1]), middle.T @ t)
    width = networks.plan.embedding
    embedder = group(weights.synthesis, "embedder")
    params = {
        "embedder": jax.tree.map(jnp.array, embedder.params),
        "identity": _linear(kernel, t.mean(0) - e.mean(0) @ kernel),
        "reconstruction": _linear(np.eye(width), np.zeros(width)),
    }
    return Teaching(params, jax.tree.map(jnp.array, embedder.spectral_stats), optimizer.init(params))


def make_teach_step(networks: Networks, optimizer: optax.GradientTransformation) -> TeachStep:
    """Build a step (state, original, frames, landmarks, targets) -> (state, metrics) as a pure function, not jitted.

    `original` is the original E; frames are UInt8[B K H W 3], landmarks [B K P 2] in [0, 1], and targets [B C], one for the K
    frames of each person. The metrics are `cosine`, to the targets, and `reconstruction`, the squared error of the original
    embeddings.

    Args:
        networks: networks that the state belongs to.
        optimizer: the optimizer that the state was created with.
    """

    def step(
        state: Teaching, original: NetworkState, frames: AnyArray, landmarks: AnyArray, targets: AnyArray
    ) -> tuple[Teaching, Metrics]:
        images = to_network_range(jnp.asarray(frames)).reshape(-1, *frames.shape[2:])
        drawn = networks.landmark_image(jnp.asarray(landmarks).reshape(-1, *landmarks.shape[2:]))
        old = networks.embed(original, images, drawn)
        wanted = jnp.repeat(jnp.asarray(targets), frames.shape[1], axis=0)

        def objective(params: Params) -> tuple[Array, Metrics]:
            new = networks.embed(NetworkState(params["embedder"], state.spectral_stats), images, drawn)
            cosine = jnp.mean(_cosine(_apply(params["identity"], new), wanted))
            error = jnp.mean(jnp.sum(jnp.square(_apply(params["reconstruction"], new) - old), axis=-1))
            return 1.0 - cosine + error, {"cosine": cosine, "reconstruction": error}

        gradients, metrics = jax.grad(objective, has_aux=True)(state.params)
        changes, moments = optimizer.update(gradients, state.moments, state.params)
        params = optax.apply_updates(state.params, changes)
        return Teaching(params, power_iterate(params["embedder"], state.spectral_stats), moments), metrics

    return step


def predicted_cosine(
    state: Teaching, embeddings: Float[AnyArray, "B N"], targets: Float[AnyArray, "B C"]
) -> Float[Array, " B"]:
    """Compute the cosine between targets and those that the state predicts from embeddings."""
    return _cosine(_apply(state.params["identity"], jnp.asarray(embeddings)), jnp.asarray(targets))


def taught_weights(weights: MetaWeights, state: Teaching) -> MetaWeights:
    """Return weights with the taught E, and P∘B in place of P.

    D is unchanged. If it was trained, its w0 and the rows of W belong to the original embeddings: let D train alone for a
    while before both players do (`AdversarySchedule`).
    """
    synthesis = weights.synthesis
    p, b = (
        {name: np.asarray(x, np.float64) for name, x in layer.items()}
        for layer in (synthesis.params["projection"]["dense"], state.params["reconstruction"])
    )
    dense = _linear(b["kernel"] @ p["kernel"], p["bias"] + b["bias"] @ p["kernel"])
    params = {**synthesis.params, "embedder": state.params["embedder"], "projection": {"dense": dense}}
    stats = {**synthesis.spectral_stats, "embedder": state.spectral_stats}
    return MetaWeights(NetworkState(params, stats), weights.discriminator)


def _linear(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Array]:
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}


def _apply(layer: Mapping[str, Array], x: Float[Array, "B N"]) -> Float[Array, "B C"]:
    return x @ layer["kernel"] + layer["bias"][None]


def _cosine(a: Float[Array, "B C"], b: Float[Array, "B C"]) -> Float[Array, " B"]:
    # The constant keeps the gradient finite for predictions that are all zero.
    lengths = jnp.sqrt((jnp.sum(jnp.square(a), -1) + 1e-4) * (jnp.sum(jnp.square(b), -1) + 1e-12))
    return jnp.sum(a * b, -1) / lengths
