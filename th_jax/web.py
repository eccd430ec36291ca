"""Local web pages with Flask and Waitress: strict headers, and a server that prints its address."""

import logging
from collections.abc import Callable

from flask import Flask, Response
from waitress.server import create_server

_HEADERS = {
    # The page loads nothing from elsewhere, and no other page can frame it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def harden(app: Flask) -> None:
    """Add headers to every response with which a browser loads nothing from elsewhere."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response


def serve_app(app: Flask, *, host: str = "127.0.0.1", port: int = 8000, at_end: Callable[[], None]) -> None:
    """Serve until interrupted. Port 0 selects a free one; the address is printed.

    Args:
        app: the application.
        host: address to listen on; only this machine by default.
        port: port from 0 to 65535.
        at_end: called after the last request.

    Raises:
        ValueError, OSError: if the port or host is invalid, the address is in use, or it is not one of this machine.
    """
    check_port(port)
    for name in ("waitress", "waitress.queue"):  # requests that wait, or are canceled at the end, need not be reported
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        # The application limits bodies; this limit only keeps Waitress from storing much more than that.
        server = create_server(app, host=host, port=port, threads=4, max_request_body_size=2**20, ident=None)
    except OSError as error:
        raise OSError(f"cannot serve {host}:{port}: {error.strerror or error}") from error
    except ValueError as error:  # Waitress does not say which
        raise ValueError(f"cannot serve {host}:{port}: unknown host name {host!r}") from error
    print(f"serving http://{server.effective_host}:{server.effective_port}/ (end with Ctrl-C)", flush=True)
    try:
        server.run()
    finally:
        server.close()
        at_end()


def check_port(port: int) -> None:
    """Check a port's number.

    Raises:
        ValueError: if it is not from 0 to 65535.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"a port must be 0 to 65535, got {port}")
