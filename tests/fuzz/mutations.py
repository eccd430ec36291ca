"""Inputs that are nearly valid: edits of JSON documents, of texts and of bytes, drawn by Hypothesis."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

_WORDS = (
    *("", " ", "a" * 300, "\0", "\ud800", "\u202e", "é\n", "../../etc/passwd", "/etc/passwd", "C:\\x", "-1", "1e999"),
    *("0" * 64, "A" * 64, "2026-11-23T12:00:00+00:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"),
    *("self", "none", "generated", "full", "compact", "feed_forward", "vgg16", "heads", "tiny", "train"),
)
_NUMBERS = (0, -1, 1, 3, 16, 68, 70, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, 1e300, -0.0)
_ODD = (None, True, False, float("inf"), float("nan"), [], {}, [[]], [None], {"": None}, [0] * 100)

VALUES = st.one_of(
    st.sampled_from(_WORDS),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_ODD),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=4,
    ),
)
"""JSON values of every kind, the awkward ones most of all."""

_TOKENS = (b"", b"\0", b"\xff", b"\n", b'"', b"{", b"[", b"]", b",", b"-1", b"NaN", b"1e999", b"9" * 400, b"\x80" * 9)


@st.composite
def documents(draw: st.DrawFn, valid: Any) -> Any:
    """The document with up to four of its values replaced, removed, doubled, moved or renamed."""
    document = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(document))
        if not places:
            return copy.deepcopy(draw(VALUES))
        parent, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("replace", "replace", "remove", "double", "move", "wrap"))):
            case "replace":
                parent[key] = copy.deepcopy(draw(VALUES))
            case "remove":
                del parent[key]
            case "double" if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case "double":
                parent[draw(st.sampled_from(_WORDS))] = copy.deepcopy(parent[key])
            case "move":
                other, there = draw(st.sampled_from(places))
                parent[key] = copy.deepcopy(other[there]) if _has(other, there) else None
            case _:
                parent[key] = [parent[key]]
    return document


@st.composite
def texts(draw: st.DrawFn, valid: Any) -> bytes:
    """The document as JSON, perhaps with a few bytes changed after that."""
    content = json.dumps(draw(documents(valid))).encode()
    return draw(edited(content)) if draw(st.integers(0, 3)) == 0 else content


@st.composite
def edited(draw: st.DrawFn, valid: bytes) -> bytes:
    """The bytes with up to six edits: bits, cuts, copies, numbers at their ends, and what parsers take for syntax."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((1, 1, 2, 4, 8, 30))))
        match draw(st.sampled_from(("bit", "bit", "byte", "ends", "cut", "copy", "token", "tail"))):
            case "bit" if start < len(content):
                content[start] ^= 1 << draw(st.integers(0, 7))
            case "byte" if start < len(content):
                content[start] = draw(st.integers(0, 255))
            case "ends":
                content[start:end] = draw(st.sampled_from((b"\0", b"\xff", b"\x7f"))) * (end - start)
            case "cut":
                del content[start:end]
            case "copy":
                content[start:start] = content[start:end]
            case "token":
                content[start:end] = draw(st.sampled_from(_TOKENS))
            case "tail":
                del content[start:]
    return bytes(content)


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every value below the top, by what holds it and where."""
    found: list[tuple[Any, Any]] = []
    left = [document]
    while left:
        holder = left.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            left.append(holder[key])
    return found


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)
