"""Runs a compiled function over many pictures, a fixed number at a time, so that memory is flat and nothing is traced anew."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Shaped

from th_jax.types import AnyArray

CHUNK = 24
"""Most pictures at once."""


def in_chunks(
    function: Callable[..., AnyArray], arrays: Sequence[Shaped[np.ndarray, "N *_"]], *, chunk: int = CHUNK
) -> Shaped[np.ndarray, "N *_"]:
    """`function` of arrays that share their first dimension, `chunk` rows after `chunk` rows, joined on the host.

    The last rows are repeated to fill the last chunk: `function` must treat each row by itself. Fewer rows than a chunk go
    through as they are.

    Raises:
        ValueError: for no rows, or a chunk below 1.
    """
    count = len(arrays[0])
    if count < 1 or chunk < 1:
        raise ValueError(f"at least one row in chunks of at least one is needed, but {count} in chunks of {chunk} came")
    chunk = min(chunk, count)
    done = []
    for start in range(0, count, chunk):
        parts = [array[start : start + chunk] for array in arrays]
        missing = chunk - len(parts[0])
        padded = [np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in parts]
        done.append(np.asarray(function(*padded))[: chunk - missing])
    return np.concatenate(done)


def joined(array: Shaped[AnyArray, "..."], *, content: int) -> Shaped[np.ndarray, "..."]:
    """All dimensions but the last `content` ones as one, on the host: [I, S, H, W, 3] to [I x S, H, W, 3]."""
    return np.asarray(array).reshape((-1, *array.shape[array.ndim - content :]))
