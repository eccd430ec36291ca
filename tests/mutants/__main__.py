"""Puts small plausible bugs into a copy of the project, one at a time, and says which ones the tests notice.

`make mutants`, or `python -m tests.mutants L1 T3` for some of the bugs in bugs.toml. A bug is noticed if one of its tests
fails, which must pass without it: the test that is most likely to notice first, then the file of its module.
"""

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
BUGS = Path(__file__).parent / "bugs.toml"
LEAST = 0.9
"""Share of the bugs that must be noticed."""

_COPIED = ("th_jax", "tests", "configs", "data_prep", "benchmarks")
_TESTS_FAILED = 1
"""pytest's exit code for that; others say that the tests did not run."""


class Bug(NamedTuple):
    """A text that occurs once in a file, and what takes its place."""

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: list[str]
    """Files, or single tests of them as "file::test", the one that is most likely to notice first."""


class StaleBugError(ValueError):
    """A bug that fits the project no longer."""


def known_bugs() -> list[Bug]:
    """All of bugs.toml."""
    return [Bug(**entry) for entry in tomllib.loads(BUGS.read_text(encoding="utf-8"))["bug"]]


def with_bug(bug: Bug, root: Path) -> str:
    """The text of the bug's file with the bug in it.

    Raises:
        StaleBugError: if file, text or tests are not there, or the text occurs more than once.
    """
    for name in (bug.file, *bug.tests):
        path, _, test = name.partition("::")
        if not (root / path).is_file() or f"def {test}" not in (root / path).read_text(encoding="utf-8"):
            raise StaleBugError(f"bug {bug.name} names {name}, which does not exist: change its entry in {BUGS.name}")
    text = (root / bug.file).read_text(encoding="utf-8")
    if text.count(bug.old) != 1 or bug.old == bug.new:
        raise StaleBugError(
            f"bug {bug.name} replaces a text that must occur once in {bug.file}, but occurs {text.count(bug.old)} times: "
            f"change its entry in {BUGS.name}"
        )
    return text.replace(bug.old, bug.new)


def run_test(root: Path, test: str, *, seconds: float) -> int:
    """pytest's exit code for a file or a test of a copy; a run that is too long has failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    try:
        return subprocess.run(
            command,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return _TESTS_FAILED


def noticed_by(bug: Bug, root: Path, *, seconds: float) -> str | None:
    """The first test that fails with the bug in this copy of the project, which is then as it was before; None if all pass.

    Raises:
        RuntimeError: if they could not be run.
    """
    path = root / bug.file
    before, spoiled = path.read_text(encoding="utf-8"), with_bug(bug, root)
    path.write_text(spoiled, encoding="utf-8")
    try:
        for test in bug.tests:
            code = run_test(root, test, seconds=seconds)
            if code == _TESTS_FAILED:
                return test
            if code:
                raise RuntimeError(
                    f"pytest ended with {code} at {test}, with bug {bug.name}: the bug is not a fair one"
                )
        return None
    finally:
        path.write_text(before, encoding="utf-8")


def copied(folder: Path) -> Path:
    """A copy of what the tests need."""
    root = folder / "project"
    root.mkdir()
    for name in _COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, root)
    return root


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of the bugs; all by default")
    parser.add_argument("--seconds", type=float, default=900.0, help="that a test or a file of them may take")
    chosen = parser.parse_args(arguments)
    bugs = known_bugs()
    if unknown := sorted(set(chosen.names) - {bug.name for bug in bugs}):
        parser.error(f"there is no bug called {', '.join(unknown)}")
    try:
        for bug in bugs:
            with_bug(bug, ROOT)
    except StaleBugError as error:
        parser.error(str(error))
    bugs = [bug for bug in bugs if not chosen.names or bug.name in chosen.names]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        clean = functools.cache(lambda test: run_test(root, test, seconds=chosen.seconds) == 0)
        for bug in bugs:
            start = time.monotonic()
            test = noticed_by(bug, root, seconds=chosen.seconds)
            if test and not clean(test):
                parser.error(f"{test} does not pass without a bug: nothing can be said")
            verdict = f"noticed by {test}" if test else "SURVIVED"
            print(f"{bug.name:<5}{time.monotonic() - start:6.0f} s  {bug.what}: {verdict}", flush=True)
            survivors += [] if test else [bug.name]
    share = 1 - len(survivors) / len(bugs)
    print(f"{len(bugs) - len(survivors)} of {len(bugs)} noticed; survived: {', '.join(survivors) or 'none'}")
    return 0 if share >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
