"""What a meta-learning run does besides its steps: it begins, resumes, settles W, keeps time, and stops for replay."""

import dataclasses
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from th_jax.checkpoints import CheckpointError, Checkpoints, check_video_list
from th_jax.data import Episodes, VideoRecords
from th_jax.models.grow import grow
from th_jax.perceptual.weights import PerceptualWeights
from th_jax.pretrained import MetaModel, load_meta
from th_jax.run_log import RunLog
from th_jax.sharding import put_batch, with_layout
from th_jax.training.programs import MetaPrograms
from th_jax.training.replay import load_batch, save_batch
from th_jax.training.state import TrainState
from th_jax.types import EpisodeBatch


class Begun(NamedTuple):
    """Where a run begins or goes on."""

    state: TrainState
    step: int
    damaged: Mapping[int, str] = {}
    """Later steps whose checkpoint is damaged, and how: they were moved aside."""

    def tell(self, log: RunLog) -> None:
        """Say in the log and in the metrics that the newest checkpoint was damaged; nothing if it was not."""
        if not self.damaged:
            return
        for sentence in self.damaged.values():
            log.message(f"DAMAGED: {sentence}")
        log.message(
            f"the run goes on from the newest whole checkpoint, that of step {self.step:,}; what is damaged was moved to "
            "checkpoints/damaged-..."
        )
        log.metrics(self.step, {"resumed/damaged": len(self.damaged), "resumed/newest_damaged": max(self.damaged)})


def config_mistake(error: Exception, arguments: Sequence[str]) -> str:
    """One sentence about a config file, or a change of it, that ml_collections could not use.

    Args:
        error: what it raised: for an unknown setting only the last part of its name, for a file what it tried, on many lines.
        arguments: the command line, which has the whole name.
    """
    if isinstance(error, OSError):
        why = str(error).strip().splitlines()[-1].split("failure to load: ")[-1]
        return "the config cannot be loaded: " + re.sub(r"^\s*\[Errno \d+\] ", "", why)
    text = str(error.args[0]) if error.args else ""
    part = text.splitlines()[0].strip("'\"") if text else ""
    near = re.search(r'Did you mean ("\w+")', text)
    for change in re.findall(r"^--?(?:no)?config\.([^=\n]+)", "\n".join(arguments), re.MULTILINE):
        if isinstance(error, AttributeError | KeyError) and (part in change.split(".") or part.endswith(f": {change}")):
            hint = f" (did you mean {near[1]}?)" if near else ""
            return f"the config has no setting {change}{hint}; configs/defaults.py lists them"
    encoding = "; save it as UTF-8" if isinstance(error, SyntaxError) and "utf-8" in text.lower() else ""
    return f"the config or a change of it cannot be used: {error}{encoding}"


def steps_of_epochs(epochs: float, videos: int, batch_size: int) -> int:
    """Length of a run: an epoch is one episode a video."""
    return math.ceil(epochs * videos / batch_size)


def one_epoch(episodes: Episodes, programs: MetaPrograms) -> Iterator[EpisodeBatch]:
    """Batches on the devices that visit every video once (the last may repeat a few): the first epoch of the run."""
    for step in range(math.ceil(episodes.episodes_per_epoch / episodes.batch_size)):
        yield put_batch(programs.mesh, episodes.batch(step))


def find_start(
    programs: MetaPrograms, folder: str, *, start_from: str, growing: bool = False, seed: int = 0
) -> tuple[bool, MetaModel | None]:
    """Whether a run goes on from its checkpoints, and else the released weights that it begins from; makes no folder.

    Args:
        programs: of the run.
        folder: of the run's checkpoints.
        start_from: a released file, a run's folder, or the name of bundled weights; "" for fresh weights.
        growing: the released weights may be of smaller frames (`th_jax.models.grow`).
        seed: of the parameters that growing adds.

    Raises:
        ValueError: if there are no such released weights, or they are of other networks.
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
) -> Begun:
    """The newest whole saved state of a run and its step; for a new run its first state, fresh or from released weights.

    Args:
        programs: of the run.
        checkpoints: of the run.
        episodes: of the run: a run from released weights begins by embedding their people.
        seed: of fresh weights.
        video_list: digest of the training videos that W's rows stand for.
        start: released weights of `find_start` for a new run; None for fresh ones.

    Raises:
        CheckpointError: if every saved state is damaged, or the newest is of other networks or other videos.
    """
    if checkpoints.latest_step() is not None:
        shapes = with_layout(programs.shapes, programs.layout)
        state, description, damaged = checkpoints.resume(shapes, check=lambda of: check_video_list(of, video_list))
        return Begun(state, int(description["step"]), damaged)
    if start is None:
        return Begun(programs.begin(seed), 0)
    table = programs.fresh_table(seed)
    rows = released_rows(start, episodes.records)
    if rows is not None:
        padding = np.zeros((table.rows.shape[0] - len(rows), rows.shape[1]), np.float32)  # no episode visits it
        settled = table._replace(rows=jnp.asarray(np.concatenate([rows, padding])))
        return Begun(programs.begin_from(start.weights, settled), 0)
    state = programs.begin_from(start.weights, table)
    return Begun(programs.settle(state, one_epoch(episodes, programs), keep_shared=True), 0)


def released_rows(meta: MetaModel, records: VideoRecords) -> Float[np.ndarray, "V N"] | None:
    """The released rows of W in the order of these videos; None if a video has none, so that W must settle anew."""
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
    """Save the state and the batch that is not finite together, then stop.

    Raises:
        CheckpointError: always; it says how many steps changed nothing and how to look at the last of them.
    """
    checkpoints.save(step, state, description=description, force=True)
    checkpoints.wait()
    path = save_batch(Path(workdir) / "replay" / f"{step:06d}.npz", batch)
    raise CheckpointError(
        f"the last {int(state.skipped_in_a_row)} steps in a row had a loss or a gradient that is not finite, and changed "
        f"nothing. The state is saved as step {step}, its batch in {path}: the same command with --replay {path} shows "
        "which numbers are not finite"
    )


def replay_lines(
    programs: MetaPrograms, checkpoints: Checkpoints, batch: Path, perceptual: PerceptualWeights
) -> Iterator[str]:
    """The step of the newest checkpoint on a saved batch: a line a number, marked where it is not finite.

    Raises:
        ValueError: if the batch or the checkpoint is missing, damaged or of another run.
    """
    saved = load_batch(batch)
    state, description = checkpoints.restore(with_layout(programs.shapes, programs.layout))
    step = int(description["step"]) - 1  # the state is the one before it: it changed nothing
    _, metrics = programs.step_at(step)(state, perceptual, put_batch(programs.mesh, saved))
    for name, value in sorted(metrics.items()):
        yield f"{name:<32}{float(value):>14.6g}{'' if math.isfinite(float(value)) else '   <- not finite'}"


class StepClock:
    """Seconds a step, and the share of them that was spent waiting for data."""

    def __init__(self) -> None:
        """Start."""
        self._restart()

    def _restart(self) -> None:
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for data; counts a step."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start
        self._steps += 1

    def lap(self) -> dict[str, float]:
        """Means since the last lap: "time/step" in seconds and "time/waiting_share"."""
        passed = max(time.perf_counter() - self._start, 1e-9)
        result = {"time/step": passed / max(self._steps, 1), "time/waiting_share": self._waited / passed}
        self._restart()
        return result
