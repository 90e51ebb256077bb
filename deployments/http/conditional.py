"""HEAD requests, entity tags and conditional requests (RFC 9110, sections 9.3.2 and 13)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import xxhash
from fastapi import Request, Response

from indexes.store.base import Store
from models.errors import InvalidInput, PreconditionFailed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

KEPT = ("etag", "cache-control", "vary")
"""Headers of an answer that a 304 repeats."""


class HeadRequests:
    """Middleware that answers HEAD as GET, without the body."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # The server decides by its own scope whether the body may be shorter than announced.
        await self.app({**scope, "method": "GET"}, receive, without_body)


def tagged(request: Request, answer: Response, version: int | None = None) -> Response:
    """The answer with an ETag of its body, or 304 if `If-None-Match` names that ETag.

    `version` is the image's, which `If-Match` of a later write compares.
    """
    digest = xxhash.xxh3_64_hexdigest(bytes(answer.body))
    etag = f'"{digest}"' if version is None else f'"{version}-{digest}"'
    answer.headers["ETag"] = etag
    answer.headers.setdefault("Cache-Control", "no-cache")
    given = [tag.removeprefix("W/") for tag in _tags(request, "if-none-match")]
    if etag not in given and given != ["*"]:
        return answer
    kept = {name: value for name, value in answer.headers.items() if name in KEPT}
    return Response(status_code=304, headers=kept)


def expected_version(request: Request, store: Store, image_id: int) -> int | None:
    """The version of the image that `If-Match` or `If-None-Match: *` asks a write to expect.

    See `ImageWrite.if_version`. Raises InvalidInput for an `If-None-Match` of entity tags, and
    PreconditionFailed where no version fits.
    """
    wanted = _tags(request, "if-match")
    if unwanted := _tags(request, "if-none-match"):
        if unwanted != ["*"] or wanted:
            raise InvalidInput("If-None-Match: a write takes `*` only", "If-None-Match")
        return 0
    if not wanted:
        return None
    image = store.image(image_id)
    versions = [_version(tag) for tag in wanted]
    if image is not None and (wanted == ["*"] or image.version in versions):
        return image.version
    raise PreconditionFailed("If-Match: the image has changed, or is gone: read it again")


def _version(tag: str) -> int:
    """The image's version in an ETag; -1 for any other tag."""
    digits = tag.removeprefix('"').partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else -1


def _tags(request: Request, header: str) -> list[str]:
    values = request.headers.getlist(header)
    return [tag.strip() for value in values for tag in value.split(",") if tag.strip()]
