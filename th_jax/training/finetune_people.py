"""Fine-tuning of one or many people, with one program over all devices for many.

Each device fine-tunes its own people, one after another. A round processes devices x `at_once` people; memory use is that of
one round, whatever the number of people.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, PRNGKeyArray

from th_jax.losses import LossWeights, loss_preset
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.program_cache import cached_jit
from th_jax.training.finetune import (
    PADDED_SHOTS,
    FinetuneChunk,
    FinetuneState,
    avatar_of,
    make_finetune_chunk,
    start_finetune,
    state_types,
    steps_of,
)
from th_jax.training.optimizers import Optimizers
from th_jax.training.sharding import DATA_AXIS, make_mesh
from th_jax.training.views import with_loss_networks
from th_jax.types import Avatar, MetaWeights, Shots

CHUNK_STEPS = 10
"""Steps per jitted chunk: a quarter of the paper's shortest fine-tuning passes between two calls of the watcher."""

FinetuneMetrics = dict[str, Float[np.ndarray, " S"]]

Watcher = Callable[[FinetuneState, FinetuneMetrics], bool]
"""Called between chunks with the state and the metrics of the last chunk; returning True stops the fine-tuning."""


def default_losses(perceptual: PerceptualWeights) -> LossWeights:
    """Return the published loss weights for the given frozen networks: "iccv" for VGG19 and VGGFace, "embedded" for VGG16.

    Raises:
        ValueError: if no published loss weights use exactly these networks.
    """
    for preset in ("iccv", "embedded"):
        weights = loss_preset(preset)
        if set(weights.content) == set(perceptual):
            return weights
    raise ValueError(
        f"no published loss weights are for the frozen networks {', '.join(sorted(perceptual)) or '(none)'}: "
        "give loss_weights yourself"
    )


def fit_shots(networks: Networks, shots: Shots) -> Shots:
    """Resize shots to the networks' image size and pad them to 1, 8 or 32 with mask 0.

    Raises:
        ValueError: if there are no shots, more than 32, or no real shots among them.
    """
    frames, landmarks, mask = (np.asarray(leaf) for leaf in shots)
    count = len(frames)
    if not 1 <= count <= PADDED_SHOTS[-1] or not mask.any():
        raise ValueError(
            f"fine-tuning takes 1 to {PADDED_SHOTS[-1]} shots, but {int(mask.sum())} real ones of {count} were given"
        )
    size = networks.image_size
    if frames.shape[1:3] != (size, size):
        resized = jax.image.resize(frames.astype(np.float32), (count, size, size, 3), method="linear", antialias=True)
        frames = np.asarray(jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8))
    total = next(padded for padded in PADDED_SHOTS if padded >= count)
    repeated = np.arange(total) % count
    real = np.where(np.arange(total) < count, mask[repeated], 0.0).astype(np.float32)
    return Shots(frames[repeated], landmarks[repeated].astype(np.float32), real)


def make_finetune(
    networks: Networks,
    *,
    epochs: int = 40,
    loss_weights: LossWeights | None = None,
    optimizers: Optimizers | None = None,
    adversary: float = 1.0,
    discriminator_updates: int = 2,
    averaging: float = 0.0,
    chunk_steps: int = CHUNK_STEPS,
    watch: Watcher | None = None,
) -> Callable[..., tuple[Avatar, FinetuneMetrics]]:
    """Build fine-tuning as a function (weights, perceptual, shots, key=…) -> (avatar, metrics of every step).

    It is compiled once for each padded number of shots (1, 8 or 32) and reused for every person.

    Args:
        networks: networks that the meta-learned weights belong to.
        epochs: epochs over the shots; 40 in the paper preset.
        loss_weights: weights of the loss terms; by default the published ones for the given frozen networks.
        optimizers: optimizers of both players; by default with the rates of meta-learning (paper, section 4).
        adversary: factor of the adversarial and the feature matching loss; use the final value of meta-learning.
        discriminator_updates, averaging: as in `make_finetune_step`.
        chunk_steps: steps between two calls of `watch`.
        watch: called between chunks; returning True stops the fine-tuning.

    Raises:
        ValueError: if the settings are invalid; the returned function raises it for invalid shots.
    """
    optimizers = optimizers or Optimizers()
    steps_of(1, epochs=epochs)
    step_settings: dict[str, Any] = {
        "adversary": adversary, "discriminator_updates": discriminator_updates, "averaging": averaging
    }  # fmt: skip
    compiled: dict[str, Any] = {}  # by loss weights, which may depend on the frozen networks

    # Jitted so that the leaves are copies: the chunks donate their inputs, and the meta-learned weights must survive.
    @jax.jit
    def start(weights: MetaWeights, shots: Shots, key: PRNGKeyArray) -> FinetuneState:
        return start_finetune(networks, weights, shots, optimizers=optimizers, key=key, averaging=averaging)

    def finetune(
        weights: MetaWeights, perceptual: PerceptualWeights, shots: Shots, *, key: PRNGKeyArray | None = None
    ) -> tuple[Avatar, FinetuneMetrics]:
        shots = fit_shots(networks, shots)
        losses = loss_weights or default_losses(perceptual)
        perceptual = with_loss_networks(perceptual, losses)
        kind = repr(losses)
        if kind not in compiled:
            chunk = make_finetune_chunk(networks, losses, optimizers, steps=chunk_steps, **step_settings)
            key_of_program = f"finetune {(networks, losses, optimizers, step_settings, chunk_steps)}"
            compiled[kind] = cached_jit(chunk, key=key_of_program, donate_argnums=(0,))
        end = jnp.int32(steps_of(int(shots.mask.sum()), epochs=epochs))
        state = start(weights, shots, key if key is not None else jax.random.key(0))
        history: list[FinetuneMetrics] = []
        for first in range(0, int(end), chunk_steps):
            state, metrics = compiled[kind](state, perceptual, shots, end)
            done = min(chunk_steps, int(end) - first)
            history.append({name: np.asarray(values)[:done] for name, values in metrics.items()})
            if watch is not None and watch(state, history[-1]):
                break
        return avatar_of(state), {name: np.concatenate([part[name] for part in history]) for name in history[0]}

    return finetune


Observer = Callable[[str, Avatar, FinetuneMetrics], bool]
"""Called between chunks for each person of the round with the person's name, the current avatar on the first device, and the
metrics of all steps so far; returning True ends the fine-tuning of this person."""


_RoundMetrics = dict[str, Float[np.ndarray, "places _"]]


class FinishedPerson(NamedTuple):
    """A person whose round is complete. Arrays are on the host."""

    name: str
    avatar: Avatar
    metrics: FinetuneMetrics


def finetune_many(
    networks: Networks,
    weights: MetaWeights,
    perceptual: PerceptualWeights,
    people: Iterable[tuple[str, Shots]],
    *,
    epochs: int = 40,
    loss_weights: LossWeights | None = None,
    optimizers: Optimizers | None = None,
    adversary: float = 1.0,
    discriminator_updates: int = 2,
    averaging: float = 0.0,
    mesh: Mesh | None = None,
    at_once: int = 1,
    vmap_width: int = 1,
    chunk_steps: int = CHUNK_STEPS,
    observe: Observer | None = None,
    key: PRNGKeyArray | None = None,
) -> Iterator[FinishedPerson]:
    """Fine-tune a stream of people, and yield each one when its round is complete, with the avatars of `make_finetune`.

    A round starts as soon as enough people with the same number of padded shots (1, 8 or 32) and of landmarks (68, or 70 with
    pupils) have been read; the last rounds may leave places empty.

    Args:
        networks, weights, perceptual: the meta-learned model.
        people: pairs of a name and shots, read lazily.
        epochs, loss_weights, optimizers, adversary, discriminator_updates, averaging, chunk_steps, key: as in `make_finetune`.
        mesh: devices to use; by default all devices of this host. Hosts share nothing: each has its own people.
        at_once: people per device in a round.
        vmap_width: how many of these people are computed side by side by vmap; 1 computes them sequentially, which is faster
            on a CPU.
        observe: called for each person between chunks; returning True ends the fine-tuning of this person.

    Yields:
        The people whose round is complete.

    Raises:
        ValueError: if the settings do not fit a round, or shots are invalid.
    """
    mesh = mesh or make_mesh(devices=jax.local_devices())
    if at_once < 1 or not 1 <= vmap_width <= at_once or at_once % vmap_width:
        raise ValueError(
            f"at_once must be at least 1 and a multiple of vmap_width, but they are {at_once} and {vmap_width}"
        )
    losses = loss_weights or default_losses(perceptual)
    perceptual = with_loss_networks(perceptual, losses)
    settings = optimizers or Optimizers()
    step_settings: dict[str, Any] = {
        "adversary": adversary, "discriminator_updates": discriminator_updates, "averaging": averaging
    }  # fmt: skip
    one_chunk = make_finetune_chunk(networks, losses, settings, steps=chunk_steps, **step_settings)
    program = repr((networks, losses, settings, step_settings, chunk_steps, vmap_width))
    begin = functools.partial(start_finetune, networks, optimizers=settings, averaging=averaging)
    start, chunk = _programs(begin, one_chunk, mesh, vmap_width, key=program, like=state_types(settings))
    places = mesh.devices.size * at_once
    waiting: dict[tuple[int, int], list[tuple[str, Shots]]] = {}  # by padded shots and landmarks, to be stacked
    first_key = key if key is not None else jax.random.key(0)

    def at(states: FinetuneState, place: int) -> Avatar:
        avatar, row = _rows_with(avatar_of(states), place)
        person: Avatar = jax.device_put(_take(avatar, np.int32(row)), mesh.devices.flat[0])
        return person

    def of(metrics: _RoundMetrics, place: int, last: np.ndarray) -> FinetuneMetrics:
        return {name: values[place, : last[place]] for name, values in metrics.items()}

    def finish(group: list[tuple[str, Shots]]) -> Iterator[FinishedPerson]:
        ends = [steps_of(int(np.sum(shots.mask)), epochs=epochs) for _, shots in group]
        empty = places - len(group)
        stacked = Shots(
            *(np.stack(leaves) for leaves in zip(*(s for _, s in [*group, *[group[0]] * empty]), strict=True))
        )
        by_person = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
        shots = jax.device_put(stacked, by_person)
        last = np.array([*ends, *[0] * empty], np.int32)
        metrics: _RoundMetrics = {}
        state, done = start(weights, shots, first_key), 0
        while done < last.max():
            state, latest = chunk(state, perceptual, shots, jax.device_put(last, by_person))
            latest = jax.device_get(latest)
            metrics = {name: np.concatenate([metrics[name], new], 1) if done else new for name, new in latest.items()}
            done += chunk_steps
            for place in range(len(group) if observe is not None else 0):
                assert observe is not None
                if last[place] > done - chunk_steps and observe(
                    group[place][0], at(state, place), of(metrics, place, last)
                ):
                    last[place] = min(done, last[place])
        avatars = jax.device_get(jax.vmap(avatar_of)(state))
        for place, (name, _) in enumerate(group):
            avatar: Avatar = jax.tree.map(lambda leaf, place=place: leaf[place], avatars)
            yield FinishedPerson(name, avatar, of(metrics, place, last))

    for name, shots in people:
        fitted = fit_shots(networks, shots)
        kind = (len(fitted.mask), fitted.landmarks.shape[1])
        waiting.setdefault(kind, []).append((name, fitted))
        if len(waiting[kind]) == places:
            yield from finish(waiting.pop(kind))
    for group in waiting.values():
        yield from finish(group)


def _rows_with(people: Any, place: int) -> tuple[Any, int]:
    """Return the rows on the device that holds a person, and the person's row among them.

    `leaf[place]` would make all devices wait for each other.
    """

    def shard_of(leaf: jax.Array) -> jax.Shard:
        return next(shard for shard in leaf.addressable_shards if place in range(*shard.index[0].indices(len(leaf))))

    first, _, _ = shard_of(people.adain).index[0].indices(len(people.adain))
    return jax.tree.map(lambda leaf: shard_of(leaf).data, people), place - first


def _row(people: Any, row: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[row], people)


_take = cached_jit(_row, key="take")  # one program instead of one per shape of leaves


def _programs(
    begin: Callable[..., FinetuneState],
    one_chunk: FinetuneChunk,
    mesh: Mesh,
    vmap_width: int,
    *,
    key: str,
    like: FinetuneState,
) -> tuple[Callable[..., FinetuneState], Callable[..., Any]]:
    """Build the start and the chunk of a round: people are split over devices and mapped sequentially on each device."""
    people, whole = PartitionSpec(DATA_AXIS), PartitionSpec()

    def start(weights: MetaWeights, shots: Shots, key: PRNGKeyArray) -> FinetuneState:
        def one(person: Shots) -> FinetuneState:
            return begin(weights, person, key=key)

        return jax.lax.map(one, shots)

    def chunk(states: FinetuneState, perceptual: PerceptualWeights, shots: Shots, ends: jax.Array) -> Any:
        def one(person: tuple[FinetuneState, Shots, jax.Array]) -> Any:
            state, own, end = person
            return one_chunk(state, perceptual, own, end)

        return jax.lax.map(one, (states, shots, ends), batch_size=vmap_width if vmap_width > 1 else None)

    started = jax.shard_map(start, mesh=mesh, in_specs=(whole, people, whole), out_specs=people, check_vma=False)
    chunked = jax.shard_map(
        chunk, mesh=mesh, in_specs=(people, whole, people, people), out_specs=people, check_vma=False
    )
    if mesh.devices.size > 1:
        return jax.jit(started), jax.jit(chunked, donate_argnums=0)
    return cached_jit(started, key=f"{key} start", like=like), cached_jit(
        chunked, key=f"{key} round", donate_argnums=(0,)
    )
