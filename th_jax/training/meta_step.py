"""One step of meta-learning: one generator pass for both players, D's updates, then E, G and P (paper, section 3.2).

The step is a pure function of (state, batch). On several devices, each of them applies it to its own episodes and its own
rows of W, and what they exchange is written out: the sums of gradients and of metrics, and the visited rows of W with their
gradients. No image or activation leaves its device.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.models.spectral import power_iterate
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.objectives import (
    Synthesis,
    Targets,
    discriminator_objective,
    draw_sources,
    draw_targets,
    generator_terms,
    precompute_targets,
    synthesize,
)
from th_jax.training.optimizers import DISCRIMINATOR, SYNTHESIS, AdversarySchedule, Optimizers
from th_jax.training.state import (
    TrainState,
    VideoTable,
    descend_video_table,
    identity_rows,
    restored_unless,
    rows_of_batch,
    update_video_table,
)
from th_jax.types import EpisodeBatch, MetaWeights, NetworkState


def sliced(batch: Any, slices: int) -> Any:
    """Reshape every leaf [B, …] to [slices, B / slices, …]; slice s holds the episodes s, s + slices, ….

    Slices are strided rather than contiguous, so that each device of a sharded batch keeps its own episodes in every slice.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // slices, slices, *x.shape[1:]), 1, 0), batch)


def joined(batch: Any) -> Any:
    """Invert `sliced`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), batch)


def accumulate(function: Callable[..., tuple[Any, Any]], batch: Any, *, slices: int) -> tuple[Any, Any]:
    """Apply `function` to all slices of a batch.

    Args:
        function: maps one slice of `batch` to a pair: a tree of means over its episodes, which are averaged over the slices,
            and a tree of leaves with one entry per episode, which are joined again.
        batch: a tree of leaves [B, …].
        slices: number of slices, a divisor of B; 1 calls the function on the whole batch, without a loop.

    Returns:
        The averaged means and the joined leaves.
    """
    if slices == 1:
        return function(batch)
    parts = sliced(batch, slices)
    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        means, episodes = function(part)
        return jax.tree.map(lambda a, b: a + b / slices, total, means), episodes

    means, episodes = jax.lax.scan(add, zeros, parts)
    return means, joined(episodes)


Metrics = dict[str, Float[Array, ""]]

TrainStep = Callable[[TrainState, PerceptualWeights, EpisodeBatch], tuple[TrainState, Metrics]]

BOTH = (SYNTHESIS, DISCRIMINATOR)


def batch_parts(
    *, discriminator_updates: int = 2, discriminator_episodes: str = "same", grad_accumulation_steps: int = 1, **_: Any
) -> int:
    """Return the number of equal parts into which a step with these settings divides the batch of each device."""
    return grad_accumulation_steps * (discriminator_updates if discriminator_episodes == "different" else 1)


def make_meta_train_step(
    networks: Networks,
    optimizers: Optimizers,
    loss_weights: LossWeights,
    *,
    players: Collection[str] = BOTH,
    schedule: AdversarySchedule | None = None,
    discriminator_updates: int = 2,
    discriminator_episodes: str = "same",
    grad_accumulation_steps: int = 1,
    remat_perceptual: bool = False,
    axis_name: str | None = None,
) -> TrainStep:
    """Build the step as a pure function, not yet jitted; `th_jax.training.sharding.compile_step` binds it to devices.

    Args:
        networks: E, P, G and D.
        optimizers: optimizers of both players.
        loss_weights: weights of the generator's terms; `matching` also applies to W's side of the matching loss.
        players: the players that train: "synthesis" (E, P, G), "discriminator" (D, W), or both.
        schedule: the adversary's weight by step; by default always 1.
        discriminator_updates: updates of D per step; 2 in the paper.
        discriminator_episodes: "same": each update of D sees the whole batch, so that one forward pass of E and G serves all
            of them and rows of W get as many updates; "different": each update sees its own part of the batch.
        grad_accumulation_steps: number of slices in which the batch is processed, one after another, with accumulated
            gradients; the update is the same up to rounding.
        remat_perceptual: recompute the frozen networks' activations on x̂ in the backward pass instead of storing them.
        axis_name: inside `shard_map`, the mesh axis over which the batch and the rows of W are divided; all else in the state
            is the same on every device, and so are the metrics. None if the step has the whole batch and the whole table.

    Raises:
        ValueError: if the settings are invalid; the step raises it when traced if the batch does not divide by them.
    """
    unknown = sorted(set(players) - set(BOTH))
    if unknown or not players:
        raise ValueError(f"players must be among {', '.join(BOTH)} and not empty, but are {sorted(players)}")
    if discriminator_episodes not in ("same", "different"):
        raise ValueError(f'discriminator_episodes must be "same" or "different", but is {discriminator_episodes!r}')
    slices = grad_accumulation_steps
    if discriminator_updates < 1 or slices < 1:
        raise ValueError(
            f"discriminator_updates ({discriminator_updates}) and grad_accumulation_steps ({slices}) must be at least 1"
        )
    parts = batch_parts(discriminator_updates=discriminator_updates, discriminator_episodes=discriminator_episodes)
    schedule = schedule or AdversarySchedule()

    def step(state: TrainState, perceptual: PerceptualWeights, batch: EpisodeBatch) -> tuple[TrainState, Metrics]:
        episodes = batch.video_index.shape[0]
        if episodes % (slices * parts):
            where = "" if axis_name is None else " on each device"
            raise ValueError(
                f"a batch of {episodes} episodes{where} does not divide into {slices} slices and {parts} parts for D: "
                "change batch_size, grad_accumulation_steps or discriminator_episodes"
            )
        metrics: Metrics = {}
        stats = state.weights.synthesis.spectral_stats
        index = of_all_devices(jnp.asarray(batch.video_index), axis_name)
        before = rows_of_batch(state.table, index, axis_name=axis_name)
        targets = draw_targets(networks, batch, landmark_box=loss_weights.landmark_box, eyes=loss_weights.eyes)

        def forward(params: Any, part: EpisodeBatch, targets: Targets) -> Synthesis:
            # Drawn slice by slice, because the sources of a whole batch need K times the memory of its targets.
            return synthesize(networks, NetworkState(params, stats), draw_sources(networks, part), targets.landmarks)

        if slices == 1:
            synthesis, pull = jax.vjp(lambda params: forward(params, batch, targets), state.weights.synthesis.params)
        else:
            _, synthesis = accumulate(
                lambda part: ((), forward(state.weights.synthesis.params, *part)), (batch, targets), slices=slices
            )
        synthesis = jax.lax.stop_gradient(synthesis)
        means = _embedding_health(synthesis)
        metrics["dead/embedding"] = _dead_channels(synthesis, axis_name)

        new = state
        if DISCRIMINATOR in players:
            for update in range(discriminator_updates):
                seen = (index, targets, synthesis)
                if parts > 1:
                    seen = jax.tree.map(lambda x, part=update: x[part], sliced(seen, parts))
                new, means_of_update, norms = _update_discriminator(
                    networks, optimizers, loss_weights, new, *seen, slices=slices, axis_name=axis_name
                )
                means |= means_of_update
                metrics |= norms

        if SYNTHESIS in players:
            adversary = schedule.adversary(state.step) if DISCRIMINATOR in players else None
            rows = identity_rows(new.table, index, axis_name=axis_name)

            def objective(targets: Targets, synthesis: Synthesis, rows: Array) -> tuple[Metrics, Synthesis]:
                discriminator = None if adversary is None else new.weights.discriminator
                precomputed = precompute_targets(
                    networks, discriminator, rows, perceptual, targets=targets, loss_weights=loss_weights
                )

                def total(moving: Synthesis) -> tuple[Array, Metrics]:
                    weighted, plain = generator_terms(
                        networks,
                        moving,
                        precomputed,
                        targets=targets,
                        loss_weights=loss_weights,
                        adversary=adversary,
                        remat_perceptual=remat_perceptual,
                    )
                    return sum(weighted.values(), jnp.float32(0)), plain

                (loss, plain), cotangent = jax.value_and_grad(total, has_aux=True)(synthesis)
                return {"loss/generator": loss, **{f"loss/{name}": value for name, value in plain.items()}}, cotangent

            if slices == 1:
                losses, cotangent = objective(targets, synthesis, rows)
                (gradients,) = pull(cotangent)
            else:

                def through(part: tuple[EpisodeBatch, Targets, Synthesis, Array]) -> tuple[Any, tuple[()]]:
                    episodes, targets, synthesis, rows = part
                    losses, cotangent = objective(targets, synthesis, rows)
                    _, pull = jax.vjp(lambda params: forward(params, episodes, targets), state.weights.synthesis.params)
                    return (losses, pull(cotangent)[0]), ()

                (losses, gradients), _ = accumulate(through, (batch, targets, synthesis, rows), slices=slices)
            new, norm = _update_synthesis(optimizers, new, _mean_over_devices(gradients, axis_name))
            means |= losses
            metrics["grad_norm/synthesis"] = norm
            metrics["rate/synthesis"] = optimizers.synthesis.rate(state.step)
            if adversary is not None:
                metrics["rate/adversary"] = adversary

        metrics |= _mean_metrics(means, axis_name)
        # The barrier keeps XLA from repeating the whole test in the selection of every parameter.
        finite = jax.lax.optimization_barrier(jnp.all(jnp.isfinite(jnp.stack(list(metrics.values())))))
        return count(keep_if(finite, new, state, before, index, axis_name), state, finite), metrics

    return step


def of_all_devices(x: Array, axis_name: str | None) -> Array:
    """Return the rows of all devices, in order."""
    if axis_name is None:
        return x
    everyone: Array = jax.lax.all_gather(x, axis_name, tiled=True)
    return everyone


def _mean_over_devices(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _mean_metrics(metrics: Metrics, axis_name: str | None) -> Metrics:
    """Average metrics over devices by one reduction of all of them."""
    if axis_name is None:
        return metrics
    return dict(zip(metrics, jax.lax.pmean(jnp.stack(list(metrics.values())), axis_name), strict=True))


def _update_discriminator(
    networks: Networks,
    optimizers: Optimizers,
    loss_weights: LossWeights,
    state: TrainState,
    index: Int[Array, " B"],
    targets: Targets,
    synthesis: Synthesis,
    *,
    slices: int,
    axis_name: str | None,
) -> tuple[TrainState, Metrics, Metrics]:
    """Return the new state, metrics that are means over the batch, and those that are the same on every device."""
    discriminator = state.weights.discriminator
    rows = identity_rows(state.table, index, axis_name=axis_name)

    def gradients(part: tuple[Targets, Synthesis, Array]) -> tuple[Any, Array]:
        targets_, synthesis_, rows_ = part

        def loss(params: Any, moving_rows: Array) -> tuple[Array, Metrics]:
            return discriminator_objective(
                networks,
                params,
                discriminator.spectral_stats,
                moving_rows,
                synthesis=synthesis_,
                targets=targets_,
                matching=loss_weights.matching,
            )

        (_, parts), (of_params, of_rows) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            discriminator.params, rows_
        )
        return (parts, of_params), of_rows / slices  # each slice's loss is a mean over its own episodes

    (means, of_params), of_rows = accumulate(gradients, (targets, synthesis, rows), slices=slices)
    of_params = _mean_over_devices(of_params, axis_name)
    of_rows = of_all_devices(of_rows * (len(of_rows) / len(index)), axis_name)  # gradient of a mean over all devices
    adam = optimizers.discriminator
    changes, moments = adam.optimizer().update(of_params, state.discriminator_moments, discriminator.params)
    params = optax.apply_updates(discriminator.params, changes)
    stats = power_iterate(params, discriminator.spectral_stats)
    rate = adam.rate(state.discriminator_updates)
    updates = state.discriminator_updates + 1
    if adam.kind == "sgd":
        table = descend_video_table(state.table, index, of_rows, learning_rate=rate, axis_name=axis_name)
    else:
        table = update_video_table(
            state.table,
            index,
            of_rows,
            update=updates,
            learning_rate=rate,
            beta2=adam.beta2,
            eps=adam.eps,
            axis_name=axis_name,
        )
    means |= {"norm/row": jnp.mean(jnp.linalg.norm(rows, axis=-1))}
    norms = {
        "grad_norm/discriminator": optax.tree.norm(of_params),
        "grad_norm/rows": optax.tree.norm(of_rows),
        "rate/discriminator": rate,
    }
    new = state._replace(
        weights=MetaWeights(state.weights.synthesis, NetworkState(params, stats)),
        discriminator_moments=moments,
        discriminator_updates=updates,
        table=table,
    )
    return new, means, norms


def _update_synthesis(optimizers: Optimizers, state: TrainState, gradients: Any) -> tuple[TrainState, Array]:
    synthesis = state.weights.synthesis
    changes, moments = optimizers.synthesis.optimizer().update(gradients, state.synthesis_moments, synthesis.params)
    params = optax.apply_updates(synthesis.params, optimizers.synthesis_changes(changes))
    stats = power_iterate(params, synthesis.spectral_stats)
    decay = optimizers.averaging_decay(state.step)
    averaged = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, state.averaged.params, params)
    new = state._replace(
        weights=MetaWeights(NetworkState(params, stats), state.weights.discriminator),
        averaged=NetworkState(averaged, state.averaged.spectral_stats),
        synthesis_moments=moments,
    )
    return new, optax.tree.norm(gradients)


def keep_if(
    passed: Bool[Array, ""], new: Any, old: Any, rows: VideoTable, index: Int[Array, " B"], axis_name: str | None
) -> Any:
    """Return the new state if it passed, otherwise the old one bit for bit.

    Only the batch's rows of the video table are examined.

    Args:
        passed: whether the new state is kept.
        new: state after the step.
        old: state before it.
        rows: entries of `old` for the rows that the batch visits.
        index: the batch's videos, of all devices.
        axis_name: as in `make_meta_train_step`.
    """
    table = restored_unless(passed, new.table, rows, index, axis_name=axis_name)
    nothing = VideoTable(*(jnp.zeros(()) for _ in table))
    kept = jax.tree.map(lambda a, b: jnp.where(passed, a, b), new._replace(table=nothing), old._replace(table=nothing))
    return kept._replace(table=table)


def count(state: Any, old: Any, passed: Bool[Array, ""]) -> Any:
    """Return a state whose counters are those of `old` after one more step, which passed or was skipped."""
    missed = jnp.where(passed, 0, 1).astype(jnp.int32)
    return state._replace(
        step=old.step + 1, skipped=old.skipped + missed, skipped_in_a_row=(old.skipped_in_a_row + 1) * missed
    )


def _embedding_health(synthesis: Synthesis) -> Metrics:
    return {"norm/embedding": jnp.mean(jnp.linalg.norm(synthesis.embedding, axis=-1))}


def _dead_channels(synthesis: Synthesis, axis_name: str | None) -> Float[Array, ""]:
    """Return the share of the embedding's channels that are 0 in every episode of all devices."""
    dead = jnp.all(synthesis.embedding == 0, axis=0).astype(jnp.float32)
    return jnp.mean(dead if axis_name is None else jax.lax.pmin(dead, axis_name))
