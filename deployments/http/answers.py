"""Answers: JSON, written by orjson, and what middleware learns of any answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class JsonAnswer(JSONResponse):
    """Also accepts NumPy numbers and arrays."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


async def watched(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, ended: Callable[[int, float], None]
) -> None:
    """Let an app answer; `ended` gets the status, 500 without an answer, and the seconds."""
    status, began = 500, time.perf_counter()

    async def noting(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    try:
        await app(scope, receive, noting)
    finally:
        ended(status, time.perf_counter() - began)
