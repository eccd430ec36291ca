"""Limits of the studio's server: which addresses it may listen on, and which requests it answers. Needs no Gradio."""

import asyncio
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_UPLOAD_BYTES = 2 * 2**30
"""Maximum size of a request with files, in bytes."""

MAX_OTHER_BYTES = 32 * 2**20
"""Maximum size of any other request; parsers of JSON hold it in memory. The page sends pictures of a camera this way."""

UPLOADS = ("/avatars", "/videos", "/verify", "/gradio_api/upload")
"""Paths that take files."""

PATIENCE = 60.0
"""Seconds that a request's body may be late."""

SLOWEST = 10_000
"""Bytes per second that a body must have on average beyond that."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'"
)
"""Content security policy: the page loads nothing from other servers."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(host: str, password: str | None, *, users: bool = False) -> None:
    """Check that other machines cannot reach the studio without a password or a token.

    Args:
        host: address to listen on.
        password: the password, or None.
        users: whether each user has a token.

    Raises:
        ValueError: if another host than this machine is given without either, both are given, or the password is too short.
    """
    if password is None and not users and not is_loopback(host):
        raise ValueError(f"--host {host} lets other machines in: give --password or --users too, or leave --host out")
    if password is not None and users:
        raise ValueError("give either --password, for a single user, or --users, not both")
    if password is not None and len(password) < 8:
        raise ValueError("--password must have at least 8 characters")


def _most_bytes(path: str, headers: Message) -> int:
    """Return the maximum size of a request's body; a form elsewhere would be read into memory like any other body."""
    form = str(headers.get("content-type", "")).strip().lower().startswith("multipart/form-data")
    return MAX_UPLOAD_BYTES if form and path in UPLOADS else MAX_OTHER_BYTES


def rejection(method: str, headers: Message, *, local: bool, path: str = "/") -> tuple[int, str] | None:
    """Return status and reason if a request must not be answered, or None.

    Args:
        method: HTTP method.
        headers: headers with lower-case names.
        path: path of the request.
        local: whether the studio is for this machine only; other host names are then those of an attack by DNS.
    """
    host, origin = str(headers.get("host", "")), headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        sender = None if origin is None else urlsplit(origin).netloc
    except ValueError:  # a bracket without its other one
        return 400, "Host and Origin must be valid addresses"
    if local and name not in LOCAL_NAMES:
        return 403, "this studio is only reached as localhost"
    site = headers.get("sec-fetch-site", "same-origin")
    if method not in ("GET", "HEAD", "OPTIONS") and (
        (sender is not None and sender != host) or site not in ("same-origin", "none")
    ):
        return 403, "requests from other sites are not answered"
    length, most = str(headers.get("content-length", "0")), _most_bytes(path, headers)
    if not length.isdecimal() or int(length) > most:
        return 413, f"a request of this kind may have at most {most} bytes"
    return None


async def answer_error(send: Send, status: int, reason: str, *, headers: Mapping[str, str] = {}) -> None:
    """Answer a request with an error, and close its connection, because its body is not read.

    Args:
        send: function that sends the answer.
        status: HTTP status.
        reason: one sentence.
        headers: more headers.
    """
    every = {"content-type": "application/json", "connection": "close", **headers}
    encoded = [(name.encode(), value.encode()) for name, value in every.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": json.dumps({"error": reason}).encode()})


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
        path = str(scope.get("path", ""))
        found = rejection(str(scope.get("method", "POST")), headers, local=self._local, path=path)
        if found is None:
            if scope["type"] == "websocket":
                await self._app(scope, receive, send)
                return
            body = _Body(receive, headers, _most_bytes(path, headers))
            await self._app(scope, body.receive, _secured(send, body))
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await answer_error(send, *found)


class _Body:
    """Receives a request's body within the limits, which its headers need not tell."""

    def __init__(self, receive: Receive, headers: Message, most: int) -> None:
        self._receive, self._begun = receive, time.monotonic()
        self._most = self._left = most
        self.unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        """Whether more of the body may come."""
        self.status: int | None = None
        """Status of the answer if the body broke a limit."""

    async def receive(self) -> Message:
        if not self.unread or self.status is not None:
            return await self._receive()
        received = self._most - self._left
        until = self._begun + PATIENCE + received / SLOWEST
        try:
            message = await asyncio.wait_for(self._receive(), until - time.monotonic())
        except TimeoutError:
            raise self._broken(408, "the request comes too slowly") from None
        self.unread = message["type"] == "http.request" and bool(message.get("more_body"))
        self._left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect":
            raise self._broken(400, "the request was cut off")
        if self._left < 0:
            raise self._broken(413, f"a request may have at most {self._most} bytes: the maximum allowed size")
        return message

    def _broken(self, status: int, reason: str) -> Exception:
        from starlette.formparsers import MultiPartException  # for which the parsers of forms delete their files

        self.status = status
        return MultiPartException(reason)


def _secured(send: Send, body: _Body) -> Send:
    added = {
        b"content-security-policy": POLICY.encode(),
        b"x-content-type-options": b"nosniff",
        b"referrer-policy": b"no-referrer",
    }

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in added]
            end = [(b"connection", b"close")] if body.unread else []  # or the server would read on, to no end
            status = body.status or message["status"]
            message = {**message, "status": status, "headers": [*kept, *added.items(), *end]}
        await send(message)

    return sending
