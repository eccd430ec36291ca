"""What all commands share: exit codes, how a parser is made, and the error for a wrong combination of options."""

import argparse

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


RENAMED = {"finetune": {"--manifest": "--people-file"}, "evaluate": {"--theirs": "--baseline"}}
"""New names of each command's options; the old ones are accepted until the next release."""


def with_new_names(command: str, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Replace renamed options by their new names; also returns the replaced ones."""
    names = RENAMED.get(command, {})
    parts = [argument.partition("=") for argument in arguments]
    used = {old: names[old] for old, _, _ in parts if old in names}
    return [names.get(old, old) + equals + value for old, equals, value in parts], used


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
