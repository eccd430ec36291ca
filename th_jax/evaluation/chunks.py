"""Applies a compiled function to many images in fixed-size chunks, with constant memory and without recompilation."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Shaped

from th_jax.types import AnyArray

CHUNK = 24
"""Maximum number of images per chunk."""


def in_chunks(
    function: Callable[..., AnyArray], arrays: Sequence[Shaped[np.ndarray, "N *_"]], *, chunk: int = CHUNK
) -> Shaped[np.ndarray, "N *_"]:
    """Apply `function` to arrays that share their first dimension, `chunk` rows at a time, and join the results on the host.

    The last rows are repeated to fill the last chunk, so `function` must treat each row independently. Fewer rows than
    a chunk are passed unchanged.

    Raises:
        ValueError: if there are no rows, or `chunk` is below 1.
    """
    count = len(arrays[0])
    if count < 1 or chunk < 1:
        raise ValueError(f"at least one row and a chunk size of at least one are needed, got {count} and {chunk}")
    chunk = min(chunk, count)
    done = []
    for start in range(0, count, chunk):
        parts = [array[start : start + chunk] for array in arrays]
        missing = chunk - len(parts[0])
        padded = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in parts]
        done.append(np.asarray(function(*padded))[: chunk - missing])
    return np.concatenate(done)


def joined(array: Shaped[AnyArray, "..."], *, content: int) -> Shaped[np.ndarray, "..."]:
    """Flatten all dimensions except the last `content` ones, on the host: [I, S, H, W, 3] to [I x S, H, W, 3]."""
    return np.asarray(array).reshape((-1, *array.shape[array.ndim - content :]))
