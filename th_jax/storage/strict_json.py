"""Strict JSON: UTF-8 of limited size, no duplicate keys, no NaN; objects are checked against dataclasses and named tuples."""

import dataclasses
import enum
import json
import math
import os
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from th_jax.text import utf8

MAX_BYTES = 2**20
"""Default limit of a file's size."""

MAX_DEPTH = 100
"""Limit of lists and objects within each other. What Python's own parser takes differs with its version and the stack."""

_MARKS = re.compile(r'"(?:[^"\\]+|\\.)*"?|[][{}]', re.DOTALL)
"""Strings, of which the last may lack its end, and the brackets outside of strings."""

T = TypeVar("T")


def parse_json(
    content: bytes | str, *, name: str = "the file", max_bytes: int = MAX_BYTES, error: type[ValueError] = ValueError
) -> Any:
    """Parse JSON strictly: duplicate keys, which readers interpret differently, NaN and Infinity are errors.

    Lists and objects may be nested up to `MAX_DEPTH` levels.

    Args:
        content: UTF-8 bytes, with or without a byte-order mark, or text.
        name: name of the file, for the error message.
        max_bytes: maximum length of `content`.
        error: type of the raised error.

    Raises:
        ValueError: as `error`, naming the file and the reason.
    """
    if len(content) > max_bytes:
        raise error(f"{name} has more than {max_bytes} bytes")
    try:
        text = utf8(content, name="it") if isinstance(content, bytes) else content
        if _is_too_deep(text):
            raise RecursionError
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_invalid_constant, parse_float=_finite)
    except RecursionError as problem:  # also if the caller has used up the stack
        raise error(f"{name} is not valid JSON: it is nested too deeply") from problem
    except ValueError as problem:
        raise error(f"{name} is not valid JSON: {problem}") from problem


def read_json(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, error: type[ValueError] = ValueError) -> Any:
    """Read a local file as `parse_json` parses it.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: as `error`, also if it is not a regular file: opening a pipe would block.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise error(f"{path} is not a regular file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    return parse_json(content, name=str(path), max_bytes=max_bytes, error=error)


def check_object(
    value: Any,
    required: Iterable[str],
    *,
    where: str,
    optional: Iterable[str] = (),
    error: type[ValueError] = ValueError,
) -> dict[str, Any]:
    """Check that a JSON value is an object with exactly these fields, and return it.

    Args:
        value: parsed value.
        required: fields that must exist.
        where: name of the value, for the error message.
        optional: further fields that may exist.
        error: type of the raised error.

    Raises:
        ValueError: as `error`, naming missing and unknown fields.
    """
    required = set(required)
    if not isinstance(value, dict):
        expected = ", ".join(sorted(required))
        raise error(f"{where} must be a JSON object with {expected}, but is {type(value).__name__}")
    if wrong := (required - value.keys()) | (value.keys() - required - set(optional)):
        raise error(f"{where} has missing or unknown fields: {', '.join(sorted(wrong))[:200]!a}")
    return value


def from_json(kind: type[T], value: Any, *, where: str, error: type[ValueError] = ValueError) -> T:
    """Build a dataclass or named tuple from a JSON object whose values have the annotated types.

    Fields with defaults may be missing. Whole numbers are accepted for float; true and false are not numbers.

    Args:
        kind: class to build. Annotations may be str, int, float, bool, None, dict, list, tuples and mappings of these,
            enumerations of text, literals and unions.
        value: parsed value.
        where: name of the value, for the error message.
        error: type of the raised error.

    Raises:
        ValueError: as `error`, naming missing and unknown fields, or the field of a wrong type.
    """
    hints = get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        fields = {entry.name: _has_default(entry) for entry in dataclasses.fields(kind)}
    else:
        defaults = kind._field_defaults  # type: ignore[attr-defined]
        fields = {name: name in defaults for name in kind._fields}  # type: ignore[attr-defined]
    check_object(
        value,
        [name for name, optional in fields.items() if not optional],
        optional=fields,
        where=where,
        error=error,
    )
    for name, item in value.items():
        if not _fits(item, hints[name]):
            raise error(f"{where}: {name} must be {_named(hints[name])}, but is {str(item)[:80]!a}")
    return kind(**{name: _converted(item, hints[name]) for name, item in value.items()})


def _has_default(entry: Any) -> bool:
    return entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin is tuple:
        if arguments[-1:] == (...,):
            return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
        return isinstance(value, list) and len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin in (dict, Mapping) and type(value) is dict:
        return all(_fits(name, arguments[0]) and _fits(item, arguments[1]) for name, item in value.items())
    if _is_enumeration(hint):
        return type(value) is str and value in list(hint)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is (origin or hint or type(None))


def _is_enumeration(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.StrEnum)


def _converted(value: Any, hint: Any) -> Any:
    if _is_enumeration(hint):
        return hint(value)
    is_tuple = any(get_origin(one) is tuple for one in (hint, *get_args(hint)))
    return tuple(value) if is_tuple and isinstance(value, list) else value


def _named(hint: Any) -> str:
    if _is_enumeration(hint):
        return "one of " + ", ".join(hint)
    return str(hint) if get_args(hint) else getattr(hint, "__name__", str(hint))


def _is_too_deep(text: str) -> bool:
    depth = 0
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # nearly always
        return False
    for mark in _MARKS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {repeated[:80]!a} occurs twice")
    return result


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is too large")
    return value


def _invalid_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")
