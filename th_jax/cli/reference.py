"""Generates docs/cli.md from the parsers: `python -m th_jax.cli.reference > docs/cli.md`."""

import contextlib
import io
import os
from collections.abc import Iterator

from th_jax.cli.main import COMMANDS, main
from th_jax.cli.prepare import TASKS

_SUBCOMMANDS = {
    "consent": ("make", "check", "revoke", "schema"),
    "study": ("build", "serve", "report"),
    "prepare": tuple(task for task in TASKS if task != "beam"),  # whose package is an extra
}
_WIDTH = 110

_HEADER = """\
# Command line

`th-jax COMMAND` is installed with the package. `train` and `prepare` need a checkout, the others do not. This page is
generated from the parsers (`make docs`).

Options are written with hyphens. Underscores, and `--config.KEY=VALUE` in place of `--set KEY=VALUE`, work until the next
release.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed: one sentence on standard error states the problem and the remedy |
| 2 | unknown or incompatible options |
| 75 | interrupted: run the same command again to continue |

`th-jax verify` has its own exit codes, which its help lists.

Compiled programs are kept in a cache of the user (`~/.cache/th_jax/compiled` on Linux, mode 0700, at most 4 GiB), and traced
programs beside them, so that a second run begins without tracing or compiling. `TH_JAX_COMPILE_CACHE=off` switches it off,
another value names another folder; where `JAX_COMPILATION_CACHE_DIR` is set, JAX's own settings hold.
"""


def reference() -> str:
    """Return the page as Markdown."""
    return _HEADER + "".join(_section(names) for names in _all_commands())


def _all_commands() -> Iterator[tuple[str, ...]]:
    for name in COMMANDS:
        yield (name,)
        for subcommand in _SUBCOMMANDS.get(name, ()):
            yield name, subcommand


def _section(names: tuple[str, ...]) -> str:
    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_WIDTH)  # argparse reads the terminal's width there
    try:
        with contextlib.redirect_stdout(text):
            main([*names, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return f"\n{'#' * (len(names) + 1)} th-jax {' '.join(names)}\n\n```\n{text.getvalue().strip()}\n```\n"


if __name__ == "__main__":
    print(reference(), end="")
