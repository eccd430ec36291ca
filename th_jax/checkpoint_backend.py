"""Orbax, loaded at its first use, and how it is kept quiet: it reports what went wrong where nobody else can say it."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np


def orbax() -> ModuleType:
    """Orbax, loaded at first use (half a second) and told to report only what needs attention."""
    import orbax.checkpoint

    log = logging.getLogger("absl")  # Orbax logs there, under a verbosity that belongs to the script
    if _worth_telling not in log.filters:
        log.addFilter(_worth_telling)
    return orbax.checkpoint


def open_manager(folder: str, **options: Any) -> Any:
    """Orbax's manager of a folder."""
    # A folder that is made in the background, and that the disk refuses, leaves threads waiting for it: no process ends then.
    foreground = orbax().AsyncOptions(create_directories_asynchronously=False)
    return orbax().CheckpointManager(
        folder, options=orbax().CheckpointManagerOptions(async_options=foreground, **options)
    )


def read_leaves(folder: str, item: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Some leaves of a saved state by their names, on the host, whatever mesh they were saved on."""
    arguments = orbax().args.PyTreeRestore(
        dict(item),
        restore_args={name: orbax().RestoreArgs(restore_type=np.ndarray) for name in item},
        partial_restore=True,
    )
    with orbax().Checkpointer(orbax().PyTreeCheckpointHandler()) as checkpointer:
        leaves = checkpointer.restore(folder, args=arguments)
    return {name: np.asarray(leaves[name]) for name in item}


def set_aside(manager: Any, names: Sequence[str]) -> None:
    """Move checkpoints to where Orbax does not see them: a disk that failed once may have failed at reading."""
    folder = manager.directory  # of etils: it renames at an address, too
    for name in names:
        number = next(n for n in itertools.count(1) if not (folder / f"damaged-{name}-{n}").exists())
        (folder / name).rename(folder / f"damaged-{name}-{number}")
    manager.reload()


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not what Orbax logs of an error that it raises as well, page by page and from every thread that it passes through."""
    return "orbax" not in Path(record.pathname).parts or (record.levelno >= logging.ERROR and not record.exc_info)


def sharding_of(leaf: Any) -> jax.sharding.Sharding:
    """Where a leaf is or shall be: by default on the first device."""
    return getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def short(error: Exception) -> str:
    """The first line of an error, without Orbax's page-long trees."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". See full TensorStore details")[0]
    return first if len(first) <= 300 else f"{first[:300]}…"


def listed(values: Sequence[Any]) -> str:
    """Values with commas between them."""
    return ", ".join(str(value) for value in values)
