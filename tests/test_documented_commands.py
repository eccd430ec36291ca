"""Every command in a config's header, the README and the documents is one that its parser, or the Makefile, knows."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from th_jax.cli import finetune
from th_jax.cli.main import COMMANDS, main
from th_jax.cli.settings import changed, read_settings_file

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    *sorted({*ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.md")} - {ROOT / "docs/cli.md"}),
]
CONFIGS = [path for path in sorted(ROOT.glob("configs/*.py")) if path.name != "defaults.py"]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
PROGRAMS = {"train.py": "train", "finetune.py": "finetune", "demo.py": "demo"}


class Parsed(BaseException):
    """The options of a command, before it does anything with them."""


def split_commands(text: str) -> Iterator[list[str]]:
    """The commands of shell text, without comments and the virtual environment's folder; a backslash continues a line."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            command[0] = command[0].removeprefix(".venv/bin/")
            if command[0] == "python" and command[1:2] and command[1] in PROGRAMS:
                yield ["th-jax", PROGRAMS[command[1]], *command[2:]]
            elif command[0] in ("th-jax", "make"):
                yield command


def documented(path: Path) -> Iterator[list[str]]:
    """The commands of a document: in blocks of shell code, and as whole sentences of inline code."""
    text = path.read_text()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        yield from split_commands(block)
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)):
        if code.startswith(("th-jax ", "python train.py", "python finetune.py", ".venv/bin/")):
            yield from split_commands(code)
        elif re.fullmatch(r"make [a-z][a-z-]*", code):
            yield code.split()


def header_command(path: Path) -> str:
    """The command in a config's docstring."""
    found = re.search(r"^Command: +(.*?)\n(?=Hardware:)", path.read_text(), re.S | re.M)
    assert found, f"{path.name} has no line 'Command:' before 'Hardware:'"
    return found[1].replace("\\\\\n", " ").replace("\\\n", " ")


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch, *, names_only: bool) -> Any:
    """The options that a command's own parser makes of its arguments; with `names_only`, only their names are compared."""

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        if not names_only:
            raise Parsed(original(self, args, namespace))
        known = {option for parser in with_subparsers(self) for option in parser._option_string_actions}
        given = {word.partition("=")[0] for word in args if word.startswith("--")}
        assert given <= known, f"unknown options {given - known}"
        raise Parsed(None)

    original = argparse.ArgumentParser.parse_args
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            code = main(arguments)
        except Parsed as stopped:
            return stopped.args[0]
    assert code == 0, f"th-jax {shlex.join(arguments)} ends with {code}"
    return None


def with_subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from with_subparsers(child)


def check(command: list[str], monkeypatch: pytest.MonkeyPatch, *, names_only: bool = False) -> None:
    program, *arguments = command
    if program == "make":
        assert set(arguments) <= TARGETS, f"the Makefile has no target {arguments}"
        return
    assert arguments[0] in COMMANDS, f"th-jax has no command {arguments[0]}"
    options = parsed(arguments, monkeypatch, names_only=names_only)
    if options is None:
        return
    if arguments[0] == "finetune":
        finetune.check_combinations(options)
        assert options.people_file or options.consent, "no person is fine-tuned without --consent"
    if getattr(options, "changes", None) is not None and options.config is not None:
        changed(read_settings_file(ROOT / options.config), options.changes)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_of_every_config_works_as_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = list(split_commands(header_command(path)))
    assert any(command[0] == "th-jax" for command in commands)
    for command in commands:
        check(command, monkeypatch)
    own = [word for command in commands for word in command if word.startswith("configs/")]
    assert own == [f"configs/{path.name}"], "the header runs its own config"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_every_document_are_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In prose a command may be shortened; its options still exist."""
    in_blocks = [
        command for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.S) for command in split_commands(block)
    ]
    for command in documented(path):
        if command[0] == "th-jax" and len(command) == 1:
            continue
        shortened = command not in in_blocks or "..." in command
        check(command, monkeypatch, names_only=shortened)


@pytest.mark.parametrize(
    "command",
    [
        ["make", "coffee"],
        ["th-jax", "dance"],
        ["th-jax", "train", "--config", "configs/demo.py", "--workdr", "x"],
        ["th-jax", "train", "--config", "configs/demo.py", "--workdir", "x", "--config.sead=1"],
        ["th-jax", "train", "--config", "configs/nowhere.py", "--workdir", "x"],
        ["th-jax", "finetune", "--meta", "heads64", "--shots", "PHOTOS", "--out", "AVATARS"],
    ],
    ids=" ".join,
)
def test_the_check_sees(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, ValueError, OSError)):
        check(command, monkeypatch)
    if command[1] == "train" and "--workdr" in command:
        with pytest.raises(AssertionError):
            check(command, monkeypatch, names_only=True)
