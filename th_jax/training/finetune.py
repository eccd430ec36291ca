"""Few-shot learning of one person: ψ', ψ, w', θ and b are trained; E and P are no longer used (paper, section 3.3).

These are pure functions of `FinetuneState`. Work between chunks of steps, such as previews and early stopping, is left to the
caller.
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
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.finetune_objectives import Frames, generator_terms_of_person, hinge_of_person
from th_jax.training.optimizers import Optimizers, averaging_decay
from th_jax.types import Avatar, MetaWeights, NetworkState, Params, Shots

BATCH = 8
"""Maximum number of shots per update (docs/paper-map.md)."""

FinetuneChunk = Callable[..., tuple[Any, dict[str, Float[Array, " S"]]]]

PADDED_SHOTS = (1, 8, 32)
"""Numbers of shots that programs are compiled for; other numbers are padded, and the mask marks the real shots."""


class FinetuneState(NamedTuple):
    """State of a fine-tuning run between two steps."""

    step: Int[Array, ""]
    key: PRNGKeyArray
    """Determines the order of the shots."""
    generator: NetworkState
    """ψ and its spectral vectors u and v."""
    adain: Float[Array, " A"]
    """ψ', the person's own AdaIN parameters."""
    discriminator: NetworkState
    """θ, b, and w' in place of w0; no row of the video table is added to it."""
    synthesis_moments: Any
    discriminator_moments: Any
    averaged: Avatar | None = None
    """ψ and ψ' averaged over the steps, with u and v of their own; None without averaging."""


def embed_shots(networks: Networks, weights: MetaWeights, shots: Shots) -> Float[Array, " N"]:
    """Compute ê_NEW, the mean embedding of the real shots (paper, section 3.3).

    Landmarks may be NaN where they are unknown.
    """
    frames = to_network_range(jnp.asarray(shots.frames))
    landmarks = networks.landmark_image(jnp.asarray(shots.landmarks))
    embeddings = networks.embed(group(weights.synthesis, "embedder"), frames, landmarks)
    mask = jnp.asarray(shots.mask)
    return jnp.sum(jnp.where(mask[:, None] > 0, embeddings, 0.0), axis=0) / jnp.sum(mask)


def feed_forward(networks: Networks, weights: MetaWeights, shots: Shots) -> Avatar:
    """Build an avatar without training: the meta-learned weights and ψ' = P·ê_NEW."""
    return avatar_from_embedding(networks, weights, embed_shots(networks, weights, shots))


def avatar_from_embedding(networks: Networks, weights: MetaWeights, embedding: Float[Array, " N"]) -> Avatar:
    """Build the feed-forward avatar of an identity embedding."""
    adain = networks.project(group(weights.synthesis, "projection"), embedding[None])[0]
    generator = group(weights.synthesis, "generator")
    return Avatar(generator.params, adain, generator.spectral_stats)


def start_finetune(
    networks: Networks,
    weights: MetaWeights,
    shots: Shots,
    *,
    optimizers: Optimizers,
    key: PRNGKeyArray,
    averaging: float = 0.0,
) -> FinetuneState:
    """Build the state before the first step: ψ' = P·ê_NEW, w' = w0 + ê_NEW, everything else as meta-learned.

    The optimizers are initialized for these parameters: ψ' and w' are among the trained parameters.

    Args:
        networks: networks that the weights belong to.
        weights: meta-learned weights.
        shots: the person's shots, padded or not.
        optimizers: optimizers of both players.
        key: random key that determines the order of the shots.
        averaging: decay per step of the averaged avatar, as in `make_finetune_step`.
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
        averaged=avatar if averaging else None,
    )


def state_types(optimizers: Optimizers) -> FinetuneState:
    """Return a state without arrays, whose nodes have the types of a real one."""
    network, avatar = NetworkState({}, {}), Avatar({}, None, {})  # type: ignore[arg-type]
    one, other = (player.optimizer().init({}) for player in (optimizers.synthesis, optimizers.discriminator))
    return FinetuneState(None, None, network, None, network, one, other, avatar)  # type: ignore[arg-type]


def avatar_of(state: FinetuneState) -> Avatar:
    """Return the person's avatar: the averaged one if the steps average, else the generator in its current state."""
    if state.averaged is not None:
        return state.averaged
    return Avatar(state.generator.params, state.adain, state.generator.spectral_stats)


def steps_of(shots: int, *, epochs: int) -> int:
    """Return the number of steps for a number of epochs.

    An epoch is one step for up to 8 shots, and batches of 8 beyond that: 40 epochs are 40, 40 and 160 steps for 1, 8 and 32
    shots.

    Raises:
        ValueError: if `shots` or `epochs` is below 1.
    """
    if shots < 1 or epochs < 1:
        raise ValueError(f"fine-tuning needs at least 1 shot and 1 epoch, but got {shots} and {epochs}")
    return epochs if shots <= BATCH else math.ceil(epochs * shots / BATCH)


def choose_shots(
    key: PRNGKeyArray, step: Int[Array, ""], mask: Float[Array, " T"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """Choose the shots of a step and their weights.

    With up to 8 real shots, every step uses all of them. Larger sets are visited in batches of 8 from an endless sequence of
    permutations, one per epoch.

    Args:
        key: random key of the fine-tuning run.
        step: number of the step, from 0.
        mask: 1 for real shots, 0 for padding.

    Returns:
        The indices of the chosen shots, and their weights, which sum to 1.
    """
    count = mask.shape[0]
    size = min(BATCH, count)
    real = jnp.sum(mask > 0).astype(jnp.int32)
    if count <= BATCH:
        return jnp.arange(size), mask / jnp.sum(mask)
    position = step * BATCH + jnp.arange(size)
    # Fewer real shots than a batch may be padded to more than a batch; the sequence would then repeat a shot within a step.
    first, second = (_permutation(key, position[0] // real + later, mask) for later in (0, 1))
    chosen = jnp.where(position // real == position[0] // real, first[position % real], second[position % real])
    few = jnp.arange(size) < jnp.minimum(real, size)
    all_shots = jnp.argsort(-mask, stable=True)[:size]
    chosen = jnp.where(real <= size, all_shots, chosen)
    weight = jnp.where(few, 1.0, 0.0)
    return chosen, weight / jnp.sum(weight)


def make_finetune_step(
    networks: Networks,
    loss_weights: LossWeights,
    optimizers: Optimizers,
    *,
    adversary: float = 1.0,
    discriminator_updates: int = 2,
    averaging: float = 0.0,
) -> Callable[[FinetuneState, PerceptualWeights, Shots], tuple[FinetuneState, dict[str, Array]]]:
    """Build one fine-tuning step as a pure function, not jitted.

    A step is one forward pass of G, then the updates of D, then the update of ψ and ψ' (paper, section 3.3). The losses are
    those of meta-learning without the matching loss.

    Args:
        networks: networks that the state belongs to.
        loss_weights: weights of the loss terms.
        optimizers: the optimizers that the state was created with.
        adversary: factor of the adversarial and the feature matching loss; 1 in the paper (`AdversarySchedule.weight`).
        discriminator_updates: updates of D per update of G.
        averaging: decay per step of the avatar's averaged parameters, which replace the last ones as the result; the decay at
            step n is min(averaging, (1 + n) / (10 + n)). 0, as in the paper, keeps the last parameters.

    Raises:
        ValueError: if `discriminator_updates` is below 1, `adversary` is negative or not finite, or `averaging` is not in
            [0, 1).
    """
    if not 0 <= averaging < 1:
        raise ValueError(f"averaging must be in [0, 1), but is {averaging}")
    if discriminator_updates < 1:
        raise ValueError(f"discriminator_updates must be at least 1, but is {discriminator_updates}")
    if not 0 <= adversary < math.inf:
        raise ValueError(f"adversary must be a finite factor of at least 0, but is {adversary}")

    @jax.jit  # traced once for all updates
    def update_discriminator(
        discriminator: NetworkState, moments: Any, fake: Array, frames: Frames
    ) -> tuple[NetworkState, Any, dict[str, Array]]:
        def hinge(params: Params) -> tuple[Array, dict[str, Array]]:
            return hinge_of_person(networks, NetworkState(params, discriminator.spectral_stats), fake, frames)

        (_, parts), gradients = jax.value_and_grad(hinge, has_aux=True)(discriminator.params)
        changes, moments = optimizers.discriminator.optimizer().update(gradients, moments, discriminator.params)
        params = optax.apply_updates(discriminator.params, changes)
        return NetworkState(params, power_iterate(params, discriminator.spectral_stats)), moments, parts

    def step(
        state: FinetuneState, perceptual: PerceptualWeights, shots: Shots
    ) -> tuple[FinetuneState, dict[str, Array]]:
        chosen, weights = choose_shots(state.key, state.step, jnp.asarray(shots.mask))
        frames = Frames.of(
            networks, shots, chosen, weights, landmark_box=loss_weights.landmark_box, eyes=loss_weights.eyes
        )
        stats = state.generator.spectral_stats

        def generate(trained: tuple[Params, Array]) -> Array:
            params, adain = trained
            repeated = jnp.broadcast_to(adain[None], (frames.weight.shape[0], adain.shape[0]))
            return networks.generate(NetworkState(params, stats), frames.landmarks, repeated)

        trained = (state.generator.params, state.adain)
        fake, pull = jax.vjp(generate, trained)
        metrics: dict[str, Array] = {}
        discriminator, moments = state.discriminator, state.discriminator_moments
        for _ in range(discriminator_updates):
            discriminator, moments, parts = update_discriminator(discriminator, moments, fake, frames)
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
        averaged = state.averaged
        if averaged is not None:
            averaged = _moved_towards(averaged, params, adain, decay=averaging_decay(averaging, state.step))
        metrics |= {"loss/generator": loss, **{f"loss/{name}": value for name, value in plain.items()}}
        new = FinetuneState(
            step=state.step + 1,
            key=state.key,
            generator=NetworkState(params, power_iterate(params, stats)),
            adain=adain,
            discriminator=discriminator,
            synthesis_moments=synthesis_moments,
            discriminator_moments=moments,
            averaged=averaged,
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
    averaging: float = 0.0,
) -> FinetuneChunk:
    """Build `steps` steps as one pure function: (state, perceptual, shots, end) -> (state, metrics of every step).

    Steps from number `end` on change nothing and have NaN metrics. One compiled program therefore serves every length of
    fine-tuning, and every person with the same number of padded shots.

    Args:
        networks: networks that the state belongs to.
        loss_weights: weights of the loss terms.
        optimizers: the optimizers that the state was created with.
        steps: steps per chunk, at least 1.
        adversary: as in `make_finetune_step`.
        discriminator_updates: as in `make_finetune_step`.
        averaging: as in `make_finetune_step`.

    Raises:
        ValueError: if `steps` is below 1, or an argument is invalid for `make_finetune_step`.
    """
    if steps < 1:
        raise ValueError(f"a chunk needs at least 1 step, but {steps} were asked for")
    step = jax.jit(  # traced once for its shapes and for the loop
        make_finetune_step(
            networks,
            loss_weights,
            optimizers,
            adversary=adversary,
            discriminator_updates=discriminator_updates,
            averaging=averaging,
        )
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


def _moved_towards(averaged: Avatar, params: Params, adain: Float[Array, " A"], *, decay: Float[Array, ""]) -> Avatar:
    params, adain = jax.tree.map(
        lambda old, new: decay * old + (1.0 - decay) * new, (averaged.generator_params, averaged.adain), (params, adain)
    )
    return Avatar(params, adain, power_iterate(params, averaged.spectral_stats))


def _permutation(key: PRNGKeyArray, epoch: Int[Array, ""], mask: Float[Array, " T"]) -> Int[Array, " T"]:
    """Return the real shots in an order specific to this epoch, followed by the padding."""
    draws = jax.random.uniform(jax.random.fold_in(key, epoch), mask.shape)
    return jnp.argsort(jnp.where(mask > 0, draws, 2.0))
