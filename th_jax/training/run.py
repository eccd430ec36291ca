"""Life cycle of a meta-learning run besides its steps: start, resume, reset of W, timing, and stopping for replay."""

import dataclasses
import math
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from th_jax.data import Episodes, VideoRecords
from th_jax.data.records import data_folder
from th_jax.data.video_list import load_video_list
from th_jax.models.grow import grow
from th_jax.perceptual.frozen import load_perceptual
from th_jax.storage.checkpoints import CheckpointError, Checkpoints, check_video_list
from th_jax.storage.files import whole_file
from th_jax.training.programs import MetaPrograms
from th_jax.training.run_log import RunLog
from th_jax.training.sharding import put_batch, with_layout
from th_jax.training.state import TrainState
from th_jax.training.views import with_loss_networks
from th_jax.types import EpisodeBatch
from th_jax.weights import MetaModel, load_meta


def save_batch(path: Path, batch: EpisodeBatch) -> Path:
    """Write a batch as an npz file atomically; the matching state is in the run's newest checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in batch._asdict().items()}
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)
    return path


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


class RunStart(NamedTuple):
    """State and step at which a run begins or resumes."""

    state: TrainState
    step: int
    damaged: Mapping[int, str] = {}
    """Later steps whose checkpoint is damaged, each with a description of the damage; these checkpoints were moved aside."""

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
        state, description, damaged = checkpoints.resume(shapes, check=lambda of: check_video_list(of, video_list))
        return RunStart(state, int(description["step"]), damaged)
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


def stop_for_replay(
    workdir: str,
    checkpoints: Checkpoints,
    state: TrainState,
    batch: EpisodeBatch,
    *,
    step: int,
    description: Mapping[str, Any],
) -> None:
    """Save the state together with the batch that caused a non-finite step, then stop.

    Args:
        workdir: the run's folder.
        checkpoints: checkpoints of this run.
        state: the state, which the last steps left unchanged.
        batch: the batch of the last step, on the host.
        step: number of the step to save.
        description: JSON values to save with the state.

    Raises:
        CheckpointError: always; the message states how many steps were skipped and how to inspect the last one.
    """
    checkpoints.save(step, state, description=description, force=True)
    checkpoints.wait()
    path = save_batch(Path(workdir) / "replay" / f"{step:06d}.npz", batch)
    raise CheckpointError(
        f"the last {int(state.skipped_in_a_row)} steps in a row had a loss or a gradient that is not finite, and changed "
        f"nothing. The state is saved as step {step}, its batch in {path}: the same command with --replay {path} shows "
        "which numbers are not finite"
    )


def replay_lines(config: Mapping[str, Any], workdir: str, batch: Path) -> Iterator[str]:
    """Repeat the step of a run's newest checkpoint on a saved batch.

    Args:
        config: settings of the run.
        workdir: the run's folder.
        batch: path of a file that `save_batch` wrote.

    Yields:
        One line per metric, marked if it is not finite.

    Raises:
        ValueError: if the batch or the checkpoint is missing, damaged or belongs to another run.
    """
    saved = load_batch(batch)
    videos = len(load_video_list(data_folder(config["data"]["folder"])).entries(config["data"]["split"]))
    programs = MetaPrograms.from_settings(config, videos=videos)
    perceptual = with_loss_networks(load_perceptual(config["perceptual"]), programs.loss_weights)
    with Checkpoints(f"{workdir}/checkpoints", read_only=True) as checkpoints:
        state, description = checkpoints.restore(with_layout(programs.shapes, programs.layout))
    step = int(description["step"]) - 1  # the saved state precedes this step, which changed nothing
    _, metrics = programs.step_at(step)(state, perceptual, put_batch(programs.mesh, saved))
    for name, value in sorted(metrics.items()):
        yield f"{name:<32}{float(value):>14.6g}{'' if math.isfinite(float(value)) else '   <- not finite'}"


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
