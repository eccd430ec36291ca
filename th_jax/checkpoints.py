"""A run's checkpoints on disk: written whole or not at all, self-describing, and verified leaf by leaf when read.

Orbax stores the arrays, so a state saved on one mesh restores onto any other; the leaves stand there under their paths in
the tree. What describes them is JSON (`th_jax.checkpoint_description`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from th_jax import checkpoint_description
from th_jax.checkpoint_backend import listed, open_manager, orbax, read_leaves, set_aside, sharding_of, short
from th_jax.checkpoint_description import CheckpointError as CheckpointError
from th_jax.checkpoint_description import check_video_list as check_video_list
from th_jax.checkpoint_description import named_leaves

_STEP_DIGITS = 8
_Check = Callable[[Mapping[str, Any]], None]


class _DamagedError(CheckpointError):
    """A checkpoint that is there and cannot be read."""


class Checkpoints:
    """The checkpoints in one folder: `with Checkpoints(workdir / "checkpoints") as checkpoints: ...`.

    On several hosts every process makes one and calls the same methods in the same order.

    Args:
        folder: a path, or an address such as gs://bucket/run/checkpoints.
        keep: how many of the newest checkpoints stay.
        keep_every: checkpoints whose step is a multiple of this stay as well.
        asynchronous: write in the background. `save` has copied the state before it returns either way.
        read_only: never create, clean up or delete anything: for looking into a run that may be going on.

    Raises:
        CheckpointError: if the folder cannot be made or opened.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 3,
        keep_every: int | None = None,
        asynchronous: bool = True,
        read_only: bool = False,
    ) -> None:
        """Open the folder; what a killed run left half-written is invisible, and removed at the first save."""
        if keep < 1 or (keep_every is not None and keep_every < 1):
            raise CheckpointError(f"keep and keep_every must be at least 1, but are {keep} and {keep_every}")
        # Orbax wants absolute paths; an address with a scheme is one already.
        self.folder = str(folder) if "://" in str(folder) else str(Path(folder).absolute())
        if Path(self.folder).is_file():
            raise CheckpointError(f"{self.folder} is a file: checkpoints need a folder")
        self._asynchronous = asynchronous
        options: dict[str, Any] = {"read_only": True, "save_interval_steps": 0, "create": False}
        if not read_only:
            options = {"max_to_keep": keep, "keep_period": keep_every, "cleanup_tmp_directories": True}
            options["enable_async_checkpointing"] = asynchronous
        try:
            self._manager = open_manager(self.folder, step_format_fixed_length=_STEP_DIGITS, **options)
        except Exception as error:
            raise CheckpointError(f"the folder {self.folder} cannot hold checkpoints: {short(error)}") from error

    def __enter__(self) -> "Checkpoints":
        """The checkpoints themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is being written, also after an error."""
        self.close()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, rising; one that is still being written counts."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The newest step that has a checkpoint."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any, *, description: Mapping[str, Any], force: bool = False) -> bool:
        """Save a tree of arrays; when this returns, the state may be donated or changed.

        Args:
            step: number of the step that made the state.
            state: any tree of arrays, sharded in any way.
            description: JSON values that travel with it: "config", "video_list" (`VideoList.digest`) and what else helps.
            force: write again if this step is there already; else that one is left alone.

        Returns:
            Whether anything was written.

        Raises:
            CheckpointError: for leaves that are no arrays, a description that is not JSON, a folder with later steps, or
                a write (also the one before, in the background) that failed.
        """
        leaves = named_leaves(state)
        self.wait()
        if later := [s for s in self.steps() if s > step]:
            raise CheckpointError(
                f"{self.folder} holds checkpoints later than step {step} ({listed(later)}): remove them with "
                f"drop_after({step}), or save into another folder"
            )
        if step in self.steps() and not force:
            return False
        record = checkpoint_description.describe(step, leaves, description)
        parts = orbax().args
        arguments = parts.Composite(state=parts.StandardSave(leaves), description=parts.JsonSave(record))
        try:
            if step in self.steps():
                self._manager.delete(step)
            self._manager.save(step, args=arguments, force=True)
        except Exception as error:
            raise CheckpointError(f"step {step} could not be saved in {self.folder}: {short(error)}") from error
        if not self._asynchronous:
            self.wait()
        return True

    def restore(self, shapes: Any, *, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The state of a step, verified, on the devices that `shapes` names, and its description.

        Args:
            shapes: the tree of the state, of `jax.ShapeDtypeStruct` with shardings: any mesh, not only the one that saved.
            step: the newest by default.

        Raises:
            CheckpointError: if there is no such checkpoint, it is damaged, or it is of a state of another shape.
        """
        step = self._existing(step)
        try:
            return self._restore_whole(step, shapes)
        except _DamagedError as error:
            raise CheckpointError(f"{error}; {self._another_one(step, shapes)}") from error

    def resume(self, shapes: Any, *, check: _Check | None = None) -> tuple[Any, dict[str, Any], dict[int, str]]:
        """The newest state that is whole, its description, and a sentence for each later step, whose checkpoint is damaged.

        Those are moved aside, into damaged-STEP-1 beside them, so that the run can go on from the whole one.

        Args:
            shapes: as for `restore`.
            check: raises what it has against a description, before its state is read.

        Raises:
            CheckpointError: as `restore`, if none is whole; on several hosts if the newest is not, since one host cannot tell
                what the others can read.
        """
        newest = self._existing(None)
        damaged: dict[int, str] = {}
        for step in [s for s in reversed(self.steps()) if s == newest or jax.process_count() == 1]:
            try:
                state, description = self._restore_whole(step, shapes, check)
            except _DamagedError as error:
                damaged[step] = str(error)
            else:
                set_aside(self._manager, [f"{later:0{_STEP_DIGITS}d}" for later in damaged])
                return state, description, damaged
        raise CheckpointError(f"{damaged[newest]}; {self._another_one(newest, shapes)}")

    def read(self, prefixes: Sequence[str], *, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Only the leaves whose names begin with one of `prefixes`, by name, verified, on the host; and the description.

        Without a step, those of the newest checkpoint in which they are whole: a warning is logged for each damaged one.

        Raises:
            CheckpointError: if there is no such checkpoint, no such leaf, or it is damaged.
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
                logging.getLogger(__name__).warning("%s; that of step %d is taken instead", error, chosen)

    def describe(self, *, step: int | None = None) -> dict[str, Any]:
        """The description of a step (the newest by default); reads no array.

        Raises:
            CheckpointError: if there is no such checkpoint, or its description is damaged or of another version.
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
        """Remove the checkpoints later than `step`, to go on from there; returns their steps."""
        self.wait()
        later = [s for s in self.steps() if s > step]
        for s in later:
            self._manager.delete(s)
        return later

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
            CheckpointError: if a save in the background failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise CheckpointError(f"a checkpoint could not be written to {self.folder}: {short(error)}") from error

    def close(self) -> None:
        """Wait, then let go of the folder and of the background threads."""
        try:
            self.wait()
            # Orbax waits for its thread that removes abandoned folders when it saves, and not when it closes: a program
            # that ends at once would end under it, with a traceback.
            cleaning = getattr(self._manager, "_cleanup_tmp_directory_future", None)
            if cleaning is not None:
                cleaning.result()
        finally:
            self._manager.close()

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

    def _restore_whole(self, step: int, shapes: Any, check: _Check | None = None) -> tuple[Any, dict[str, Any]]:
        record = self.describe(step=step)
        if check is not None:
            check(record)
        wanted = named_leaves(shapes)
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
        return jax.tree.unflatten(jax.tree.structure(shapes), [leaves[name] for name in wanted]), record

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
            return "there is no other one: bring the folder back from a copy, or start anew"
        if jax.process_count() > 1:  # trying them here would leave the other processes behind
            return f"others to try: {listed(others)}"
        for other in others:
            try:
                self._restore_whole(other, shapes)
            except CheckpointError:
                continue
            return (
                f"that of step {other} is whole: move the later folders away to go on from it, or restore step={other}"
            )
        return f"nor can any other be restored ({listed(others)})"
