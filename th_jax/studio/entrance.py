"""The entrance of the studio's server: who is it, may they ask for more, and which application is theirs. Needs no Gradio."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from typing import Any

from th_jax.studio import guard
from th_jax.studio.folder import DiskFull
from th_jax.studio.guard import App, Message, Receive, Send, answer_error
from th_jax.studio.limits import Rate, TooMany
from th_jax.studio.studios import Studios
from th_jax.studio.users import Accounts

OPERATIONS = ("avatars", "videos", "jobs", "verify")
"""First parts of the paths whose requests are counted; the page asks all the time how far the jobs are."""

JOBS = ("/avatars", "/videos")
"""Paths that begin jobs."""

WRONG_SECRETS = 20
"""Number of wrong passwords or tokens a minute from one address."""


def credentials_of(headers: Message) -> tuple[str, str] | None:
    """Return user name and password of HTTP's basic authentication, or None.

    Args:
        headers: headers with lower-case names.
    """
    kind, _, encoded = str(headers.get("authorization", "")).partition(" ")
    try:
        user, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, secret) if kind.lower() == "basic" and colon else None


class Entrance:
    """ASGI application that lets each user in to an application of their own, and to no other."""

    def __init__(
        self,
        studios: Studios,
        application: Callable[[str], Any],
        public: App,
        *,
        accounts: Accounts | None,
        requests: int | None = None,
    ) -> None:
        """Wrap the users' applications.

        Args:
            studios: the studios.
            application: makes a user's FastAPI application, at their first request.
            public: application of the paths below /health/, which need no password.
            accounts: users and the digests of their secrets; None if everybody who reaches it is let in.
            requests: number of requests a minute of each user.
        """
        self._studios, self._application, self._public, self._accounts = studios, application, public, accounts
        self._requests = Rate("requests", requests, 60.0)
        self._wrong = Rate("wrong passwords or tokens", WRONG_SECRETS, 60.0)
        self._hosted: dict[str, asyncio.Future[App]] = {}
        self._hosts: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or begin and end with the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = str(scope.get("path", ""))
        if path.startswith("/health/"):
            await self._public(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            user = self._user(scope, headers)
            if user is None:
                challenge = {"www-authenticate": 'Basic realm="th_jax studio", charset="UTF-8"'}
                await self._reject(scope, send, 401, "the password or token is missing or wrong", challenge)
                return
            if path.strip("/").partition("/")[0] in OPERATIONS:
                self._requests.check(key=user, count=True)
            if scope.get("method") == "POST" and path in guard.UPLOADS:
                await asyncio.to_thread(self._check, user, path, headers)
        except TooMany as error:
            await self._reject(scope, send, 429, str(error), {"retry-after": str(error.retry_after)})
            return
        except DiskFull as error:
            await self._reject(scope, send, 507, str(error), {})
            return
        app = await self._app_of(user)
        await app(scope, receive, send)

    def _user(self, scope: Message, headers: Message) -> str | None:
        """Return the user of a request, or None; "" without users."""
        if self._accounts is None:
            return ""
        address = str((scope.get("client") or [""])[0])
        given = credentials_of(headers)
        if given is None:
            return None
        # By user, too: behind a proxy, all users have one address, and one's wrong passwords must not keep out the others.
        tried = f"{given[0] if given[0] in self._studios.users else ''}@{address}"
        self._wrong.check(key=tried)
        if not self._accounts.admits(*given):
            self._wrong.check(key=tried, count=True)
            return None
        return given[0] if given[0] in self._studios.users else ""

    def _check(self, user: str, path: str, headers: Message) -> None:
        """Check that a request's files may be written; one that does not say its size counts as the largest."""
        studio = self._studios.of(user)
        if path in JOBS:
            studio.check_job()
        length = guard.MAX_UPLOAD_BYTES if "transfer-encoding" in headers else int(headers.get("content-length", 0))
        studio.check_upload(incoming=length)

    async def _reject(self, scope: Message, send: Send, status: int, reason: str, headers: dict[str, str]) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer_error(send, status, reason, headers=headers)

    async def _app_of(self, user: str) -> App:
        hosted = self._hosted.get(user)
        if hosted is None:
            hosted = self._hosted[user] = asyncio.get_running_loop().create_future()
            self._hosts.append(asyncio.create_task(self._host(user, hosted)))
        return await asyncio.shield(hosted)

    async def _host(self, user: str, hosted: asyncio.Future[App]) -> None:
        """Make a user's application, and keep it until the server ends; a task must end what it has begun."""
        try:
            app = await asyncio.to_thread(self._application, user)
            async with app.router.lifespan_context(app):
                hosted.set_result(app)
                await self._stop.wait()
        except Exception as error:
            if hosted.done():
                logging.getLogger(__name__).exception("the page of %r did not end well", user)
            else:
                hosted.set_exception(error)
                del self._hosted[user]

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._stop = asyncio.Event()
        try:
            if self._accounts is None:
                await self._app_of("")  # so that the first request need not wait
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._stop.set()
        await asyncio.gather(*self._hosts, return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})
