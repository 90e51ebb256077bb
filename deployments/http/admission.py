"""Admission control: who may ask, how much at once, how large. Plain ASGI middleware."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from deployments.http.keys import HEALTH, ApiKeys
from deployments.http.problems import problem
from deployments.settings import IngressArgs
from models.errors import AmbienceError, Overloaded, PictureTooLarge

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

FORM_OVERHEAD_BYTES = 2**20
MAX_CLIENTS = 10_000


class TooManyRequests(AmbienceError):
    """The rate limit of this client is used up."""

    status = 429
    title = "Too many requests"


class SlowUpload(AmbienceError):
    """The body did not arrive in time; it would hold its place for ever."""

    status = 408
    title = "Request timeout"


class Admission:
    """Middleware that refuses requests.

    503 when full, 429 over the rate, 413 too large, 408 too slow, 401 without a valid key.
    """

    def __init__(
        self, app: App, args: IngressArgs, draining: threading.Event | None = None
    ) -> None:
        self.app = app
        self.args = args
        self.in_flight = 0
        self._keys = ApiKeys(args)
        self.draining = draining or threading.Event()
        self._minutes: OrderedDict[str, tuple[int, int]] = OrderedDict()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await self.app(scope, receive, send)
            return
        try:
            self._admit(scope)
        except AmbienceError as exc:
            await problem(exc)(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self.app(scope, self._limited(receive), self._sending(send))
        finally:
            self.in_flight -= 1

    def _admit(self, scope: MutableMapping[str, Any]) -> None:
        headers = dict(scope["headers"])
        self._keys.check(scope, headers)
        self._check_rate(scope)
        limit = self.args.max_requests
        if self.in_flight >= limit:
            raise Overloaded(f"{limit} requests are in flight; try again in a second")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()

    def _check_rate(self, scope: MutableMapping[str, Any]) -> None:
        limit = self.args.requests_per_minute
        if limit is None:
            return
        client = (scope.get("client") or ("",))[0]
        minute = int(time.monotonic() // 60)
        seen, count = self._minutes.pop(client, (minute, 0))
        count = count + 1 if seen == minute else 1
        self._minutes[client] = (minute, count)
        if len(self._minutes) > MAX_CLIENTS:
            self._minutes.popitem(last=False)
        if count > limit:
            raise TooManyRequests(f"more than {limit} requests a minute; try again in a minute")

    def _limited(self, receive: Receive) -> Receive:
        """Read the body, within its limits of size and time."""
        read, whole = 0, False
        until = time.monotonic() + self.args.upload_deadline

        async def counted() -> Message:
            nonlocal read, whole
            if whole:  # What follows the body is the client's leaving, whenever that is.
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until - time.monotonic())
            except TimeoutError as exc:
                limit = self.args.upload_deadline
                raise SlowUpload(f"the body did not arrive within {limit:g} s") from exc
            whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise self._too_large()
            return message

        return counted

    def _sending(self, send: Send) -> Send:
        async def closing(message: Message) -> None:
            if self.draining.is_set() and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        return closing

    @property
    def _max_bytes(self) -> int:
        return self.args.max_upload_bytes + FORM_OVERHEAD_BYTES

    def _too_large(self) -> PictureTooLarge:
        limit = self.args.max_upload_bytes / 2**20
        return PictureTooLarge(f"image: at most {limit:g} MiB", "image")
