"""Removes people or videos from a finished data set, or all files that derive from a person below a folder.

th-jax prepare forget data/people id10001 id10002/video
th-jax prepare forget . ada --everywhere --consent ada.consent.json --dry-run

The other rows of the video table do not move. With --everywhere the folder is searched for rows of data sets, images that the
consent record names, avatars and their outputs, folders and jobs of studios, and caches; --dry-run lists them and changes
nothing. No other program may use the folder at the same time.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_prep.build.sources import read_names
from data_prep.forget.rows import LOG_FILE, Forgotten, forget
from data_prep.forget.traces import check_request, complete_stopped, find_traces, remove_traces
from th_jax.consent import read_consent
from th_jax.console import check_printed
from th_jax.parser import new_parser
from th_jax.text import escape_control_chars

__all__ = ["LOG_FILE", "Forgotten", "forget", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0.

    Raises:
        ValueError, OSError: if nothing was named, or something cannot be found or removed.
    """
    options = _parser().parse_args(arguments)
    listed = read_names(options.takedown) if options.takedown else frozenset()
    if options.everywhere:
        _everywhere(options, frozenset(options.names) | listed)
        return 0
    if options.consent is not None or options.dry_run:
        raise ValueError("--consent and --dry-run need --everywhere")
    if not options.names and options.takedown is None:
        raise ValueError("no person was named: give a person or a video, or --takedown with a list")
    done = [forget(options.folder, options.names), forget(options.folder, listed, missing_is_error=False)]
    videos = sum(len(part.row_keys) for part in done)
    shards = len({shard for part in done for shard in part.shards})
    less = sum(part.removed_bytes for part in done)
    print(f"{options.folder}: removed {videos} videos; rewrote {shards} shards, {less} bytes less")
    if videos:
        print(f"the log is {options.folder / LOG_FILE}")
    return 0


def _everywhere(options: argparse.Namespace, names: frozenset[str]) -> None:
    consent = None if options.consent is None else read_consent(options.consent)
    check_request(options.folder, names, consent)
    if not options.dry_run:
        complete_stopped(options.folder)
    traces = find_traces(options.folder, names, consent=consent)
    lines = traces.lines()
    # Listed before anything is removed, in case the removal fails halfway or the list cannot be printed.
    for line in lines:
        print(escape_control_chars(line))
    for path, why in traces.doubts.items():
        print(escape_control_chars(f"stays: {path} {why}"))
    if not options.dry_run:
        check_printed()
        remove_traces(traces)
    done = "would be removed (dry run)" if options.dry_run else "removed"
    print(f"{escape_control_chars(str(options.folder))}: {len(lines)} items {done}")


def _folder(written: str) -> Path:
    if not written.strip():
        raise argparse.ArgumentTypeError("the folder's name is empty, which would mean the current folder")
    return Path(written)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("prepare forget", __doc__)
    parser.add_argument("folder", type=_folder, help="folder of the data set; with --everywhere the folder to search")
    parser.add_argument("names", nargs="*", metavar="ID", help="person, or id of a video")
    parser.add_argument(
        "--takedown", type=Path, metavar="LIST", help="file with more of them, one per line; unknown ones are skipped"
    )
    parser.add_argument(
        "--everywhere", action="store_true", help="search the folder for all files that derive from them"
    )
    parser.add_argument("--consent", type=Path, metavar="FILE", help="their consent record, which is not removed")
    parser.add_argument("--dry-run", action="store_true", help="list what --everywhere would remove")
    return parser
