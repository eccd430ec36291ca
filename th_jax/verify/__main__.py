"""Says which pictures and films are marked as made by a machine, by which marks and whose, with an exit code for scripts.

python -m th_jax.verify FILE... [--json]

exit codes, the worst of several files counting:
  0  marked, and as it was when it was marked
  4  stripped: a watermark was found, but no manifest
  1  not found: no mark, which proves nothing
  2  altered: there is a mark that does not fit the file
  3  unreadable: no picture or film, damaged, or over a limit
  5  nothing was looked at: wrong options, or packages are missing
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from th_jax.console import forgiving_output
from th_jax.media.signing import load_anchors
from th_jax.verify.file import FILM_SECONDS, printable, verify_file
from th_jax.verify.verdict import worst

NOTHING_DONE = 5


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(NOTHING_DONE, f"{self.prog}: {printable(message)}\n")


@forgiving_output()
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    chosen = _parser().parse_args(arguments)
    try:
        return _run(chosen)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        print(f"th_jax.verify: {printable(str(error))}", file=sys.stderr)
        return NOTHING_DONE
    except KeyboardInterrupt:
        return 130


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m th_jax.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="pictures and films")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument("--trust", type=Path, metavar="PEM", help="root certificates whose signers are trusted")
    parser.add_argument(
        "--seconds", type=float, default=FILM_SECONDS, help="of a film that are searched for watermarks, 120 by default"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
