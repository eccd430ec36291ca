"""What is kept of a run that stopped because nothing was finite any more: the last batch, to be run again."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from th_jax.types import EpisodeBatch
from th_jax.whole_file import whole_file


def save_batch(path: Path, batch: EpisodeBatch) -> Path:
    """Write a batch as npz, whole or not at all; the state that it met is in the run's newest checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in batch._asdict().items()}
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def load_batch(path: Path) -> EpisodeBatch:
    """A batch that `save_batch` wrote.

    Raises:
        ValueError: if the file is missing, or no such batch.
    """
    if not path.is_file():
        raise ValueError(f"there is no saved batch at {path}")
    refusal = f"{path} is no saved batch of this project, or it is damaged"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{refusal}: it is no npz file of a batch")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return EpisodeBatch(**{name: arrays[name] for name in EpisodeBatch._fields})
    except KeyError as error:
        raise ValueError(f"{refusal}: it lacks an array of {', '.join(EpisodeBatch._fields)}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # NumPy's advice is to unpickle it
        raise ValueError(f"{refusal}: its arrays cannot be read") from error
