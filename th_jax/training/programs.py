"""The compiled programs of a meta-learning run: its step for each set of players, its health, and W's settling."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from th_jax.losses import LossWeights
from th_jax.models.networks import Networks
from th_jax.perceptual.weights import PerceptualWeights
from th_jax.sharding import BATCH_SPEC, compile_step, put_state, state_layout
from th_jax.training.health import make_health
from th_jax.training.meta_step import Metrics, make_meta_train_step
from th_jax.training.optimizers import Optimizers
from th_jax.training.schedule import DISCRIMINATOR, AdversarySchedule
from th_jax.training.settle import make_embed_batch, settle, settle_rows
from th_jax.training.state import TrainState, init_table, refreshed, start_from, state_shapes
from th_jax.training.video_table import VideoTable
from th_jax.types import EpisodeBatch, MetaWeights, NetworkState


class MetaPrograms:
    """Pure functions bound to a mesh; each is compiled at its first use, once."""

    def __init__(
        self,
        networks: Networks,
        optimizers: Optimizers,
        loss_weights: LossWeights,
        mesh: Mesh,
        *,
        videos: int,
        schedule: AdversarySchedule | None = None,
        step: Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing is compiled yet.

        Args:
            networks, optimizers, loss_weights: of the run.
            mesh: of `th_jax.sharding.make_mesh`.
            videos: number of training videos: rows of W before padding.
            schedule: when the adversary joins.
            step: further settings of `make_meta_train_step`.

        Raises:
            ValueError: for settings that fit no step, or a layout that does not divide.
        """
        self.mesh = mesh
        self.schedule = schedule or AdversarySchedule()
        self.shapes = state_shapes(networks, optimizers, videos=videos)
        self.layout: TrainState = state_layout(mesh, self.shapes)
        self.networks = networks
        self._optimizers, self._loss_weights, self._videos = optimizers, loss_weights, videos
        self._step_settings = dict(step or {})
        self._traceable_step(self.schedule.players(0))  # settings that fit no step are refused now

    def begin(self, seed: int) -> TrainState:
        """The state before the first step, born where the layout wants it."""
        networks_key, _ = jax.random.split(jax.random.key(seed))
        return self.begin_from(self.networks.init(networks_key), self.fresh_table(seed))

    def fresh_table(self, seed: int) -> VideoTable:
        """W at its start, each device drawing its own rows."""
        _, table_key = jax.random.split(jax.random.key(seed))
        make_table = functools.partial(init_table, self.networks, videos=self._videos)
        table: VideoTable = jax.jit(make_table, out_shardings=self.layout.table)(table_key)
        return table

    def begin_from(self, weights: MetaWeights, table: VideoTable) -> TrainState:
        """The state of a run that goes on from given weights with fresh moments."""
        placed = put_state(weights, self.layout.weights)
        start = functools.partial(start_from, self._optimizers)
        return jax.jit(start, out_shardings=self.layout)(placed, put_state(table, self.layout.table))

    def step_at(self, step: int) -> Callable[[TrainState, PerceptualWeights, EpisodeBatch], tuple[TrainState, Metrics]]:
        """The program of a step: (state, perceptual, batch) -> (state, metrics). The old state is given away."""
        return self._compiled_step(self.schedule.players(step))

    def health_at(self, step: int) -> Callable[[TrainState, PerceptualWeights, EpisodeBatch], Metrics]:
        """The program that looks at a state before a step: (state, perceptual, batch) -> metrics."""
        return self._compiled_health(DISCRIMINATOR in self.schedule.players(step))

    def settle(self, state: TrainState, batches: Iterable[EpisodeBatch], *, keep_shared: bool = False) -> TrainState:
        """W set to the mean embeddings of its videos; `batches` visit every video once."""
        data = NamedSharding(self.mesh, BATCH_SPEC)
        whole = NamedSharding(self.mesh, PartitionSpec())
        embed = jax.jit(
            make_embed_batch(self.networks),
            in_shardings=(self.layout.weights.synthesis, data),
            out_shardings=whole,
        )
        set_rows = jax.jit(
            settle_rows,
            in_shardings=(self.layout.table, whole, whole),
            out_shardings=self.layout.table,
            donate_argnums=0,
        )
        return settle(state, batches, embed=embed, set_rows=set_rows, keep_shared=keep_shared)

    def averaged(self, state: TrainState) -> NetworkState:
        """Averaged E, P and G with u and v of their own, whole on every device: what is evaluated and released."""
        return self._refreshed(state.averaged)

    def lowered_step(self, step: int, perceptual: Any, batch: Any) -> Any:
        """The step's program, lowered and not compiled: for its arithmetic and its text."""
        return self._compiled_step(self.schedule.players(step)).lower(self.shapes, perceptual, batch)  # type: ignore[attr-defined]

    def _traceable_step(self, players: tuple[str, ...]) -> Callable[..., Any]:
        return make_meta_train_step(
            self.networks,
            self._optimizers,
            self._loss_weights,
            players=players,
            schedule=self.schedule,
            **self._step_settings,
        )

    @functools.cached_property
    def _refreshed(self) -> Callable[[NetworkState], NetworkState]:
        return jax.jit(refreshed, out_shardings=NamedSharding(self.mesh, PartitionSpec()))

    @functools.cache  # noqa: B019 - a run has one such object, as long as it lives
    def _compiled_step(self, players: tuple[str, ...]) -> Callable[..., Any]:
        return compile_step(self._traceable_step(players), self.mesh, self.layout)

    @functools.cache  # noqa: B019
    def _compiled_health(self, adversary: bool) -> Callable[..., Any]:
        health = make_health(self.networks, self._loss_weights, adversary=adversary, schedule=self.schedule)
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(
            health, in_shardings=(self.layout, whole, NamedSharding(self.mesh, BATCH_SPEC)), out_shardings=whole
        )
