"""Life cycle of a meta-learning run besides its steps: start, resume, reset of W, saving, rollback, replay, and timing."""

import dataclasses
import hashlib
import io
import json
import math
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Shaped

from th_jax.data import Episodes, VideoRecords
from th_jax.models.grow import grow
from th_jax.perceptual.frozen import load_perceptual
from th_jax.program_cache import source_digest
from th_jax.storage.checkpoints import SCORE, CheckpointError, Checkpoints, check_video_list
from th_jax.storage.files import is_remote
from th_jax.storage.run_folder import write_whole
from th_jax.training.meta_step import Metrics
from th_jax.training.programs import MetaPrograms
from th_jax.training.run_log import RunLog
from th_jax.training.sharding import put_batch, with_layout
from th_jax.training.state import TrainState
from th_jax.training.views import with_loss_networks
from th_jax.types import EpisodeBatch
from th_jax.version import __version__
from th_jax.weights import MetaModel, load_meta

_ROLLBACKS = "rollbacks"
_METRICS = "metrics"
_SLOW_SECONDS = 60.0
"""Time for which a save waits for the one before."""


def save_batch(path: str, batch: EpisodeBatch) -> None:
    """Write a batch as an npz file atomically, at a path or an address."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in batch._asdict().items()}
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def load_batch(path: Path) -> EpisodeBatch:
    """Read a batch that `save_batch` wrote.

    Raises:
        ValueError: if the file is missing, damaged or does not contain a batch.
    """
    if not path.is_file():
        raise ValueError(f"the saved batch {path} does not exist")
    reason = f"{path} is not a saved batch of this project, or it is damaged"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{reason}: it is not an npz file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return EpisodeBatch(**{name: arrays[name] for name in EpisodeBatch._fields})
    except KeyError as error:
        raise ValueError(f"{reason}: it lacks an array of {', '.join(EpisodeBatch._fields)}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # NumPy recommends unpickling
        raise ValueError(f"{reason}: its arrays cannot be read") from error


class Rollback(NamedTuple):
    """A return to an earlier state."""

    at: int
    """Step at which the run went on."""
    to: int
    """Step of the checkpoint whose state it went on with."""


class RunStart(NamedTuple):
    """State and step at which a run begins or resumes."""

    state: TrainState
    step: int
    damaged: Mapping[int, str] = {}
    """Later steps whose checkpoint is damaged, each with a description of the damage; these checkpoints were moved aside."""
    rollbacks: tuple[Rollback, ...] = ()
    """Rollbacks of the run so far."""

    def report(self, log: RunLog) -> None:
        """Report damaged checkpoints in the log and in the metrics; do nothing if all were intact."""
        if not self.damaged:
            return
        for sentence in self.damaged.values():
            log.message(f"DAMAGED: {sentence}")
        log.message(
            f"the run continues from the newest intact checkpoint, step {self.step:,}; damaged checkpoints were moved to "
            "checkpoints/damaged-..."
        )
        log.metrics(self.step, {"resumed/damaged": len(self.damaged), "resumed/newest_damaged": max(self.damaged)})


def check_hosts_agree(config: Mapping[str, Any], video_list: str) -> None:
    """Check that all processes of a run have the same settings, data and versions, before they compute together.

    Args:
        config: settings of the run; the folders of data may differ.
        video_list: digest of the list of training videos.

    Raises:
        ValueError: on every process, naming what differs, and on which processes.
    """
    if jax.process_count() == 1:
        return
    settings = {key: value for key, value in config.items() if key not in ("data", "heldout")}
    for section in ("data", "heldout"):
        settings[section] = {key: value for key, value in config[section].items() if key != "folder"}
    mine = {
        "settings": json.dumps(settings, sort_keys=True, default=str),
        "training data": video_list,
        "version of th_jax": f"{__version__} {source_digest()}",
        "version of jax": jax.__version__,
    }
    digests = np.stack([np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8) for text in mine.values()])
    if found := disagreements([*mine], np.asarray(multihost_utils.process_allgather(digests))):
        raise ValueError(f"the processes of this run do not agree: {'; '.join(found)}. Start all with the same command")


def disagreements(names: Sequence[str], digests: Shaped[np.ndarray, "P N D"]) -> list[str]:
    """Name what differs between processes.

    Args:
        names: what each digest stands for.
        digests: digests of each process.

    Returns:
        One clause for each name whose digests differ, with the processes that differ from process 0.
    """
    differ = (digests != digests[:1]).any(axis=2)
    return [
        f"the {name} of process {', '.join(map(str, np.flatnonzero(differ[:, place])))} is not that of process 0"
        for place, name in enumerate(names)
        if differ[:, place].any()
    ]


def steps_of_epochs(epochs: float, videos: int, batch_size: int) -> int:
    """Return the length of a run in steps; an epoch is one episode per video."""
    return math.ceil(epochs * videos / batch_size)


def one_epoch(episodes: Episodes, programs: MetaPrograms) -> Iterator[EpisodeBatch]:
    """Yield batches on the devices that visit every video once: the first epoch of the run.

    The last batch may repeat a few videos.
    """
    for step in range(math.ceil(episodes.episodes_per_epoch / episodes.batch_size)):
        yield put_batch(programs.mesh, episodes.batch(step))


def find_start(
    programs: MetaPrograms, folder: str, *, start_from: str, growing: bool = False, seed: int = 0
) -> tuple[bool, MetaModel | None]:
    """Determine whether a run resumes from its checkpoints, and otherwise load the released weights that it starts from.

    No folder is created.

    Args:
        programs: compiled steps of this run.
        folder: folder of the run's checkpoints.
        start_from: a released file, a run's folder, or the name of bundled weights; "" for fresh weights.
        growing: whether the released weights may be for smaller frames (`th_jax.models.grow`).
        seed: seed of the parameters that growing adds.

    Returns:
        Whether the run resumes, and the released weights; None if it resumes or starts from fresh weights.

    Raises:
        ValueError: if the released weights are missing or belong to other networks.
    """
    with Checkpoints(folder, read_only=True) as checkpoints:
        goes_on = checkpoints.latest_step() is not None
    if goes_on or not start_from:
        return goes_on, None
    meta = load_meta(start_from, only_generate=True)
    if growing:
        grown = grow(meta.networks, meta.weights, programs.networks, jax.random.key(seed))
        return False, dataclasses.replace(meta, networks=programs.networks, weights=grown.weights)
    if meta.networks != programs.networks:
        raise ValueError(
            f"{start_from} holds {meta.networks}, but this run trains {programs.networks}; "
            "start_growing=True starts larger networks from the weights of smaller ones"
        )
    return False, meta


def begin_or_resume(
    programs: MetaPrograms,
    checkpoints: Checkpoints,
    episodes: Episodes,
    *,
    seed: int,
    video_list: str,
    start: MetaModel | None = None,
) -> RunStart:
    """Return the newest intact saved state of a run, or the initial state of a new run.

    Args:
        programs: compiled steps of this run.
        checkpoints: checkpoints of this run.
        episodes: training episodes of this run; a run that starts from released weights first embeds their people.
        seed: seed of fresh weights.
        video_list: digest of the list of training videos that W's rows correspond to.
        start: released weights from `find_start` for a new run; None for fresh weights.

    Raises:
        CheckpointError: if every saved state is damaged, or the newest belongs to other networks or other videos.
    """
    if checkpoints.latest_step() is not None:
        shapes = with_layout(programs.shapes, programs.layout)
        state, description, damaged = checkpoints.resume(
            shapes, check=lambda of: check_video_list(of, video_list), added="guard/"
        )
        rollbacks = tuple(Rollback(*map(int, one)) for one in description.get(_ROLLBACKS, ()))
        return RunStart(state, int(description["step"]), damaged, rollbacks)
    if start is None:
        return RunStart(programs.begin(seed), 0)
    table = programs.fresh_table(seed)
    rows = released_rows(start, episodes.records)
    if rows is not None:
        padding = np.zeros((table.rows.shape[0] - len(rows), rows.shape[1]), np.float32)  # no episode uses the padding
        settled = table._replace(rows=jnp.asarray(np.concatenate([rows, padding])))
        return RunStart(programs.begin_from(start.weights, settled), 0)
    state = programs.begin_from(start.weights, table)
    return RunStart(programs.reset_table_to_embeddings(state, one_epoch(episodes, programs), keep_shared=True), 0)


def released_rows(meta: MetaModel, records: VideoRecords) -> Float[np.ndarray, "V N"] | None:
    """Return the released rows of W in the order of these videos.

    Returns:
        The rows in float32; None if a video has no released row, so that W must be recomputed from embeddings.
    """
    keys = [entry.row_key for entry in records.videos.entries(records.split)]
    places = {key: place for place, key in enumerate(meta.row_ids)}
    if meta.table_rows is None or not places.keys() >= set(keys):
        return None
    return meta.table_rows[[places[key] for key in keys]].astype(np.float32)


class RunSaver:
    """Saves a run, and returns it to an earlier state; failures are reported, and training continues while it can."""

    def __init__(
        self,
        workdir: str,
        programs: MetaPrograms,
        checkpoints: Checkpoints,
        log: RunLog,
        *,
        description: Mapping[str, Any],
        keep_best: str = "",
        rollbacks: Sequence[Rollback] = (),
    ) -> None:
        """Keep the parts of the run.

        Args:
            workdir: the run's folder.
            programs: compiled steps of this run.
            checkpoints: checkpoints of this run.
            log: log of this run.
            description: JSON values to save with each state; "config" and "videos" are needed to replay a step.
            keep_best: held-out number whose lowest value marks the best checkpoint; with a leading minus, whose highest.
            rollbacks: rollbacks of the run so far.
        """
        self._workdir, self._programs, self._checkpoints, self._log = workdir, programs, checkpoints, log
        self._description, self._rollbacks = dict(description), [*rollbacks]
        self._sign, self._keep_best = (-1, keep_best[1:]) if keep_best.startswith("-") else (1, keep_best)
        self._failed = 0

    def save(
        self, step: int, state: TrainState, *, scores: Mapping[str, float] | None = None, last: bool = False
    ) -> None:
        """Save a state.

        Args:
            step: number of the step that produced it.
            state: the state.
            scores: held-out numbers of this very state; None if it was not evaluated, or on other processes than the first.
            last: whether the run ends now, so that a failure must be an error.

        Raises:
            CheckpointError: if the last save fails.
        """
        description = self._description | {_ROLLBACKS: [list(one) for one in self._rollbacks]}
        score = self._score(scores)
        if math.isfinite(score):
            description[SCORE] = score
        try:
            if not self._wait(step) and not last:
                return
        except CheckpointError as error:  # of the save before
            self._report(step, error)
        try:
            self._checkpoints.save(step, state, description=description)
            if last:
                self._checkpoints.wait()
        except CheckpointError as error:
            if last:
                raise
            self._report(step, error)

    def roll_back(
        self, state: TrainState, batch: EpisodeBatch, metrics: Metrics, *, step: int, most: int
    ) -> TrainState:
        """Return to the state before a series of skipped steps, and go on with the batches after it.

        The state comes from the newest intact checkpoint before the series. If the next series comes before another good
        checkpoint, it is an older one. Batch and state of the last skipped step are kept in WORKDIR/replay.

        Args:
            state: the state after the series.
            batch: the batch of the last skipped step, on the host.
            metrics: its metrics.
            step: number of the next step.
            most: maximum number of rollbacks of a run.

        Returns:
            The earlier state, whose counters are those of `state`.

        Raises:
            CheckpointError: if there is no such checkpoint, or the run was rolled back so often already.
        """
        skipped = int(state.skipped_in_a_row)
        bundle = save_bundle(self._workdir, state, batch, metrics, step=step, description=self._description)
        what = (
            f"the last {skipped} steps in a row had a loss or gradient that is not finite or far outside of its range"
        )
        how = f"train.py --replay {bundle} repeats the last of them"
        if len(self._rollbacks) >= most:
            raise CheckpointError(
                f"{what}, after {len(self._rollbacks)} rollbacks; {how}. Lower the learning rates, or look at the data"
            )
        try:
            before, good = self._earlier(step - skipped)
        except CheckpointError as error:
            raise CheckpointError(f"{what}, and {error}; {how}") from error
        schedule = self._programs.schedule
        if any(schedule.resets_table_at(passed) for passed in range(good, step)):
            raise CheckpointError(f"{what}, in a stage that began after the last checkpoint before them; {how}")
        self._rollbacks.append(Rollback(step, good))
        self._log.message(
            f"ROLLED BACK: {what}; the run continues with the state of step {good:,} and the batch of step {step:,}; {how}"
        )
        self._log.metrics(step, {"rollback/to": good, "rollback/count": len(self._rollbacks)})
        restarted = before._replace(
            step=state.step, skipped=state.skipped, skipped_in_a_row=state.skipped_in_a_row - state.skipped_in_a_row
        )
        self.save(step, restarted)
        return restarted

    def _earlier(self, step: int) -> tuple[TrainState, int]:
        used = {number for rollback in self._rollbacks for number in rollback}
        shapes = with_layout(self._programs.shapes, self._programs.layout)
        for good in reversed([saved for saved in self._checkpoints.steps() if saved <= step and saved not in used]):
            try:
                return self._checkpoints.restore(shapes, step=good, added="guard/")[0], good
            except CheckpointError as error:
                if jax.process_count() > 1:  # the others may have been able to read it
                    raise
                self._log.message(f"DAMAGED: {error}")
        raise CheckpointError(f"there is no intact checkpoint before step {step:,} to return to")

    def _wait(self, step: int) -> bool:
        if jax.process_count() > 1:  # all of them have to do the same
            self._checkpoints.wait()
            return True
        done = self._checkpoints.wait_at_most(_SLOW_SECONDS)
        if not done:
            self._report(
                step, f"the save before is still being written after {_SLOW_SECONDS:.0f} s more: is the disk slow?"
            )
        return done

    def _report(self, step: int, reason: object) -> None:
        self._failed += 1
        self._log.message(f"NOT SAVED: {reason}; training continues, and the next save is tried as usual")
        self._log.metrics(step, {"saving/failed": self._failed})

    def _score(self, scores: Mapping[str, float] | None) -> float:
        score = math.nan if scores is None else self._sign * float(scores.get(self._keep_best, math.nan))
        if jax.process_count() > 1:
            score = float(multihost_utils.broadcast_one_to_all(np.float32(score)))
        return score


def save_bundle(
    workdir: str, state: TrainState, batch: EpisodeBatch, metrics: Metrics, *, step: int, description: Mapping[str, Any]
) -> str:
    """Keep all that a skipped step needs to be repeated without the data set: WORKDIR/replay/STEP.

    Args:
        workdir: the run's folder.
        state: the state after the step, which changed only counters and statistics.
        batch: this host's part of its batch.
        metrics: its metrics.
        step: number of the next step.
        description: JSON values with the "config" and the number of "videos".

    Returns:
        The folder.
    """
    folder = f"{workdir}/replay/{step - 1:06d}"
    numbers = {name: float(value).hex() for name, value in jax.device_get(metrics).items()}
    # The step counter belongs to what the step depends on: rates and weights follow it.
    before = state._replace(step=state.step - 1)
    save_batch(f"{folder}/{_batch_file(jax.process_index())}", batch)  # first: after a kill, a run comes here again
    with Checkpoints(f"{folder}/state", keep=1, asynchronous=False) as checkpoints:
        checkpoints.save(step - 1, before, description={**description, _METRICS: numbers})
    return folder


def replay(folder: str) -> Iterator[str]:
    """Repeat the step of a bundle that `save_bundle` wrote.

    Args:
        folder: path or address of the bundle.

    Yields:
        One line per metric, marked if it is not finite or not the recorded one to the bit; then a verdict.

    Raises:
        ValueError: if the bundle is missing or damaged.
    """
    if is_remote(folder):
        raise ValueError(f"{folder} is remote: copy it to a local folder first")
    with Checkpoints(f"{folder}/state", read_only=True) as checkpoints:
        about = checkpoints.describe()
        config, recorded = about["config"], about[_METRICS]
        jax.config.update("jax_default_matmul_precision", config["matmul_precision"])
        programs = MetaPrograms.from_settings(config, videos=about["videos"])
        state, _ = checkpoints.restore(with_layout(programs.shapes, programs.layout))
    parts = [load_batch(path) for path in sorted(Path(folder).glob(_batch_file("*")))]
    if not parts:
        raise ValueError(f"the bundle {folder} has no {_batch_file(0)}")
    batch = EpisodeBatch(*map(np.concatenate, zip(*parts, strict=True)))
    perceptual = with_loss_networks(load_perceptual(config["perceptual"]), programs.loss_weights)
    _, metrics = programs.step_at(about["step"])(state, perceptual, put_batch(programs.mesh, batch))
    differing = 0
    for name, value in sorted(jax.device_get(metrics).items()):
        number = float(value)
        same = number.hex() == recorded.get(name) or name.startswith(
            "guard/"
        )  # the statistics are those after the step
        differing += not same
        mark = "   <- not finite" * (not math.isfinite(number)) + "   <- differs" * (not same)
        yield f"{name:<32}{number:>14.6g}{mark}"
    done = f"step {about['step']:,}"
    if differing:
        yield f"{done} differs in {differing} numbers from the record: other hardware, number of devices or versions?"
    else:
        yield f"{done} is repeated to the bit"


def _batch_file(process: int | str) -> str:
    return f"batch.{process}.npz"


class StepClock:
    """Measures seconds per step, and the share of time spent waiting for data."""

    def __init__(self) -> None:
        """Start the clock."""
        self._restart()

    def _restart(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the enclosed wait for data, and count one step."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start
        self._steps += 1

    def lap(self) -> dict[str, float]:
        """Return the means since the last lap: "time/step" in seconds and "time/waiting_share"."""
        passed = max(time.perf_counter() - self._start, 1e-9)
        result = {"time/step": passed / max(self._steps, 1), "time/waiting_share": self._waited / passed}
        self._restart()
        return result
