"""Opens the studio: a page for this machine's browser, from photos to a talking avatar.

th-jax studio
th-jax studio --folder my-avatars --port 8000
th-jax studio --host 0.0.0.0 --password "correct horse"
th-jax studio --users users.json --add-user ada
th-jax studio --users users.json --host 0.0.0.0 --workers 2 --keep-results 7d

docs/studio.md describes the page, docs/serving.md a studio for several users.
"""

import argparse
import importlib.util
import math
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from th_jax.cli.options import DONE, UsageError, add_landmark_model, new_parser
from th_jax.optional import missing_extra
from th_jax.signals import interrupting
from th_jax.studio.guard import check_access
from th_jax.studio.limits import NO_LIMITS, SERVED, Limits
from th_jax.studio.users import USER, Accounts, add_user, digest_of, read_users

if TYPE_CHECKING:
    from th_jax.studio.studios import Studios

FROM_ENVIRONMENT = "TH_JAX_STUDIO_PASSWORD"
"""Environment variable of the password, which other users of the machine cannot read, unlike a command line."""

NEEDED = ("gradio", "av", "dlib")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = new_parser("studio", __doc__)
    made.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's need --password"
    )
    made.add_argument("--port", type=_port, default=7860, help="port to listen on; default: 7860")
    made.add_argument(
        "--password",
        help=f"password of the user {USER!r}; default: {FROM_ENVIRONMENT}, or none, for this machine only",
    )
    made.add_argument(
        "--folder", type=Path, default=Path("studio"), help="folder of avatars and results; default: studio"
    )
    made.add_argument(
        "--meta", default="heads", help="meta weights: a bundled name, a released file, or a run's folder"
    )
    made.add_argument(
        "--users", type=Path, metavar="FILE", help="file of users, each with a token and a folder of their own"
    )
    made.add_argument(
        "--add-user",
        metavar="NAME",
        help="add a user to the file of --users, or give them a new token; prints it and ends",
    )
    made.add_argument(
        "--workers", type=_count, default=0, metavar="N",
        help="processes that make avatars and videos; default: 0, which makes them in the studio's own",
    )  # fmt: skip
    made.add_argument(
        "--keep-results", type=_duration, metavar="TIME",
        help="delete results after this time, such as 12h or 7d; default: they are kept",
    )  # fmt: skip
    given = "with --users or --password {}, otherwise none"
    made.add_argument(
        "--requests-per-minute", type=_limit, metavar="N",
        help=f"limit of each user over HTTP; 0: none; default: {given.format(SERVED.requests)}",
    )  # fmt: skip
    made.add_argument(
        "--jobs-per-hour", type=_limit, metavar="N",
        help=f"limit of each user; 0: none; default: {given.format(SERVED.jobs)}",
    )  # fmt: skip
    made.add_argument(
        "--disk-gib", type=_limit, metavar="GIB",
        help=f"size of each user's folder; 0: no limit; default: {given.format(_GIB_SERVED)}",
    )  # fmt: skip
    made.add_argument(
        "--max-seconds", type=_limit, metavar="S",
        help=f"length of videos; 0: no limit; default: {given.format(SERVED.seconds)}",
    )  # fmt: skip
    made.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # started by the studio, not by users
    add_landmark_model(made)
    return made


_GIB_SERVED = (SERVED.disk_bytes or 0) // 2**30

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(written: str) -> float:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d{1,3})?)([mhd])", written, re.ASCII)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"must be a time such as 30m, 12h or 7d, but is {written[:100]!a}")
    return float(found[1]) * _UNITS[found[2]]


def _limit(written: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, but is {written[:100]!a}")
    return value


def _count(written: str) -> int:
    if not (written.isascii() and written.isdecimal() and int(written[:9]) <= 64):
        raise argparse.ArgumentTypeError(f"must be 0 to 64, but is {written[:100]!a}")
    return int(written)


def limits_of(options: argparse.Namespace) -> Limits:
    """Return the limits of each user: those of the options, and others where several people are let in.

    Args:
        options: parsed options.
    """
    usual = SERVED if options.users is not None or _password(options) else NO_LIMITS
    requests, jobs, gib, seconds = (
        getattr(options, name) for name in ("requests_per_minute", "jobs_per_hour", "disk_gib", "max_seconds")
    )
    return Limits(
        requests=usual.requests if requests is None else int(requests) or None,
        jobs=usual.jobs if jobs is None else int(jobs) or None,
        disk_bytes=usual.disk_bytes if gib is None else int(gib * 2**30) or None,
        seconds=usual.seconds if seconds is None else seconds or None,
    )


def _password(options: argparse.Namespace) -> str | None:
    return options.password or os.environ.get(FROM_ENVIRONMENT) or None


def _port(written: str) -> int:
    if not (written.isascii() and written.isdecimal() and len(written) < 6 and 1 <= int(written) <= 65535):
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, but is {written[:100]}")
    return int(written)


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    if options.add_user is not None:
        return _add_user(options)
    if options.worker:
        return _work(options)
    password = _password(options)
    try:
        check_access(options.host, password, users=options.users is not None)
    except ValueError as error:
        raise UsageError(str(error)) from error
    accounts = None if password is None else Accounts({USER: digest_of(password)})
    if options.users is not None:
        accounts = read_users(options.users)
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, "the studio", extra="studio")
    check_port(options.host, options.port)
    from th_jax.studio.page import serve
    from th_jax.studio.studios import Studios
    from th_jax.studio.workers import Workers

    limits = limits_of(options)
    users = None if options.users is None or accounts is None else accounts.names
    studios = Studios(
        options.folder, meta=options.meta, users=users, limits=limits, keep_seconds=options.keep_results
    )  # fmt: skip
    studios.start(workers=0 if options.workers else 1)
    workers = Workers(_worker_command(options), options.workers)
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{shown}:{options.port} (folder {studios.root}); Ctrl-C ends it", flush=True)
    try:
        with interrupting():
            serve(studios, host=options.host, port=options.port, accounts=accounts, requests=limits.requests)
    except KeyboardInterrupt:
        pass
    finally:
        workers.close()
        _close(studios)
    return DONE


def _close(studios: "Studios") -> None:
    if not studios.close():
        os._exit(DONE)  # the interpreter would wait for the job, which the next start does again


def _add_user(options: argparse.Namespace) -> int:
    if options.users is None:
        raise UsageError("--add-user needs the file of the users: give --users FILE")
    print(add_user(options.users, options.add_user))
    return DONE


def _worker_command(options: argparse.Namespace) -> list[str]:
    words = [sys.executable, "-m", "th_jax.cli.main", "studio", "--worker"]
    words += ["--folder", str(options.folder), "--meta", options.meta]
    words += [] if options.landmark_model is None else ["--landmark-model", options.landmark_model]
    return words if options.users is None else [*words, "--users", str(options.users)]


_NICENESS = 10
"""Niceness of workers: answers over HTTP need a core at once, jobs take what is left."""


def _work(options: argparse.Namespace) -> int:
    """Do jobs of the studio that started this process until it ends."""
    from th_jax.studio.studios import Studios

    os.nice(_NICENESS)
    users = None if options.users is None else read_users(options.users).names
    studios = Studios(options.folder, meta=options.meta, users=users, serves=False)
    studios.start()
    try:
        sys.stdin.buffer.read()
    finally:
        _close(studios)
    return DONE


def check_port(host: str, port: int) -> None:
    """Check that a port is free.

    Raises:
        OSError: if it is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port"
        ) from error
