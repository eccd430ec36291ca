"""Reports which images and videos are marked as generated, and by which marks, with an exit code for scripts.

exit codes, the worst of several files counting:
  0  marked, and as it was when it was marked
  4  stripped: a watermark was found, but no manifest
  1  not found: no mark, which proves nothing
  2  altered: there is a mark that does not fit the file
  3  unreadable: no image or video, damaged, or over a limit
  5  nothing was looked at: wrong options, or packages are missing
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from th_jax.cli.options import new_parser
from th_jax.provenance.signing import load_anchors
from th_jax.provenance.verify import SEARCH_SECONDS, printable, verify_file, worst

NOTHING_DONE = 5


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("verify", __doc__, example="th-jax verify ada.mp4 --json")
    made.add_argument("files", nargs="+", metavar="FILE", help="images and videos")
    made.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    made.add_argument("--trust", type=Path, metavar="PEM", help="root certificates whose signers are trusted")
    made.add_argument(
        "--seconds",
        type=float,
        default=SEARCH_SECONDS,
        help="duration of a video that is searched for watermarks, in seconds; default: 120",
    )
    # Exit code 2 means an altered file here, so usage errors have another code.
    made.error = lambda message: _wrong_options(made, message)  # type: ignore[method-assign]
    return made


def _wrong_options(made: argparse.ArgumentParser, message: str) -> NoReturn:
    made.print_usage(sys.stderr)
    made.exit(NOTHING_DONE, f"{made.prog}: {printable(message)}\n")


def run(options: argparse.Namespace) -> int:
    """Check the files; return the exit code of the worst one."""
    try:
        return _run(options)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        print(f"th-jax verify: {printable(str(error))}", file=sys.stderr)
        return NOTHING_DONE


def _run(chosen: argparse.Namespace) -> int:
    anchors = None if chosen.trust is None else load_anchors(chosen.trust)
    reports = []
    for file in chosen.files:
        report = verify_file(file, trust_anchors=anchors, seconds=chosen.seconds)
        reports.append(report)
        if not chosen.json:
            print("\n  ".join([f"{printable(report.file)}: {report.verdict}", *report.lines]), flush=True)
    verdict = worst(report.verdict for report in reports)
    if chosen.json:
        answer = {"worst": verdict.value, "exit_code": verdict.exit_code, "files": [one.to_dict() for one in reports]}
        print(json.dumps(answer, indent=2), flush=True)
    return verdict.exit_code
