"""Opens the studio: a page for this machine's browser, from photos to a talking avatar.

th-jax studio
th-jax studio --folder my-avatars --port 8000
th-jax studio --host 0.0.0.0 --password "correct horse"

docs/studio.md describes the page.
"""

import argparse
import importlib.util
import os
import socket
from pathlib import Path

from th_jax.cli.options import DONE, UsageError, add_landmark_model, new_parser
from th_jax.optional import missing_extra
from th_jax.signals import interrupting
from th_jax.studio.guard import USER, check_access

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
    add_landmark_model(made)
    return made


def _port(written: str) -> int:
    if not (written.isascii() and written.isdecimal() and len(written) < 6 and 1 <= int(written) <= 65535):
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, but is {written[:100]}")
    return int(written)


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    password = options.password or os.environ.get(FROM_ENVIRONMENT) or None
    try:
        check_access(options.host, password)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, "the studio", extra="studio")
    check_port(options.host, options.port)
    from th_jax.studio.page import serve
    from th_jax.studio.session import Studio

    studio = Studio(options.folder, meta=options.meta)
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{shown}:{options.port} (folder {studio.folder.root}); Ctrl-C ends it", flush=True)
    try:
        with interrupting():
            serve(studio, host=options.host, port=options.port, password=password)
    except KeyboardInterrupt:
        pass
    finally:
        ended = studio.close()
    if not ended:
        os._exit(DONE)  # the interpreter would wait for the job, which the next start does again
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
