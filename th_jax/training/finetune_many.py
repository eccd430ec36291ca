"""Many people: one program over all devices, each of which fine-tunes its own people one after the other.

A round takes devices x `at_once` people. Memory holds one round, whatever the number of people.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, PRNGKeyArray

from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.perceptual.weights import PerceptualWeights
from th_jax.sharding import DATA_AXIS, make_mesh
from th_jax.training.finetune import (
    FinetuneChunk,
    FinetuneState,
    avatar_of,
    make_finetune_chunk,
    start_finetune,
    steps_of,
)
from th_jax.training.finetune_person import CHUNK_STEPS, FinetuneMetrics, default_losses, fit_shots
from th_jax.training.optimizers import Optimizers
from th_jax.types import Avatar, MetaWeights, Shots

Observer = Callable[[str, Avatar, FinetuneMetrics], bool]
"""Called between chunks for each person of the round with the avatar as it is now, on the first device, and the metrics of all
its steps so far; True ends this person's fine-tuning."""


_RoundMetrics = dict[str, Float[np.ndarray, "places _"]]


class FinishedPerson(NamedTuple):
    """A person whose round is over. Arrays are on the host."""

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
    mesh: Mesh | None = None,
    at_once: int = 1,
    width: int = 1,
    chunk_steps: int = CHUNK_STEPS,
    observe: Observer | None = None,
    key: PRNGKeyArray | None = None,
) -> Iterator[FinishedPerson]:
    """Fine-tune people as they come, and give each back when its round is over: the avatars of `make_finetune`.

    A round begins when enough people have come with the same number of padded shots (1, 8 or 32) and of landmarks (68, or 70
    with pupils); the last ones may leave places empty.

    Args:
        networks, weights, perceptual: of the meta weights.
        people: name and shots, read lazily.
        epochs, loss_weights, optimizers, adversary, chunk_steps, key: as in `make_finetune`.
        mesh: by default all devices of this host: hosts share nothing, each has people of its own.
        at_once: people of one device in a round.
        width: of these, how many are computed side by side by vmap; 1 is one after the other, which is faster on a CPU.
        observe: looks at everybody between chunks, and may end anyone.

    Raises:
        ValueError: for settings that fit no round, or shots that fit no fine-tuning.
    """
    mesh = mesh or make_mesh(devices=jax.local_devices())
    if at_once < 1 or not 1 <= width <= at_once or at_once % width:
        raise ValueError(f"at_once must be at least 1 and a multiple of width, but they are {at_once} and {width}")
    losses = loss_weights or default_losses(perceptual)
    settings = optimizers or Optimizers()
    one_chunk = make_finetune_chunk(networks, losses, settings, steps=chunk_steps, adversary=adversary)
    start, chunk = _programs(networks, one_chunk, settings, mesh, width)
    places = mesh.devices.size * at_once
    waiting: dict[tuple[int, int], list[tuple[str, Shots]]] = {}  # by padded shots and landmarks: those can be stacked
    first_key = key if key is not None else jax.random.key(0)

    def at(states: FinetuneState, place: int) -> Avatar:
        avatar: Avatar = jax.tree.map(lambda leaf: _row(leaf, place), avatar_of(states))
        return jax.device_put(avatar, mesh.devices.flat[0])

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


def _row(leaf: jax.Array, place: int) -> jax.Array:
    """A person's part of an array, from the device that has it: `leaf[place]` would make all devices wait for each other."""
    for shard in leaf.addressable_shards:
        first = shard.index[0].start or 0
        if first <= place < first + len(shard.data):
            row: jax.Array = shard.data[place - first]
            return row
    raise AssertionError(f"place {place} of {leaf.shape[0]} is on no device of this host")


def _programs(
    networks: Networks, one_chunk: FinetuneChunk, optimizers: Optimizers, mesh: Mesh, width: int
) -> tuple[Callable[..., FinetuneState], Callable[..., Any]]:
    """The start and the chunk of a round: people are split over devices, and mapped over one after the other on each."""
    people, whole = PartitionSpec(DATA_AXIS), PartitionSpec()

    def start(weights: MetaWeights, shots: Shots, key: PRNGKeyArray) -> FinetuneState:
        def one(person: Shots) -> FinetuneState:
            return start_finetune(networks, weights, person, optimizers=optimizers, key=key)

        return jax.lax.map(one, shots)

    def chunk(states: FinetuneState, perceptual: PerceptualWeights, shots: Shots, ends: jax.Array) -> Any:
        def one(person: tuple[FinetuneState, Shots, jax.Array]) -> Any:
            state, own, end = person
            return one_chunk(state, perceptual, own, end)

        return jax.lax.map(one, (states, shots, ends), batch_size=width if width > 1 else None)

    started = jax.shard_map(start, mesh=mesh, in_specs=(whole, people, whole), out_specs=people, check_vma=False)
    chunked = jax.shard_map(
        chunk, mesh=mesh, in_specs=(people, whole, people, people), out_specs=people, check_vma=False
    )
    return jax.jit(started), jax.jit(chunked, donate_argnums=0)
