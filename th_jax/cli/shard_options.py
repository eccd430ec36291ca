"""Options of commands that make one of N shards of their work: --shard I/N, --shard-count N, or a scheduler's variables."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from th_jax.avatars.shards import MAX_SHARDS, Shard, ShardError, only_writer, parse_shard, shard_of_environment
from th_jax.cli.options import UsageError


def add_shard_options(parser: argparse.ArgumentParser, *, what: str) -> None:
    """Add the options --shard I/N and --shard-count N.

    Args:
        parser: parser of a command.
        what: what the command does for a shard only, such as "make the people".
    """
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=_shard,
        help=f"{what} of shard I of N only, I from 1 to N; default: from "
        "the variables of a Kubernetes, Slurm, Cloud Run, AWS Batch or SkyPilot array",
    )
    parser.add_argument(
        "--shard-count", metavar="N", type=_shard_count, help="number of shards, if the scheduler gives only the index"
    )


def requested_shard(options: argparse.Namespace) -> Shard | None:
    """Return the shard of the options or of the scheduler's variables; None if everything is requested.

    Raises:
        UsageError: if a scheduler's variables are malformed or not sufficient, or both options are given.
    """
    if options.shard is not None and options.shard_count is not None:
        raise UsageError("give either --shard I/N or --shard-count N: a shard has its count already")
    if options.shard is not None:
        return None if options.shard.total == 1 else options.shard
    try:
        return shard_of_environment(os.environ, count=options.shard_count)
    except ShardError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def only_report(out: str | Path, name: str) -> Iterator[None]:
    """Hold the lock of a report in a folder, and say so if the file system has none.

    Args:
        out: folder of the report.
        name: name of the report.

    Raises:
        ShardInUseError: if another process holds the lock.
        OSError: if the report cannot be opened.
    """
    with only_writer(Path(out) / name) as locked:
        if not locked:
            print(f"{out} has no file locks: run each shard in one process at a time", file=sys.stderr)
        yield


def _shard(written: str) -> Shard:
    try:
        return parse_shard(written)
    except ShardError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shard_count(written: str) -> int:
    if not (written.isascii() and written.isdecimal() and len(written) < 10 and 1 <= int(written) <= MAX_SHARDS):
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_SHARDS}, but is {written[:100]}")
    return int(written)
