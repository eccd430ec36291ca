"""Few-shot learning of one person: ψ' and ψ, w', θ and b train, E and P are no longer used (paper, section 3.3).

Pure functions of FinetuneState. What is done between chunks of steps (previews, stopping early) stays with the caller.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from th_jax.images import to_network_range
from th_jax.losses import LossWeights
from th_jax.models.networks import Networks, group
from th_jax.models.spectral import power_iterate
from th_jax.perceptual.weights import PerceptualWeights
from th_jax.training.finetune_objectives import Frames, generator_terms_of_person, hinge_of_person
from th_jax.training.optimizers import Optimizers
from th_jax.types import Avatar, MetaWeights, NetworkState, Params, Shots

BATCH = 8
"""Shots of one update when there are more than one (docs/paper-map.md)."""

FinetuneChunk = Callable[..., tuple[Any, dict[str, Float[Array, " S"]]]]

PADDED_SHOTS = (1, 8, 32)
"""Numbers of shots that programs are compiled for; others are padded, and the mask says which are real."""


class FinetuneState(NamedTuple):
    """All that fine-tuning is between two steps."""

    step: Int[Array, ""]
    key: PRNGKeyArray
    """Decides the order of the shots."""
    generator: NetworkState
    """ψ with its u and v."""
    adain: Float[Array, " A"]
    """ψ', the person's own AdaIN parameters."""
    discriminator: NetworkState
    """θ, b, and w' in the place of w0; no row is added to it."""
    synthesis_moments: Any
    discriminator_moments: Any


def embed_shots(networks: Networks, weights: MetaWeights, shots: Shots) -> Float[Array, " N"]:
    """ê_NEW: the mean of E over the real shots (paper, section 3.3). Landmarks may hold NaN where they are unknown."""
    frames = to_network_range(jnp.asarray(shots.frames))
    landmarks = networks.landmark_image(jnp.asarray(shots.landmarks))
    embeddings = networks.embed(group(weights.synthesis, "embedder"), frames, landmarks)
    mask = jnp.asarray(shots.mask)
    return jnp.sum(jnp.where(mask[:, None] > 0, embeddings, 0.0), axis=0) / jnp.sum(mask)


def feed_forward(networks: Networks, weights: MetaWeights, shots: Shots) -> Avatar:
    """The avatar without any training: meta weights and ψ' = P·ê_NEW."""
    return avatar_from_embedding(networks, weights, embed_shots(networks, weights, shots))


def avatar_from_embedding(networks: Networks, weights: MetaWeights, embedding: Float[Array, " N"]) -> Avatar:
    """The feed-forward avatar of an identity embedding."""
    adain = networks.project(group(weights.synthesis, "projection"), embedding[None])[0]
    generator = group(weights.synthesis, "generator")
    return Avatar(generator.params, adain, generator.spectral_stats)


def start_finetune(
    networks: Networks, weights: MetaWeights, shots: Shots, *, optimizers: Optimizers, key: PRNGKeyArray
) -> FinetuneState:
    """The state before the first step: ψ' = P·ê_NEW, w' = w0 + ê_NEW, everything else as meta-learning left it.

    The optimisers are made for these parameters: ψ' and w' are among what they move.
    """
    embedding = embed_shots(networks, weights, shots)
    avatar = avatar_from_embedding(networks, weights, embedding)
    trunk = weights.discriminator
    discriminator = NetworkState({**trunk.params, "shared": trunk.params["shared"] + embedding}, trunk.spectral_stats)
    return FinetuneState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        generator=NetworkState(avatar.generator_params, avatar.spectral_stats),
        adain=jnp.asarray(avatar.adain),
        discriminator=discriminator,
        synthesis_moments=optimizers.synthesis.optimizer().init((avatar.generator_params, jnp.asarray(avatar.adain))),
        discriminator_moments=optimizers.discriminator.optimizer().init(discriminator.params),
    )


def avatar_of(state: FinetuneState) -> Avatar:
    """The person's generator as it is now."""
    return Avatar(state.generator.params, state.adain, state.generator.spectral_stats)


def steps_of(shots: int, *, epochs: int) -> int:
    """Steps of so many epochs: one an epoch up to 8 shots, then batches of 8: 40, 40 and 160 for 1, 8 and 32 shots.

    Raises:
        ValueError: if there is no shot or no epoch.
    """
    if shots < 1 or epochs < 1:
        raise ValueError(f"fine-tuning needs at least 1 shot and 1 epoch, but got {shots} and {epochs}")
    return epochs if shots <= BATCH else math.ceil(epochs * shots / BATCH)


def choose_shots(
    key: PRNGKeyArray, step: Int[Array, ""], mask: Float[Array, " T"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """The shots of a step and the weight of each, which sum to one.

    Up to 8 real shots every step takes all of them. More are taken in batches of 8 from an endless row of permutations, one
    an epoch.
    """
    count = mask.shape[0]
    size = min(BATCH, count)
    real = jnp.sum(mask > 0).astype(jnp.int32)
    if count <= BATCH:
        return jnp.arange(size), mask / jnp.sum(mask)
    position = step * BATCH + jnp.arange(size)
    # Fewer real shots than a batch holds may come padded to more: then the row would visit a shot twice a step.
    first, second = (_permutation(key, position[0] // real + later, mask) for later in (0, 1))
    chosen = jnp.where(position // real == position[0] // real, first[position % real], second[position % real])
    few = jnp.arange(size) < jnp.minimum(real, size)
    everyone = jnp.argsort(-mask, stable=True)[:size]
    chosen = jnp.where(real <= size, everyone, chosen)
    weight = jnp.where(few, 1.0, 0.0)
    return chosen, weight / jnp.sum(weight)


def make_finetune_step(
    networks: Networks,
    loss_weights: LossWeights,
    optimizers: Optimizers,
    *,
    adversary: float = 1.0,
    discriminator_updates: int = 2,
) -> Callable[[FinetuneState, PerceptualWeights, Shots], tuple[FinetuneState, dict[str, Array]]]:
    """One step: a forward pass of G, D's updates, then ψ and ψ' (paper, section 3.3), as a pure function, not jitted.

    Losses are those of meta-learning without the matching loss.

    Args:
        networks: of the state.
        loss_weights: of the terms.
        optimizers: that the state was started with.
        adversary: factor of the score and of feature matching, 1 in the paper (`AdversarySchedule.weight`).
        discriminator_updates: of D, for one of G.

    Raises:
        ValueError: for less than one update of D, or a negative factor.
    """
    if discriminator_updates < 1:
        raise ValueError(f"discriminator_updates must be at least 1, but is {discriminator_updates}")
    if not 0 <= adversary < math.inf:
        raise ValueError(f"adversary must be a finite factor of at least 0, but is {adversary}")

    def step(
        state: FinetuneState, perceptual: PerceptualWeights, shots: Shots
    ) -> tuple[FinetuneState, dict[str, Array]]:
        chosen, weights = choose_shots(state.key, state.step, jnp.asarray(shots.mask))
        frames = Frames.of(networks, shots, chosen, weights, landmark_box=loss_weights.landmark_box)
        stats = state.generator.spectral_stats

        def generate(trained: tuple[Params, Array]) -> Array:
            params, adain = trained
            everybody = jnp.broadcast_to(adain[None], (frames.weight.shape[0], adain.shape[0]))
            return networks.generate(NetworkState(params, stats), frames.landmarks, everybody)

        trained = (state.generator.params, state.adain)
        fake, pull = jax.vjp(generate, trained)
        metrics: dict[str, Array] = {}
        discriminator, moments = state.discriminator, state.discriminator_moments
        for _ in range(discriminator_updates):

            def hinge(params: Params, spectral_stats: Params = discriminator.spectral_stats) -> Any:
                judge = NetworkState(params, spectral_stats)
                return hinge_of_person(networks, judge, jax.lax.stop_gradient(fake), frames)

            (_, parts), gradients = jax.value_and_grad(hinge, has_aux=True)(discriminator.params)
            changes, moments = optimizers.discriminator.optimizer().update(gradients, moments, discriminator.params)
            params = optax.apply_updates(discriminator.params, changes)
            discriminator = NetworkState(params, power_iterate(params, discriminator.spectral_stats))
            metrics |= parts

        def objective(moving: Array) -> tuple[Array, Mapping[str, Array]]:
            weighted, plain = generator_terms_of_person(
                networks, moving, frames, discriminator, perceptual, loss_weights=loss_weights, adversary=adversary
            )
            return sum(weighted.values(), jnp.float32(0)), plain

        (loss, plain), cotangent = jax.value_and_grad(objective, has_aux=True)(fake)
        (gradients,) = pull(cotangent)
        changes, synthesis_moments = optimizers.synthesis.optimizer().update(
            gradients, state.synthesis_moments, trained
        )
        params, adain = optax.apply_updates(trained, changes)
        metrics |= {"loss/generator": loss, **{f"loss/{name}": value for name, value in plain.items()}}
        new = FinetuneState(
            step=state.step + 1,
            key=state.key,
            generator=NetworkState(params, power_iterate(params, stats)),
            adain=adain,
            discriminator=discriminator,
            synthesis_moments=synthesis_moments,
            discriminator_moments=moments,
        )
        return new, metrics

    return step


def make_finetune_chunk(
    networks: Networks,
    loss_weights: LossWeights,
    optimizers: Optimizers,
    *,
    steps: int,
    adversary: float = 1.0,
    discriminator_updates: int = 2,
) -> FinetuneChunk:
    """`steps` steps as one pure function: (state, perceptual, shots, end) -> (state, metrics of every step).

    Steps from number `end` on change nothing, and their metrics are NaN: so that one compiled program serves every length
    of fine-tuning, and every person with the same number of padded shots. `adversary` and `discriminator_updates` are those of
    `make_finetune_step`.

    Raises:
        ValueError: for less than one step, and as `make_finetune_step`.
    """
    if steps < 1:
        raise ValueError(f"a chunk needs at least 1 step, but {steps} were asked for")
    step = make_finetune_step(
        networks, loss_weights, optimizers, adversary=adversary, discriminator_updates=discriminator_updates
    )

    def chunk(
        state: FinetuneState, perceptual: PerceptualWeights, shots: Shots, end: Int[Array, ""]
    ) -> tuple[FinetuneState, dict[str, Array]]:
        _, shapes = jax.eval_shape(step, state, perceptual, shots)
        nothing = {name: jnp.full(shape.shape, jnp.nan, shape.dtype) for name, shape in shapes.items()}

        def one(before: FinetuneState, _: None) -> tuple[FinetuneState, dict[str, Array]]:
            go_on = before.step < end
            return jax.lax.cond(go_on, lambda: step(before, perceptual, shots), lambda: (before, nothing))

        return jax.lax.scan(one, state, length=steps)

    return chunk


def _permutation(key: PRNGKeyArray, epoch: Int[Array, ""], mask: Float[Array, " T"]) -> Int[Array, " T"]:
    """The real shots in an order of this epoch, then the padding."""
    draws = jax.random.uniform(jax.random.fold_in(key, epoch), mask.shape)
    return jnp.argsort(jnp.where(mask > 0, draws, 2.0))
