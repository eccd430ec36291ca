"""Sends numbers, text, arrays and errors through a pipe as JSON and raw bytes: the receiver runs nothing that came with them.

A process that a hostile file may have taken over must not be able to choose what its parent executes, which pickles
would let it do. Every pipe of this project is written and read here, so that an end that is gone looks the same to all.
"""

import builtins
import contextlib
import json
import math
import re
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from th_jax.media.limits import MediaError, MediaFault

HEADER_BYTES = 16 * 2**20
"""Most that a message may hold beside its arrays."""

PASSED_ON = ("FileNotFoundError", "PermissionError", "OSError", "ImportError", "TypeError", "ValueError")
"""Exceptions that the caller gets as they are; others become RuntimeErrors."""

_KINDS = "biuf"
"""Array types that are nothing but numbers: truth values, integers, floats."""

_CODE = re.compile(r"\|[biu]1|[<>][iuf][248]|[<>]f16")
"""numpy's names of such types, whose parser is not for what others wrote."""


class Call(NamedTuple):
    """What one process asks another to run."""

    module: str
    function: str
    """Its qualified name in the module."""
    arguments: tuple
    options: dict[str, Any]
    limits: tuple | None
    """The fields of `ProcessLimits`; None for a function that limits itself."""
    streamed: bool
    """Whether the function gives an iterator, whose items are sent one by one."""


def send_plain(pipe: Connection, value: Any) -> None:
    """Send None, truth values, numbers, text, paths and arrays, and lists, tuples and text-keyed dicts of them.

    A named tuple arrives as a tuple, a string enum as text.

    Raises:
        TypeError: for anything else, before a byte is sent.
        EOFError: if the other end is gone.
    """
    arrays: list[np.ndarray] = []
    header = json.dumps(_described(value, arrays)).encode()
    with _other_end():
        pipe.send_bytes(header)
        for array in arrays:
            if array.size:
                pipe.send_bytes(array.data.cast("B"))


def receive_plain(pipe: Connection, *, most: int) -> Any:
    """The value that the other end sent, whose arrays have at most so many bytes together.

    Raises:
        ValueError: if what came is nothing that `send_plain` sends, or is too large; nothing is allocated for it then.
        EOFError: if the other end is gone, or sends more than it says, after which nothing can be read any more.
    """
    arrays: list[np.ndarray] = []
    with _other_end():
        header = pipe.recv_bytes(HEADER_BYTES)
    try:
        value = _restored(json.loads(header), arrays, [most])
    except RecursionError as error:
        raise ValueError("a message came that is nested too deeply") from error
    for array in arrays:
        if array.size:
            # A bounded message: receiving into the array would first take in all that is sent.
            with _other_end():
                content = np.frombuffer(pipe.recv_bytes(array.nbytes), np.uint8)
            if content.size != array.nbytes:
                raise ValueError("an array came with fewer bytes than its shape needs")
            array.reshape(-1).view(np.uint8)[:] = content
    return value


@contextlib.contextmanager
def _other_end() -> Iterator[None]:
    """Turn every sign that the other end is gone into an EOFError.

    A system reports it as the end of a file, a broken pipe, or a reset, by what was under way and lay unread; and a process
    that dies amid a message leaves half of one.
    """
    try:
        yield
    except OSError as error:
        raise EOFError(f"the other end of the pipe is gone ({error})") from error


def failure_of(error: Exception) -> tuple[str, str]:
    """What is sent of an exception: a fault or the name of a class, and its sentence."""
    if isinstance(error, MediaError):
        return error.fault.value, str(error)
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__name__ in PASSED_ON]
    return kinds[0] if kinds else type(error).__name__, str(error)


def error_of(kind: str, message: str) -> Exception:
    """The exception of which `failure_of` told."""
    if kind in set(MediaFault):
        return MediaError(MediaFault(kind), message)
    if kind in PASSED_ON:
        return getattr(builtins, kind)(message)
    return RuntimeError(f"{kind}: {message}")


def _described(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        array = np.ascontiguousarray(value)
        arrays.append(array)
        return {"array": [array.dtype.str, list(value.shape)]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_described(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {str(name): _described(item, arrays) for name, item in value.items()}}
    raise TypeError(f"numbers, text and arrays can be sent, and lists, tuples and dicts of them, but not {type(value)}")


def _restored(described: Any, arrays: list[np.ndarray], left: list[int]) -> Any:
    """The value with arrays yet to be filled, in the order in which they come; `left` is the bytes they may have."""
    match described:
        case None | bool() | int() | float() | str():
            return described
        case {"array": [str(code), list(shape)]} if all(type(length) is int and length >= 0 for length in shape):
            if not _CODE.fullmatch(code):
                raise ValueError(f"an array of {code!r} came")
            dtype = np.dtype(code)
            left[0] -= math.prod(shape) * dtype.itemsize
            if left[0] < 0:
                raise ValueError("arrays came that are larger than their limit")
            arrays.append(np.empty(shape, dtype))
            return arrays[-1]
        case {"path": str(path)}:
            return Path(path)
        case {"list": list(items)}:
            return [_restored(item, arrays, left) for item in items]
        case {"tuple": list(items)}:
            return tuple(_restored(item, arrays, left) for item in items)
        case {"dict": dict(items)}:
            return {name: _restored(item, arrays, left) for name, item in items.items()}
    raise ValueError(f"a message came that holds {type(described)}")
