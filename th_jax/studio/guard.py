"""Limits of the studio's server: which addresses it may listen on, and which requests it answers. Needs no Gradio."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_UPLOAD_BYTES = 2 * 2**30
"""Maximum size of a request, in bytes."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'"
)
"""Content security policy: the page loads nothing from other servers."""

USER = "studio"
"""User name that belongs to the password."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(host: str, password: str | None) -> None:
    """Check that other machines cannot reach the studio without a password.

    Raises:
        ValueError: if another host than this machine is given without a password, or the password is too short.
    """
    if password is None and not is_loopback(host):
        raise ValueError(f"--host {host} lets other machines in: give --password too, or leave --host out")
    if password is not None and len(password) < 8:
        raise ValueError("--password must have at least 8 characters")


def login(password: str) -> Callable[[str, str], bool]:
    """Return the check of a user name and a password, which takes the same time for all wrong ones."""

    def check(user: str, given: str) -> bool:
        same = hmac.compare_digest(given.encode(), password.encode())
        return hmac.compare_digest(user.encode(), USER.encode()) and same

    return check


def rejection(method: str, headers: Message, *, local: bool) -> tuple[int, str] | None:
    """Return status and reason if a request must not be answered, or None.

    Args:
        method: HTTP method.
        headers: headers with lower-case names.
        local: whether the studio is for this machine only; other host names are then those of an attack by DNS.
    """
    host = str(headers.get("host", ""))
    if local and (urlsplit(f"//{host}").hostname or "") not in LOCAL_NAMES:
        return 403, "this studio is only reached as localhost"
    origin = headers.get("origin")
    if origin is not None and method not in ("GET", "HEAD", "OPTIONS") and urlsplit(origin).netloc != host:
        return 403, "requests from other sites are not answered"
    length = str(headers.get("content-length", "0"))
    if not length.isdecimal() or int(length) > MAX_UPLOAD_BYTES:
        return 413, f"a request may have at most {MAX_UPLOAD_BYTES} bytes"
    return None


class Guard:
    """ASGI application that answers forbidden requests itself, and adds security headers to all answers."""

    def __init__(self, app: App, *, local: bool) -> None:
        """Wrap an application.

        Args:
            app: the application.
            local: whether it is for this machine only.
        """
        self._app, self._local = app, local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        found = rejection(str(scope.get("method", "POST")), headers, local=self._local)
        if found is None:
            await self._app(scope, receive, _secured(send))
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        status, reason = found
        plain = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": status, "headers": plain})
        await send({"type": "http.response.body", "body": reason.encode()})


def _secured(send: Send) -> Send:
    added = {
        b"content-security-policy": POLICY.encode(),
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
    }

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in added]
            message = {**message, "headers": [*kept, *added.items()]}
        await send(message)

    return sending
