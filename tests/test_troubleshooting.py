"""docs/troubleshooting.md: every message stands in the source, with placeholders where the program puts its values."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| `(.+?)` \|", PAGE, re.M)

PLACEHOLDER = re.compile(
    r"'?\b(?:FILE|FOLDER|NAME|NETWORK|SECTION|PURPOSE|COMMAND|REASON|ADVICE|ADDRESS|DIGEST|TIME|MEMORY|DEVICES|COPIES|FACES"
    r"|N|M)\b'?"
)
HOLE = "\0"


def text_of(node: ast.AST) -> str | None:
    """The text of a literal, with a hole for each value that is formatted into it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)


@functools.cache
def sources() -> dict[Path, str]:
    return {path: path.read_text() for top in ("th_jax", "data_prep") for path in (ROOT / top).rglob("*.py")}


@functools.cache
def literals(path: Path) -> str:
    """All texts of a file, one after another."""
    texts = (text_of(node) for node in ast.walk(ast.parse(sources()[path])))
    return "\n".join(text for text in texts if text)


def is_in_source(message: str) -> bool:
    wanted = PLACEHOLDER.sub(HOLE, message)
    # A literal may go on in the next line, but hardly within its first characters: other files need not be parsed.
    beginning = next(part for part in wanted.split(HOLE) if len(part) > 3)[:12]
    return any(wanted in literals(path) for path, text in sources().items() if beginning in text)


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) >= 25
    assert len(set(MESSAGES)) == len(MESSAGES)
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(MESSAGES)
    assert all(line.count(" | ") == 2 for line in rows)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_stands_in_the_source(message: str) -> None:
    assert is_in_source(message), "no text of th_jax or data_prep has these words: the page is out of date"


@pytest.mark.parametrize("message", ["no face was found on FILE", "FILE has gone", "this consent expired in TIME"])
def test_the_check_sees(message: str) -> None:
    assert not is_in_source(message)
