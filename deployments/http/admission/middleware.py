"""Admission control: who may ask, how much at once, how large. Plain ASGI middleware."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.admission.clients import Clients, group_of
from deployments.http.admission.keys import HEALTH, ApiKeys
from deployments.http.admission.origins import WILDCARD, Origins
from deployments.http.admission.rates import Rates
from deployments.http.admission.receiving import Receiver, replay
from deployments.http.problems import problem
from deployments.settings import IngressArgs
from models.errors import AmbienceError, Overloaded

DISCARDED_BYTES = 2**16
"""The server reads so many bytes of a body on its own; it discards them after the answer."""
LINGER_SECONDS = 5.0


class Admission:
    """Middleware that refuses requests.

    403 for a foreign host or origin, or beyond the tag to which a key is limited, 401 without a
    valid key, 429 over the rate, 413 too large, 408 too slow, 503 when full.
    """

    def __init__(
        self,
        app: ASGIApp,
        args: IngressArgs,
        draining: threading.Event | None = None,
        bound: str = WILDCARD,
    ) -> None:
        self.app = app
        self.args = args
        self.in_flight = 0
        self.draining = draining or threading.Event()
        self.receiver = Receiver(args)
        self._origins = Origins(bound, args.allowed_hosts, args.cors_origins)
        self._clients = Clients(args)
        self._keys = ApiKeys(args)
        self._rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        trusted = self._clients.trusts(scope, headers)
        client = self._clients.address_of(scope, headers)
        scope.setdefault("state", {})["client"] = client
        announced = _announced(headers)
        try:
            self._origins.check(scope)
            check = self._keys.check_trusted if trusted else self._keys.check
            key = check(scope, headers)
            scope["state"]["tag"] = None if key is None else key.tag
            if scope["path"] in HEALTH:
                await self.app(scope, receive, send)
                return
            if key is not None:
                scope["state"]["key"] = key.name
                self._rates.count(f"key {key.name}", key.requests_per_minute)
            self._rates.count(group_of(client), self.args.requests_per_minute)
            self._check_places()
            body = await self.receiver.read(group_of(client), announced, receive)
        except AmbienceError as exc:
            await _refuse(exc, announced, scope, receive, send)
            return
        try:
            # Others may have taken the last places while the body arrived.
            self._check_places()
        except Overloaded as exc:
            self.receiver.close(body)
            await problem(exc)(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self.app(scope, replay(body, receive), self._sending(send))
        finally:
            self.in_flight -= 1
            self.receiver.close(body)

    def _check_places(self) -> None:
        limit = self.args.max_requests
        if self.in_flight >= limit:
            raise Overloaded(f"{limit} requests are in flight; try again in a second")

    def _sending(self, send: Send) -> Send:
        async def closing(message: Message) -> None:
            if self.draining.is_set() and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        return closing


def _announced(headers: dict[bytes, bytes]) -> int | None:
    """Bytes of the body; None where the request does not say."""
    if b"transfer-encoding" in headers:
        return None
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else None


async def _refuse(
    error: AmbienceError, announced: int | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request before its body, and end the connection.

    What still arrives is discarded for a moment: many clients read no answer before they have sent
    everything, or before an end of the connection has thrown it away.
    """
    answer = problem(error)
    if announced is not None and announced <= DISCARDED_BYTES:
        await answer(scope, receive, send)
        return

    async def lingering(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (await receive()).get("more_body"):
                        pass
            message = {"type": "http.response.body"}
        await send(message)

    answer.headers["Connection"] = "close"
    await answer(scope, receive, lingering)
