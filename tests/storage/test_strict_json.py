"""Strict JSON: what other readers accept or repair is an error that names the file, the field and the reason."""

import dataclasses
import enum
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from th_jax.storage.strict_json import MAX_DEPTH, check_object, from_json, parse_json, read_json


class Letter(enum.StrEnum):
    """Stands for an enumeration."""

    A = "a"
    B = "b"


class Shot(NamedTuple):
    """Stands for a record with all kinds of annotations."""

    path: str
    size: int
    share: float = 0.5
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    pair: tuple[int, float] | None = None
    more: dict[str, Any] = {}
    counts: Mapping[str, int] = {}
    letter: Letter = Letter.A


@dataclasses.dataclass(frozen=True)
class Point:
    """The same as a dataclass."""

    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": -1e999}', "-1e999 is too large"),
        (b"[-Infinity]", "-Infinity is not a JSON value"),
        (b'{"a": 1, "b": 2, "a": 1}', "the field 'a' occurs twice"),
        (b'[{"c": {"b": 1, "b": 1}}]', "the field 'b' occurs twice"),
        (b"[" * 5_000, "nested too deeply"),
        (b"[" * 1_000 + b"]" * 1_000, "nested too deeply"),
        (b'[{"a": ["[", ' * 40 + b"0" + b"]}]" * 40, "nested too deeply"),
        (b'"\xfc"', "UTF-8"),
        (b"9" * 5_000, "not valid JSON"),
        (b" " * 6_000 + b"1", "more than 6000 bytes"),
    ],
)
def test_what_is_no_strict_json(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"(?s)^f.json .*{message}"):
        parse_json(content, name="f.json", max_bytes=6000)
    (path := tmp_path / "f.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"f.json .*{message}"):
        read_json(path, max_bytes=6000)


def test_json_with_a_byte_order_mark_and_as_text(tmp_path: Path) -> None:
    (path := tmp_path / "f.json").write_bytes(b"\xef\xbb\xbf" + '{"ü": [1, 2.5, null, true]}'.encode())
    assert read_json(path) == parse_json('{"ü": [1, 2.5, null, true]}') == {"ü": [1, 2.5, None, True]}


def test_brackets_in_strings_and_beside_each_other_are_no_depth() -> None:
    value = [["[" * 500, "\\", '"' + "{" * 500, {}]] * 200
    assert parse_json(json.dumps(value)) == value
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deep)) == deep


def test_depth_is_counted_in_one_pass() -> None:
    """A string without an end is not searched again from each of its quotes, which took minutes."""
    with pytest.raises(ValueError, match="not valid JSON"):
        parse_json("[" * 50 + '"' + '\\"' * 500_000 + "[" * 51, max_bytes=2**21)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would block."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nowhere")


def test_records_have_the_annotated_types() -> None:
    value = {"path": "a", "size": 3, "share": 1, "kind": "b", "names": ["x"], "pair": [1, 2], "more": {"z": None}}
    assert from_json(Shot, value, where="a shot") == Shot("a", 3, 1, "b", ("x",), (1, 2), {"z": None})
    assert from_json(Shot, {"path": "a", "size": 3, "pair": None}, where="a shot") == Shot("a", 3)
    assert from_json(Point, {"x": 1}, where="a point") == Point(1)
    shot = from_json(Shot, {"path": "a", "size": 3, "counts": {"z": 1}, "letter": "b"}, where="a shot")
    assert shot == Shot("a", 3, counts={"z": 1}, letter=Letter.B)
    assert isinstance(shot.letter, Letter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": True}, "a shot: size must be int, but is 'True'"),
        ({"size": 3.0}, "size must be int"),
        ({"share": "x"}, "share must be float"),
        ({"share": False}, "share must be float"),
        ({"kind": "c"}, "kind must be .*'a', 'b'.*, but is 'c'"),
        ({"names": ["x", 1]}, "names must be"),
        ({"names": "x"}, "names must be"),
        ({"pair": [1]}, "pair must be"),
        ({"more": []}, "more must be"),
        ({"counts": []}, "counts must be"),
        ({"counts": {"z": "1"}}, "counts must be"),
        ({"letter": "c"}, "letter must be one of a, b, but is 'c'"),
        ({"letter": 1}, "letter must be one of a, b"),
        ({"path": None}, "path must be str"),
        ({"pth": "x"}, "a shot has missing or unknown fields: 'pth'"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], message: str) -> None:
    class OwnError(ValueError):
        pass

    with pytest.raises(OwnError, match=message):
        from_json(Shot, {"path": "a", "size": 3} | change, where="a shot", error=OwnError)


def test_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match="a shot has missing or unknown fields: 'path, size'"):
        from_json(Shot, {}, where="a shot")
    with pytest.raises(ValueError, match="a shot must be a JSON object with path, size, but is list"):
        from_json(Shot, [], where="a shot")
    assert check_object({"a": 1, "c": math.pi}, ["a"], optional=["b", "c"], where="it") == {"a": 1, "c": math.pi}
