"""Removes people or videos from a finished data set, or all that is left of a person below a folder.

th-jax prepare forget data/people id10001 id10002/video
th-jax prepare forget . ada --everywhere --consent ada.consent.json --dry-run

Rows of the video table keep their meaning (`data_prep.forget_rows`). With --everywhere the folder is searched: for rows in
data sets, pictures that the consent record names, avatars, what they made, and caches (`data_prep.forget_traces`); --dry-run
lists them and changes nothing. No other program may be at work in the folder meanwhile.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.forget_rows import LOG_FILE, Forgotten, forget
from data_prep.forget_traces import check_request, complete_stopped, find_traces, remove_traces
from data_prep.sources import read_names
from th_jax.consent import read_consent
from th_jax.console import check_printed, forgiving_output
from th_jax.text import escape_control_chars

__all__ = ["LOG_FILE", "Forgotten", "forget", "main"]


@forgiving_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 if it was done, 1 if not."""
    options = _parser().parse_args(arguments)
    try:
        listed = read_names(options.takedown) if options.takedown else frozenset()
        if options.everywhere:
            _everywhere(options, frozenset(options.names) | listed)
            return 0
        if options.consent is not None or options.dry_run:
            raise ValueError("--consent and --dry-run go with --everywhere")
        if not options.names and options.takedown is None:
            raise ValueError("nobody was named: give a person or a video, or --takedown with a list")
        done = [forget(options.folder, options.names), forget(options.folder, listed, missing_is_error=False)]
    except (ValueError, OSError) as error:
        print(f"th-jax prepare forget: {escape_control_chars(str(error))}", file=sys.stderr)
        return 1
    videos = sum(len(part.row_keys) for part in done)
    shards = len({shard for part in done for shard in part.shards})
    less = sum(part.removed_bytes for part in done)
    print(f"{options.folder}: forgot {videos} videos; wrote {shards} shards anew, {less} bytes less")
    if videos:
        print(f"what was done is in {options.folder / LOG_FILE}")
    return 0


def _everywhere(options: argparse.Namespace, names: frozenset[str]) -> None:
    consent = None if options.consent is None else read_consent(options.consent)
    check_request(options.folder, names, consent)
    if not options.dry_run:
        complete_stopped(options.folder)
    traces = find_traces(options.folder, names, consent=consent)
    lines = traces.lines()
    # Before anything is removed: if that fails half-way, or nobody can be told, it is known what was about to go.
    for line in lines:
        print(escape_control_chars(line))
    for path, why in traces.doubts.items():
        print(escape_control_chars(f"stays: {path} {why}"))
    if not options.dry_run:
        check_printed()
        remove_traces(traces)
    done = "would be removed, and nothing was" if options.dry_run else "removed"
    print(f"{escape_control_chars(str(options.folder))}: {len(lines)} traces {done}")


def _folder(written: str) -> Path:
    if not written.strip():
        raise argparse.ArgumentTypeError("the folder's name is empty: it would mean the one you are in")
    return Path(written)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="th-jax prepare forget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=_folder, help="of the data set; with --everywhere the folder to search")
    parser.add_argument("names", nargs="*", metavar="ID", help="a person, or the id of a video")
    parser.add_argument(
        "--takedown", type=Path, metavar="LIST", help="more of them, one a line; unknown ones are passed over"
    )
    parser.add_argument("--everywhere", action="store_true", help="search the folder for all that is left of them")
    parser.add_argument("--consent", type=Path, metavar="FILE", help="their consent record, which stays where it is")
    parser.add_argument("--dry-run", action="store_true", help="list what --everywhere would remove")
    return parser


if __name__ == "__main__":
    sys.exit(main())
