"""Objectives of both players, term by term, as functions of one batch's arrays (paper, section 3.2)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from th_jax.images import to_network_range
from th_jax.losses import (
    Features,
    LossWeights,
    discriminator_hinge_loss,
    feature_matching_loss,
    generator_adversarial_loss,
    identity_loss,
    matching_loss,
    pixel_emphasis,
    pixel_loss,
)
from th_jax.models.networks import Networks, group
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.views import Views, face_squares, view_pyramids, views_content_loss
from th_jax.types import EpisodeBatch, NetworkState, Params

Scalar = Float[Array, ""]

_CACHED_POSITIONS = 2 * 256 * 256


class Sources(NamedTuple):
    """Input of E: source frames and drawn landmarks in [-1, 1]."""

    frames: Float[Array, "B K H W 3"]
    landmarks: Float[Array, "B K H W 3"]


class Targets(NamedTuple):
    """Targets of G and D: frames and drawn landmarks in [-1, 1], the weight of each pixel in the pixel loss, and the face."""

    frames: Float[Array, "B H W 3"]
    landmarks: Float[Array, "B H W 3"]
    emphasis: Float[Array, "B H W 1"]
    face: Float[Array, "B 3"]
    """Square around the face: left, top and side, as fractions of the image's side."""


class Synthesis(NamedTuple):
    """Output of one forward pass of E, P and G, shared by both players."""

    fake: Float[Array, "B H W 3"]
    embedding: Float[Array, "B N"]


def draw_sources(networks: Networks, batch: EpisodeBatch) -> Sources:
    """Convert the source frames to [-1, 1] and draw their landmarks, on the device."""
    points = jnp.asarray(batch.source_landmarks)
    return Sources(to_network_range(jnp.asarray(batch.source_frames)), networks.landmark_image(points))


def draw_targets(networks: Networks, batch: EpisodeBatch, *, landmark_box: float = 1.0, eyes: float = 1.0) -> Targets:
    """Convert the target frames to [-1, 1] and draw their landmarks, on the device.

    Args:
        networks: networks that draw the landmarks at their image size.
        batch: the episodes.
        landmark_box, eyes: weights of the pixel loss (`pixel_emphasis`).
    """
    points = jnp.asarray(batch.target_landmarks)
    return Targets(
        frames=to_network_range(jnp.asarray(batch.target_frame)),
        landmarks=networks.landmark_image(points),
        emphasis=pixel_emphasis(points, size=networks.image_size, landmark_box=landmark_box, eyes=eyes),
        face=face_squares(points),
    )


def embed_sources(networks: Networks, synthesis: NetworkState, sources: Sources) -> Float[Array, "B N"]:
    """Compute ê_i, the mean embedding of each episode's K sources (paper, section 3.1)."""
    episodes, count = sources.frames.shape[:2]
    frames, landmarks = (x.reshape(-1, *x.shape[2:]) for x in sources)
    embedder = group(synthesis, "embedder")

    def together(frames: Array, landmarks: Array) -> Array:
        return networks.embed(embedder, frames, landmarks)

    def in_turn(frames: Array, landmarks: Array) -> Array:
        grouped = (x.reshape(-1, size, *x.shape[1:]) for x in (frames, landmarks))
        embeddings = jax.lax.map(lambda pair: networks.embed(embedder, *pair), tuple(grouped))
        return embeddings.reshape(len(frames), -1)

    size = _frames_at_once(len(frames), positions=frames.shape[1] * frames.shape[2])
    if size == len(frames):
        embeddings = together(frames, landmarks)
    else:
        embeddings = jax.lax.platform_dependent(frames, landmarks, cpu=in_turn, default=together)
    return jnp.mean(embeddings.reshape(episodes, count, -1), axis=1)


def _frames_at_once(frames: int, *, positions: int) -> int:
    """Return how many frames a CPU should embed together: the largest divisor whose activations stay near its caches.

    On two cores, the forward and backward passes of eight frames at 256 px take 5.5 s together and 4.0 s in pairs; at 128 px
    and below, processing them together is as fast or faster.
    """
    most = max(1, _CACHED_POSITIONS // positions)
    return max(size for size in range(1, frames + 1) if frames % size == 0 and size <= most)


def synthesize(
    networks: Networks, synthesis: NetworkState, sources: Sources, target_landmarks: Float[Array, "B H W 3"]
) -> Synthesis:
    """Compute x̂ = G(y(t), P·ê), and ê itself."""
    embedding = embed_sources(networks, synthesis, sources)
    adain = networks.project(group(synthesis, "projection"), embedding)
    return Synthesis(networks.generate(group(synthesis, "generator"), target_landmarks, adain), embedding)


def discriminator_objective(
    networks: Networks,
    params: Params,
    spectral_stats: Params,
    rows: Float[Array, "B N"],
    *,
    synthesis: Synthesis,
    targets: Targets,
    matching: float,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the discriminator's objective: hinge loss on real and generated frames, and W's side of the matching loss.

    Real and generated frames are scored in one pass, so that they share the same sigmas.

    Args:
        networks: networks that the parameters belong to.
        params: parameters of D.
        spectral_stats: spectral vectors u and v of D.
        rows: W_i of each episode.
        synthesis: generated frames and embeddings of the batch.
        targets: real frames of the batch.
        matching: weight of the matching loss.

    Returns:
        The objective, and its unweighted parts and mean scores by name.
    """
    pair = jnp.concatenate([synthesis.fake, targets.frames])
    landmarks = jnp.concatenate([targets.landmarks] * 2)
    state = NetworkState(params, spectral_stats)
    scores, _ = networks.discriminate(state, pair, landmarks, jnp.concatenate([rows, rows]))
    fake_score, real_score = jnp.split(scores, 2)
    hinge = discriminator_hinge_loss(fake_score, real_score)
    match = matching_loss(rows, synthesis.embedding)
    parts = {
        "loss/discriminator_hinge": hinge,
        "loss/row_matching": match,
        "score/real": jnp.mean(real_score),
        "score/fake": jnp.mean(fake_score),
    }
    return hinge + matching * match, parts


class PrecomputedTargets(NamedTuple):
    """Constants of the generator's objective: the discriminator with its rows, and the real side of each comparison."""

    discriminator: NetworkState
    rows: Float[Array, "B N"]
    perceptual: PerceptualWeights
    real_views: Views
    real_features: Features


def precompute_targets(
    networks: Networks,
    discriminator: NetworkState | None,
    rows: Float[Array, "B N"],
    perceptual: PerceptualWeights,
    *,
    targets: Targets,
    loss_weights: LossWeights,
) -> PrecomputedTargets:
    """Compute everything that depends on the real frames once.

    Without a discriminator, its features are empty.

    Args:
        networks: networks that the discriminator belongs to.
        discriminator: state of D; None at stages without adversary.
        rows: W_i of each episode.
        perceptual: weights of the frozen networks.
        targets: real frames of the batch.
        loss_weights: weights of the loss terms, including what the frozen networks see.
    """
    dtype = jnp.dtype(networks.compute_dtype)
    views = view_pyramids(perceptual, targets.frames, targets.face, loss_weights=loss_weights, dtype=dtype)
    features: Features = ()
    if discriminator is not None:
        _, features = networks.discriminate(discriminator, targets.frames, targets.landmarks, rows)
    state = discriminator or NetworkState({}, {})
    return jax.lax.stop_gradient(PrecomputedTargets(state, rows, perceptual, views, tuple(features)))


def generator_terms(
    networks: Networks,
    synthesis: Synthesis,
    precomputed: PrecomputedTargets,
    *,
    targets: Targets,
    loss_weights: LossWeights,
    adversary: Scalar | None,
    remat_perceptual: bool = False,
) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Compute the generator's objective term by term.

    Args:
        networks: networks that produced `synthesis`.
        synthesis: x̂ and ê.
        precomputed: constants that they are compared with.
        targets: real frames of the same batch.
        loss_weights: weights of the loss terms.
        adversary: factor of the adversarial and the feature matching loss; None omits both of them and the matching loss.
        remat_perceptual: recompute the frozen networks' activations on x̂ in the backward pass instead of storing them.

    Returns:
        The weighted terms, whose sum the generator minimizes, and the same terms unweighted.
    """
    dtype: Any = jnp.dtype(networks.compute_dtype)

    def views(images: Float[Array, "B H W 3"]) -> Views:
        return view_pyramids(precomputed.perceptual, images, targets.face, loss_weights=loss_weights, dtype=dtype)

    generated = (jax.checkpoint(views) if remat_perceptual else views)(synthesis.fake)
    plain = {"content": views_content_loss(generated, precomputed.real_views, loss_weights=loss_weights)}
    weighted = dict(plain)
    if generated.identity is not None and precomputed.real_views.identity is not None:
        plain["identity"] = identity_loss(generated.identity, precomputed.real_views.identity)
        weighted["identity"] = loss_weights.identity * plain["identity"]
    if loss_weights.pixel:
        plain["pixel"] = pixel_loss(synthesis.fake, targets.frames, emphasis=targets.emphasis)
        weighted["pixel"] = loss_weights.pixel * plain["pixel"]
    if adversary is not None:
        score, features = networks.discriminate(
            precomputed.discriminator, synthesis.fake, targets.landmarks, precomputed.rows
        )
        plain["adversarial"] = generator_adversarial_loss(score)
        plain["feature_matching"] = feature_matching_loss(features, precomputed.real_features)
        plain["matching"] = matching_loss(synthesis.embedding, precomputed.rows)
        weighted["adversarial"] = adversary * plain["adversarial"]
        weighted["feature_matching"] = adversary * loss_weights.feature_matching * plain["feature_matching"]
        weighted["matching"] = loss_weights.matching * plain["matching"]
    return weighted, plain
