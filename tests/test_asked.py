"""docs/asked.md: every answer has a command that its parser takes and a test that exists, or is a no with its reason."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from th_jax.cli import finetune
from th_jax.cli.main import COMMANDS, load

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "asked.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")

ASKED = (
    *(
        "install",
        "trembles",
        "training code",
        "resolution",
        "webcam",
        "CPU, or on a Mac",
        "speak a text",
        "several faces",
    ),
    *("How fast", "gaze", "commercially", "shoulders", "API", "no face found", "reproduce the metrics", "new GPU"),
    *(
        "length of the video",
        "neutral",
        "Colab",
        "Docker",
        "profile",
        "ComfyUI",
        "demo looks better",
        "sliders",
        "alpha",
    ),
)


def commands(text: str) -> list[list[str]]:
    """The commands in a section's blocks of shell code, without variables before them."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    split = [shlex.split(line) for line in lines]
    return [words[1:] if "=" in words[0] else words for words in split]


def is_a_no(text: str) -> bool:
    return text.strip().startswith("No: ") or text.strip().startswith("No. ")


def test_all_25_questions_are_asked_once() -> None:
    assert len(ASKED) == len(SECTIONS) == 25
    for words in ASKED:
        assert sum(words in title for title in SECTIONS) == 1, words


@pytest.mark.parametrize("title", SECTIONS)
def test_an_answer_is_kept_by_tests_that_exist_or_is_a_no_with_its_reason(title: str) -> None:
    found = TEST.findall(SECTIONS[title])
    assert found or (is_a_no(SECTIONS[title]) and len(SECTIONS[title].split()) > 30), "neither a test nor a reason"
    assert ("Kept" in SECTIONS[title]) == bool(found)
    for file, name in found:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file} has no {name}"
    assert SECTIONS[title].count("`tests/") == len(found), "a test is named as `tests/FILE.py::test_NAME`"


@pytest.mark.parametrize("title", SECTIONS)
def test_the_commands_are_those_of_their_parsers(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = commands(SECTIONS[title])
    assert given or is_a_no(SECTIONS[title]), "an answer has a command"
    for program, *arguments in given:
        if program in ("make", "pip"):
            continue
        assert program.removeprefix(".venv/bin/") == "th-jax"
        name, *options = arguments
        command = load(name)
        assert name in COMMANDS
        if hasattr(command, "delegate"):  # a program with its own parser, tried by test_documented_commands
            continue
        parsed = command.parse(options) if hasattr(command, "parse") else command.parser().parse_args(options)
        if name == "finetune":
            finetune.check_combinations(parsed)


def test_the_page_is_in_the_navigation() -> None:
    assert re.search(r"^ +- Often asked: asked\.md$", (ROOT / "mkdocs.yml").read_text(), re.M)
