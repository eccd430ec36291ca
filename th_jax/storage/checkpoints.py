"""Checkpoints of a run: written atomically, self-describing, and verified leaf by leaf when read.

Orbax stores the arrays under their paths in the tree, so a state saved on one mesh can be restored onto any other. The
description is JSON (`th_jax.storage.checkpoint_format`).
"""

import contextlib
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from th_jax.storage import checkpoint_format as checkpoint_description
from th_jax.storage.checkpoint_format import CheckpointError as CheckpointError
from th_jax.storage.checkpoint_format import check_video_list as check_video_list
from th_jax.storage.checkpoint_format import named_leaves


def orbax() -> ModuleType:
    """Import Orbax at first use (half a second), and limit its log to what needs attention."""
    import orbax.checkpoint

    log = logging.getLogger("absl")  # Orbax logs there, with a verbosity that the script controls
    if _worth_telling not in log.filters:
        log.addFilter(_worth_telling)
    return orbax.checkpoint


def open_manager(folder: str, **options: Any) -> Any:
    """Open Orbax's checkpoint manager of a folder."""
    # If a folder is created in the background and this fails, threads wait for it forever and the process never ends.
    foreground = orbax().AsyncOptions(create_directories_asynchronously=False)
    return orbax().CheckpointManager(
        folder, options=orbax().CheckpointManagerOptions(async_options=foreground, **options)
    )


def read_leaves(folder: str, item: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Read some leaves of a saved state by name, to the host, regardless of the mesh they were saved on."""
    arguments = orbax().args.PyTreeRestore(
        dict(item),
        restore_args={name: orbax().RestoreArgs(restore_type=np.ndarray) for name in item},
        partial_restore=True,
    )
    with orbax().Checkpointer(orbax().PyTreeCheckpointHandler()) as checkpointer:
        leaves = checkpointer.restore(folder, args=arguments)
    return {name: np.asarray(leaves[name]) for name in item}


def set_aside(manager: Any, names: Sequence[str]) -> None:
    """Rename checkpoints so that Orbax ignores them; they are kept, because only reading them may have failed."""
    folder = manager.directory  # an etils path, which can rename remote folders
    for name in names:
        number = next(n for n in itertools.count(1) if not (folder / f"damaged-{name}-{n}").exists())
        (folder / name).rename(folder / f"damaged-{name}-{number}")
    manager.reload()


def _worth_telling(record: logging.LogRecord) -> bool:
    """Filter out errors that Orbax logs in addition to raising them, page by page and from every thread involved."""
    return "orbax" not in Path(record.pathname).parts or (record.levelno >= logging.ERROR and not record.exc_info)


def sharding_of(leaf: Any) -> jax.sharding.Sharding:
    """Return a leaf's current or intended sharding, by default the first device."""
    return getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _zeros(shape: Any) -> jax.Array:
    zeros = np.zeros(shape.shape, shape.dtype)
    return jax.make_array_from_callback(zeros.shape, sharding_of(shape), lambda index: zeros[index])


def short(error: Exception) -> str:
    """Return the first line of an error, without Orbax's page-long trees."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". See full TensorStore details")[0]
    return first if len(first) <= 300 else f"{first[:300]}…"


def listed(values: Sequence[Any]) -> str:
    """Join values with commas."""
    return ", ".join(str(value) for value in values)


_STEP_DIGITS = 8
_POLL_SECONDS = 0.05

SCORE = "score"
"""Key of a description with the number by which the best checkpoint is kept; the lowest is the best."""

_Check = Callable[[Mapping[str, Any]], None]


class _Best:
    """Policy of Orbax that keeps the checkpoint with the lowest score, of which all hosts know the same."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Return which checkpoints are kept."""
        scores = {info.step: self._scores.get(info.step, math.nan) for info in checkpoints}
        best = min((step for step in scores if not math.isnan(scores[step])), key=scores.__getitem__, default=None)
        return [info.step == best for info in checkpoints]


def _score(description: Mapping[str, Any]) -> float:
    score = description.get(SCORE)
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else math.nan


class _DamagedError(CheckpointError):
    """A checkpoint exists but cannot be read."""


class Checkpoints:
    """Checkpoints in one folder: `with Checkpoints(workdir / "checkpoints") as checkpoints: ...`.

    With several hosts, every process creates an instance and calls the same methods in the same order.

    Args:
        folder: a path, or an address such as gs://bucket/run/checkpoints.
        keep: number of newest checkpoints to keep.
        keep_hours: the first checkpoint of every so many hours is kept as well; 0 for none.
        keep_best: whether to keep the checkpoint with the lowest `SCORE` as well.
        asynchronous: write in the background. In either case `save` returns only after it has copied the state.
        read_only: never create, clean up or delete anything, for inspecting a run that may still be in progress.

    Raises:
        CheckpointError: if the folder cannot be created or opened.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 3,
        keep_hours: float | int = 0,
        keep_best: bool = False,
        asynchronous: bool = True,
        read_only: bool = False,
    ) -> None:
        """Open the folder; partial checkpoints of a killed run are ignored, and removed at the first save."""
        if keep < 1 or not 0 <= keep_hours < math.inf:
            raise CheckpointError(f"keep must be at least 1 and keep_hours at least 0, got {keep} and {keep_hours}")
        # Orbax requires absolute paths; an address with a scheme already is one.
        self.folder = str(folder) if "://" in str(folder) else str(Path(folder).absolute())
        if Path(self.folder).is_file():
            raise CheckpointError(f"expected a folder for checkpoints, but {self.folder} is a file")
        self._asynchronous = asynchronous
        self._writing: int | None = None
        self._scores: dict[int, float] | None = {} if keep_best and not read_only else None
        options: dict[str, Any] = {"read_only": True, "save_interval_steps": 0, "create": False}
        if not read_only:
            options = {"preservation_policy": self._policy(keep, keep_hours), "cleanup_tmp_directories": True}
            options["enable_async_checkpointing"] = asynchronous
        try:
            self._open = functools.partial(open_manager, self.folder, step_format_fixed_length=_STEP_DIGITS, **options)
            self._manager = self._open()
        except Exception as error:
            raise CheckpointError(f"cannot use the folder {self.folder} for checkpoints: {short(error)}") from error
        if self._scores is not None:
            for step in self.steps():
                with contextlib.suppress(CheckpointError):  # a damaged one is not the best
                    self._scores[step] = _score(self.describe(step=step))

    def __enter__(self) -> "Checkpoints":
        """Return the checkpoints themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish pending writes, also after an error."""
        self.close()

    def steps(self) -> list[int]:
        """List the steps that have a checkpoint, in increasing order, including one that is still being written."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Return the newest step that has a checkpoint, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any, *, description: Mapping[str, Any]) -> bool:
        """Save a tree of arrays; after the return, the state may be donated or changed.

        A step that has a checkpoint is not saved again.

        Args:
            step: number of the step that produced the state.
            state: any tree of arrays, sharded in any way.
            description: JSON values to store with it, such as "config" and "video_list" (`VideoList.digest`).

        Returns:
            Whether a checkpoint was written.

        Raises:
            CheckpointError: if a leaf is not an array, the description is not JSON, the folder has later steps, or a write
                (including the previous one, in the background) failed.
        """
        leaves = named_leaves(state)
        self.wait()
        if later := [s for s in self.steps() if s > step]:
            raise CheckpointError(
                f"{self.folder} has checkpoints later than step {step} ({listed(later)}): remove them with "
                f"drop_after({step}), or save into another folder"
            )
        if step in self.steps():
            return False
        record = checkpoint_description.describe(step, leaves, description)
        parts = orbax().args
        arguments = parts.Composite(state=parts.StandardSave(leaves), description=parts.JsonSave(record))
        try:
            if self._scores is not None:
                self._scores[step] = _score(record)
            self._writing = step
            self._manager.save(step, args=arguments, force=True)
        except Exception as error:
            self._give_up()
            raise CheckpointError(f"cannot save step {step} in {self.folder}: {short(error)}") from error
        if not self._asynchronous:
            self.wait()
        return True

    def restore(self, shapes: Any, *, step: int | None = None, added: str = "") -> tuple[Any, dict[str, Any]]:
        """Restore and verify the state of a step.

        Args:
            shapes: the state's tree of `jax.ShapeDtypeStruct` with shardings, on any mesh.
            step: step to restore, by default the newest.
            added: as for `resume`.

        Returns:
            The state on the devices of `shapes`, and its description.

        Raises:
            CheckpointError: if the checkpoint is missing, damaged, or contains a state of another shape.
        """
        step = self._existing(step)
        try:
            return self._restore_whole(step, shapes, None, added)
        except _DamagedError as error:
            raise CheckpointError(f"{error}; {self._another_one(step, shapes)}") from error

    def resume(
        self, shapes: Any, *, check: _Check | None = None, added: str = ""
    ) -> tuple[Any, dict[str, Any], dict[int, str]]:
        """Restore the newest intact state.

        Damaged checkpoints of later steps are moved aside, to damaged-STEP-1 in the same folder, so that the run can continue
        from the intact one.

        Args:
            shapes: as for `restore`.
            check: called with a description before its state is read; raises an error if the checkpoint must not be used.
            added: prefix of leaves that checkpoints of earlier versions lack; they begin as zeros.

        Returns:
            The state, its description, and an error message for each later step with a damaged checkpoint.

        Raises:
            CheckpointError: as `restore`, if no checkpoint is intact; with several hosts, if the newest is not, because a host
                does not know which checkpoints the others can read.
        """
        newest = self._existing(None)
        damaged: dict[int, str] = {}
        for step in [s for s in reversed(self.steps()) if s == newest or jax.process_count() == 1]:
            try:
                state, description = self._restore_whole(step, shapes, check, added)
            except _DamagedError as error:
                damaged[step] = str(error)
            else:
                set_aside(self._manager, [f"{later:0{_STEP_DIGITS}d}" for later in damaged])
                return state, description, damaged
        raise CheckpointError(f"{damaged[newest]}; {self._another_one(newest, shapes)}")

    def read(self, prefixes: Sequence[str], *, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Read and verify only the leaves whose names begin with one of `prefixes`.

        Without a step, the newest checkpoint in which these leaves are intact is read, and a warning is logged for each
        damaged one.

        Args:
            prefixes: prefixes of leaf names.
            step: step to read, by default the newest intact one.

        Returns:
            The leaves by name, on the host, and the description.

        Raises:
            CheckpointError: if the checkpoint or the leaves are missing or damaged.
        """
        chosen = self._existing(step)
        left = [] if step is not None else [s for s in reversed(self.steps()) if s < chosen]
        while True:
            try:
                return self._read_whole(prefixes, chosen)
            except _DamagedError as error:
                if not left:
                    raise
                chosen = left.pop(0)
                logging.getLogger(__name__).warning("%s; falling back to the one of step %d", error, chosen)

    def describe(self, *, step: int | None = None) -> dict[str, Any]:
        """Return the description of a step (by default the newest) without reading arrays.

        Raises:
            CheckpointError: if the checkpoint is missing, or its description is damaged or of another version.
        """
        step = self._existing(step)
        parts = orbax().args
        try:
            record = self._manager.restore(step, args=parts.Composite(description=parts.JsonRestore()))
            record = checkpoint_description.check(record["description"])
            if record["step"] != step:
                raise ValueError(f"its description is that of step {record['step']}")
            return record
        except CheckpointError as error:
            raise CheckpointError(f"the checkpoint of step {step} in {self.folder} cannot be read: {error}") from error
        except Exception as error:
            raise self._damaged(step, error) from error

    def drop_after(self, step: int) -> list[int]:
        """Remove the checkpoints later than `step`, so that a run can continue from there; returns their steps."""
        self.wait()
        later = [s for s in self.steps() if s > step]
        for s in later:
            self._manager.delete(s)
        return later

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointError: if a save in the background failed. It is reported once; later saves can succeed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            step = self._give_up()
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {self.folder}: {short(error)}"
            ) from error
        if self._writing is not None and not (self._manager.directory / f"{self._writing:0{_STEP_DIGITS}d}").exists():
            step = self._give_up()  # Orbax does not report every error of its threads
            raise CheckpointError(f"the checkpoint of step {step} was not written to {self.folder}: is the disk full?")
        self._writing = None

    def wait_at_most(self, seconds: float | int) -> bool:
        """Wait until everything is on disk, but not longer than some time; returns whether it is.

        Raises:
            CheckpointError: as `wait`.
        """
        deadline = time.monotonic() + seconds
        while self._manager.is_saving_in_progress():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        self.wait()
        return True

    def close(self) -> None:
        """Wait for pending writes, then release the folder and the background threads."""
        try:
            self.wait()
            # Orbax joins its cleanup thread for abandoned folders when it saves, but not when it closes: if a program
            # ended immediately, that thread would fail with a traceback.
            cleaning = getattr(self._manager, "_cleanup_tmp_directory_future", None)
            if cleaning is not None:
                cleaning.result()
        finally:
            self._manager.close()

    def _policy(self, keep: int, keep_hours: float | int) -> Any:
        policies = orbax().checkpoint_managers
        kept: list[Any] = [policies.LatestN(keep)]
        if keep_hours:
            kept.append(policies.EveryNSeconds(interval_secs=round(keep_hours * 3600)))
        if self._scores is not None:
            kept.append(_Best(self._scores))
        return policies.AnyPreservationPolicy(kept)

    def _give_up(self) -> int | None:
        """Forget a save that failed; returns its step.

        Orbax's manager would raise the error again when it restores, and has forgotten those that it wanted to delete.
        """
        step, self._writing = self._writing, None
        with contextlib.suppress(Exception):
            self._manager.close()
        with contextlib.suppress(Exception):  # the next save raises it
            self._manager = self._open()
        return step

    def _existing(self, step: int | None) -> int:
        self.wait()
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there are no checkpoints in {self.folder}")
        if step is None:
            return steps[-1]
        if step not in steps:
            raise CheckpointError(f"{self.folder} has no checkpoint of step {step}; it has {listed(steps)}")
        return step

    def _restore_whole(
        self, step: int, shapes: Any, check: _Check | None = None, added: str = ""
    ) -> tuple[Any, dict[str, Any]]:
        record = self.describe(step=step)
        if check is not None:
            check(record)
        names = named_leaves(shapes)
        wanted = {
            name: x for name, x in names.items() if name in record["leaves"] or not (added and name.startswith(added))
        }
        try:
            checkpoint_description.check_same_leaves(wanted, record)
        except CheckpointError as error:
            raise CheckpointError(f"the checkpoint of step {step} in {self.folder} does not fit: {error}") from error
        item = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x)) for name, x in wanted.items()}
        parts = orbax().args
        try:
            leaves = self._manager.restore(step, args=parts.Composite(state=parts.StandardRestore(item)))["state"]
            checkpoint_description.check_fingerprints(leaves, record)
        except Exception as error:
            raise self._damaged(step, error) from error
        leaves |= {name: _zeros(x) for name, x in names.items() if name not in wanted}
        return jax.tree.unflatten(jax.tree.structure(shapes), [leaves[name] for name in names]), record

    def _read_whole(self, prefixes: Sequence[str], step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        record = self.describe(step=step)
        wanted = {name: leaf for name, leaf in record["leaves"].items() if name.startswith(tuple(prefixes))}
        if not wanted:
            raise CheckpointError(f"the checkpoint of step {step} in {self.folder} has no leaf {listed(prefixes)}")
        item = {name: jax.ShapeDtypeStruct(leaf["shape"], jnp.dtype(leaf["dtype"])) for name, leaf in wanted.items()}
        try:
            leaves = read_leaves(f"{self.folder}/{step:0{_STEP_DIGITS}d}/state", item)
            checkpoint_description.check_fingerprints(leaves, record)
        except Exception as error:
            raise self._damaged(step, error) from error
        return leaves, record

    def _damaged(self, step: int, why: Exception) -> _DamagedError:
        return _DamagedError(f"the checkpoint of step {step} in {self.folder} is damaged: {short(why)}")

    def _another_one(self, step: int, shapes: Any) -> str:
        others = [s for s in reversed(self.steps()) if s != step]
        if not others:
            return "there is no other one: restore the folder from a backup, or start over"
        if jax.process_count() > 1:  # restoring here would desynchronize the other processes
            return f"other steps to try: {listed(others)}"
        for other in others:
            try:
                self._restore_whole(other, shapes)
            except CheckpointError:
                continue
            return (
                f"the one of step {other} is intact: move the later folders away to continue from it, or restore "
                f"step={other}"
            )
        return f"none of the others can be restored either ({listed(others)})"
