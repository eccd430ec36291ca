"""What all commands share: how a parser is made, options that several have, and the error for a wrong combination of them."""

import argparse
from pathlib import Path

from th_jax.provenance.signing_options import CERTIFICATE_HELP, KEY_HELP

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 75
"""Exit codes; 75 is sysexits' "try again": the same command goes on where it was interrupted."""


class UsageError(ValueError):
    """Options that do not fit together."""


def new_parser(name: str, description: str, *, example: str = "") -> argparse.ArgumentParser:
    """The parser of `th-jax NAME`, with an example under its options."""
    return argparse.ArgumentParser(
        prog=f"th-jax {name}",
        description=description,
        epilog=f"example: {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_signing_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options `--signing-key FILE` and `--signing-certificate FILE`."""
    parser.add_argument("--signing-key", type=Path, metavar="FILE", help=KEY_HELP)
    parser.add_argument("--signing-certificate", type=Path, metavar="FILE", help=CERTIFICATE_HELP)


def with_hyphens(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options as they are written now, `--signing-key`, where `--signing_key` was written, and those that were changed."""
    written, old = [], []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and "_" in name and not name.startswith("--config."):
            old.append(name)
            argument = name.replace("_", "-") + equals + value
        written.append(argument)
    return written, old
