"""Compiled programs of a meta-learning run: its step for each set of players, its diagnostics, and the reset of W."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from th_jax.losses import LossWeights, loss_preset
from th_jax.models.networks import Networks
from th_jax.perceptual.frozen import PerceptualWeights
from th_jax.training.guard import GuardSettings, judge
from th_jax.training.health import make_health
from th_jax.training.meta_step import Metrics, batch_parts, count, keep_if, make_meta_train_step, of_all_devices
from th_jax.training.optimizers import DISCRIMINATOR, SYNTHESIS, AdversarySchedule, Optimizers
from th_jax.training.sharding import BATCH_SPEC, AnyMesh, compile_step, make_mesh, put_state, state_layout, step_axis
from th_jax.training.state import (
    TrainState,
    VideoTable,
    init_table,
    make_embed_batch,
    refreshed,
    reset_table_to_embeddings,
    rows_of_batch,
    set_rows_to_embeddings,
    start_from,
    state_shapes,
)
from th_jax.types import EpisodeBatch, MetaWeights, NetworkState


class MetaPrograms:
    """Pure functions bound to a mesh, each compiled once at its first use."""

    def __init__(
        self,
        networks: Networks,
        optimizers: Optimizers,
        loss_weights: LossWeights,
        mesh: AnyMesh,
        *,
        videos: int,
        schedule: AdversarySchedule | None = None,
        step: Mapping[str, Any] | None = None,
        guard: GuardSettings | None = None,
    ) -> None:
        """Prepare the programs without compiling them.

        Args:
            networks: the four networks.
            optimizers: optimizers of both players.
            loss_weights: weights of the loss terms.
            mesh: mesh from `th_jax.training.sharding.make_mesh`, or an abstract one, for which programs can only be lowered.
            videos: number of training videos, the rows of W before padding.
            schedule: stages of the run; by default both players train from the first step.
            step: further settings of `make_meta_train_step`.
            guard: settings of the guard against single bad steps; by default without a guard.

        Raises:
            ValueError: if the step settings are invalid, or the state does not divide over the devices.
        """
        self.mesh: Any = mesh
        self.schedule = schedule or AdversarySchedule()
        self.shapes = state_shapes(networks, optimizers, videos=videos)
        self.layout: TrainState = state_layout(mesh, self.shapes)
        self.networks = networks
        self.loss_weights = loss_weights
        self._optimizers, self._videos = optimizers, videos
        self._step_settings = dict(step or {})
        self._guard = (guard or GuardSettings(sigma=0)).checked()
        self._traceable_step(self.schedule.players(0))  # raises for invalid step settings now

    @classmethod
    def from_settings(cls, config: Mapping[str, Any], *, videos: int) -> "MetaPrograms":
        """Build the programs of a config of meta-learning, on all devices.

        Args:
            config: settings as configs/defaults.py lists them.
            videos: number of training videos.

        Raises:
            ValueError: if a setting is invalid, or the batch does not divide over the devices.
        """
        optimizers = Optimizers.from_settings(config["optimizers"])
        programs = cls(
            Networks.from_settings(config["networks"]),
            optimizers.for_batch(config["episodes"]["batch_size"], rule=config["batch_rule"]),
            loss_preset(**config["losses"]),
            make_mesh(),
            videos=videos,
            schedule=AdversarySchedule.from_settings(config["adversary"]),
            step=config["step"],
            guard=GuardSettings(**config.get("guard", {"sigma": 0})),
        )
        programs.check_batch(config["episodes"]["batch_size"])
        return programs

    def check_batch(self, episodes: int) -> None:
        """Check that a global batch divides over the devices, and on each device into the parts that a step works on.

        Raises:
            ValueError: if it does not.
        """
        devices, parts = self.mesh.size, batch_parts(**self._step_settings)
        if episodes % (devices * parts):
            divisors = f"{devices} devices" + (f" x {parts} slices and parts for D" if parts > 1 else "")
            raise ValueError(
                f"a batch of {episodes} episodes does not divide over {divisors}: "
                f"choose a batch_size that is a multiple of {devices * parts}"
            )

    def begin(self, seed: int) -> TrainState:
        """Create the initial state with fresh weights, directly in its layout."""
        networks_key, _ = jax.random.split(jax.random.key(seed))
        return self.begin_from(self.networks.init(networks_key), self.fresh_table(seed))

    def fresh_table(self, seed: int) -> VideoTable:
        """Create the initial video table W; each device draws its own rows."""
        _, table_key = jax.random.split(jax.random.key(seed))
        make_table = functools.partial(init_table, self.networks, videos=self._videos)
        table: VideoTable = jax.jit(make_table, out_shardings=self.layout.table)(table_key)
        return table

    def begin_from(self, weights: MetaWeights, table: VideoTable) -> TrainState:
        """Create the initial state of a run that starts from given weights, with fresh moments."""
        placed = put_state(weights, self.layout.weights)
        start = functools.partial(start_from, self._optimizers)
        return jax.jit(start, out_shardings=self.layout)(placed, put_state(table, self.layout.table))

    def step_at(self, step: int) -> Callable[[TrainState, PerceptualWeights, EpisodeBatch], tuple[TrainState, Metrics]]:
        """Return the program of a step: (state, perceptual, batch) -> (state, metrics). The old state is donated."""
        return self._compiled_step(self.schedule.players(step))

    def health_at(self, step: int) -> Callable[[TrainState, PerceptualWeights, EpisodeBatch], Metrics]:
        """Return the diagnostics of a state before a step: (state, perceptual, batch) -> metrics."""
        return self._compiled_health(DISCRIMINATOR in self.schedule.players(step))

    def reset_table_to_embeddings(
        self, state: TrainState, batches: Iterable[EpisodeBatch], *, keep_shared: bool = False
    ) -> TrainState:
        """Set W to the mean embeddings of its videos.

        Args:
            state: state after the content stage.
            batches: batches that visit every video once.
            keep_shared: leave w0 unchanged.
        """
        data = NamedSharding(self.mesh, BATCH_SPEC)
        whole = NamedSharding(self.mesh, PartitionSpec())
        embed = jax.jit(
            make_embed_batch(self.networks),
            in_shardings=(self.layout.weights.synthesis, data),
            out_shardings=whole,
        )
        set_rows = jax.jit(
            set_rows_to_embeddings,
            in_shardings=(self.layout.table, data, whole),
            out_shardings=self.layout.table,
            donate_argnums=0,
        )
        return reset_table_to_embeddings(state, batches, embed=embed, set_rows=set_rows, keep_shared=keep_shared)

    def averaged(self, state: TrainState) -> NetworkState:
        """Return the averaged E, P and G with their own u and v, replicated on every device, for evaluation and release."""
        return self._refreshed(state.averaged)

    def lowered_step(self, step: int, perceptual: Any, batch: Any) -> Any:
        """Lower the program of a step without compiling it, to inspect its cost and its text.

        Raises:
            ValueError: if the batch does not divide over the devices.
        """
        self.check_batch(batch.video_index.shape[0])
        return self._compiled_step(self.schedule.players(step)).lower(self.shapes, perceptual, batch)  # type: ignore[attr-defined]

    def _traceable_step(self, players: tuple[str, ...]) -> Callable[..., Any]:
        step = make_meta_train_step(
            self.networks,
            self._optimizers,
            self.loss_weights,
            players=players,
            schedule=self.schedule,
            axis_name=step_axis(self.mesh),
            **self._step_settings,
        )
        return guarded(step, self._guard, players=players, axis_name=step_axis(self.mesh))

    @functools.cached_property
    def _refreshed(self) -> Callable[[NetworkState], NetworkState]:
        return jax.jit(refreshed, out_shardings=NamedSharding(self.mesh, PartitionSpec()))

    @functools.cache  # noqa: B019 - a run has one such object for its whole lifetime
    def _compiled_step(self, players: tuple[str, ...]) -> Callable[..., Any]:
        return compile_step(self._traceable_step(players), self.mesh, self.layout)

    @functools.cache  # noqa: B019
    def _compiled_health(self, adversary: bool) -> Callable[..., Any]:
        health = make_health(self.networks, self.loss_weights, adversary=adversary, schedule=self.schedule)
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(
            health, in_shardings=(self.layout, whole, NamedSharding(self.mesh, BATCH_SPEC)), out_shardings=whole
        )


def guarded(
    step: Callable[..., Any], settings: GuardSettings, *, players: Collection[str], axis_name: str | None = None
) -> Callable[..., Any]:
    """Wrap a step so that an outlier changes only counters and statistics.

    Args:
        step: pure function (state, perceptual, batch) -> (state, metrics), which skips non-finite steps itself.
        settings: of the guard.
        players: who trains.
        axis_name: as in `make_meta_train_step`.
    """
    if not settings.sigma:
        return step
    stage = (SYNTHESIS in players) + 2 * (DISCRIMINATOR in players)

    def guarded_step(state: Any, perceptual: Any, batch: Any) -> tuple[Any, Metrics]:
        index = of_all_devices(jnp.asarray(batch.video_index), axis_name)
        before = rows_of_batch(state.table, index, axis_name=axis_name)
        new, metrics = step(state, perceptual, batch)
        passed, above, statistics = judge(state.guard, metrics, settings, stage=stage)
        passed = jax.lax.optimization_barrier(passed)
        kept = keep_if(passed, new, state, before, index, axis_name)._replace(guard=statistics)
        finite = new.skipped_in_a_row == 0
        return count(kept, state, passed & finite), metrics | {"guard/deviation": above}

    return guarded_step
