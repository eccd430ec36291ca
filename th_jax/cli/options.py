"""Shared by all commands: exit codes, creation of parsers, and the error for invalid combinations of options."""

import argparse
import re
import sys

from th_jax.parser import new_parser as new_parser
from th_jax.signals import INTERRUPTED as INTERRUPTED

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes, with INTERRUPTED, 75: the same command continues an interrupted run."""


FACE_HELP = "of several people in a photo or video, the one that th-jax faces numbers N; 1 is the most prominent"


def face_number(written: str) -> int:
    """Parse the number of a face, for argparse."""
    if not re.fullmatch("[1-9][0-9]{0,2}", written):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 999, but is {written}")
    return int(written)


def add_landmark_model(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the landmark model, which `th_jax.cli.main` applies."""
    from th_jax.faces.detect import LANDMARK_MODEL_HELP

    parser.add_argument("--landmark-model", metavar="MODEL", help=LANDMARK_MODEL_HELP)


def print_hint(text: str) -> None:
    """Print a hint to standard error."""
    print(text, file=sys.stderr)


class UsageError(ValueError):
    """Options that do not fit together."""


RENAMED = {"finetune": {"--manifest": "--people-file"}, "evaluate": {"--theirs": "--baseline"}}
"""New names of each command's options; the old ones are accepted until the next release."""


def with_new_names(command: str, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Replace renamed options by their new names; also returns the replaced ones."""
    names = RENAMED.get(command, {})
    parts = [argument.partition("=") for argument in arguments]
    used = {old: names[old] for old, _, _ in parts if old in names}
    return [names.get(old, old) + equals + value for old, equals, value in parts], used


def with_hyphens(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Replace underscores in the names of options by hyphens; return the new arguments, and the names that were changed."""
    written, old = [], []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and "_" in name and not name.startswith("--config."):
            old.append(name)
            argument = name.replace("_", "-") + equals + value
        written.append(argument)
    return written, old
