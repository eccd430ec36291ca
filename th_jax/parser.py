"""Parsers of command lines: defaults in every help text, and one line for a wrong option."""

import argparse
import difflib
import re
from pathlib import Path
from typing import NoReturn


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default to the help of each option that has one and does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default in ("", argparse.SUPPRESS) or "default" in text or not action.option_strings:
            return text
        if isinstance(default, bool) or not isinstance(default, str | int | float | Path):
            return text
        return f"{text}; default: {default:g}" if isinstance(default, float) else f"{text}; default: {default}"


class _Parser(argparse.ArgumentParser):
    """Ends with one line for wrong options, which names the option that was probably meant."""

    def error(self, message: str) -> NoReturn:
        advice = f"{self.prog} --help lists the options"
        if found := re.fullmatch(r"unrecognized arguments: (--[^ =]+).*", message):
            message = f"unknown option {found[1]}"
            if near := difflib.get_close_matches(found[1], self._option_string_actions, n=1):
                advice = f"did you mean {near[0]}?"
        self.exit(2, f"{self.prog}: {message}; {advice}\n")


def new_parser(name: str, description: str | None, *, example: str = "") -> argparse.ArgumentParser:
    """Create the parser of `th-jax NAME`, with an example below its options."""
    return _Parser(
        prog=f"th-jax {name}",
        description=description,
        epilog=f"example: {example}" if example else None,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
