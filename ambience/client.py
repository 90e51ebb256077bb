"""A client of the HTTP API, sync and async, that needs httpx and nothing else.

    from pathlib import Path
    from ambience.client import Client

    with Client("http://127.0.0.1:44444") as ambience:
        added = ambience.add(Path("cat.jpg"))
        for hit in ambience.hits(Path("crop.jpg")):
            print(hit["image_id"], hit.get("relation"))

`AsyncClient` has the same methods to await, and the same iterators for `async for`. Answers are
dictionaries, of the types in `ambience.answers`; errors are those of `ambience.problems`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar, Unpack

import httpx

from ambience import calls
from ambience.answers import (
    Added,
    BatchOutcome,
    Change,
    Changes,
    Comparison,
    DeletedImages,
    EditedImage,
    Hit,
    Image,
    RetrieverResults,
    RetrieverState,
    SearchResults,
)
from ambience.calls import (
    AddOptions,
    BatchItem,
    BatchOptions,
    Call,
    Conditions,
    Edit,
    Picture,
    Query,
)
from ambience.problems import ServiceUnreachable, problem_of

T = TypeVar("T")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)
Outcome = httpx.Response | httpx.TransportError
"""What one attempt brings."""
AGAIN = {408, 429, 502, 503, 504}
"""Statuses after which an idempotent call is sent again."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
PAGE = 100
WAIT = 25.0
"""Seconds that a follower's request waits for a change."""


class _BaseClient(Generic[H]):
    """What both clients share: settings of their connections, and the rule of another attempt."""

    _kind: ClassVar[type[Any]]

    def __init__(
        self,
        url: str = "http://127.0.0.1:44444",
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        """`key` is an API key; `timeout` is in seconds, of each attempt without a byte sent or
        received; `retries` counts further attempts of idempotent calls."""
        self.retries = retries
        headers = {} if key is None else {"X-API-Key": key}
        self._http: H = self._kind(base_url=url, headers=headers, timeout=timeout)

    def _pause(self, call: Call[Any], attempt: int, outcome: Outcome) -> float | None:
        """Seconds before the next attempt; None if there is to be none."""
        if attempt >= self.retries or not call.is_idempotent:
            return None
        least = 0.0
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in AGAIN:
                return None
            said = outcome.headers.get("Retry-After", "")
            least = float(said) if said.isdecimal() else 0.0
        if least > LONGEST_PAUSE:
            return None
        # Many clients that failed at once must not come back at once.
        own: float = FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1)
        return max(least, min(own, LONGEST_PAUSE))

    def _read(self, call: Call[T], outcome: Outcome) -> T:
        """What the last attempt brought. Raises ServiceUnreachable, and Problem."""
        if isinstance(outcome, httpx.TransportError):
            said = str(outcome) or type(outcome).__name__
            raise ServiceUnreachable(f"no answer from {self._http.base_url} ({said})") from outcome
        if outcome.status_code >= 400:
            raise problem_of(outcome)
        return call.read(outcome)


class Client(_BaseClient[httpx.Client]):
    """A client of one service; threads may share it. Its methods raise `ClientError`s."""

    _kind = httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send a call of `ambience.calls`, and again if it is idempotent and fails."""
        attempt = 0
        while (pause := self._pause(call, attempt, outcome := self._try(call))) is not None:
            time.sleep(pause)
            attempt += 1
        return self._read(call, outcome)

    def _try(self, call: Call[Any]) -> Outcome:
        try:
            with call.content() as content:
                return self._http.request(
                    call.method, call.path, params=call.params, headers=call.headers, **content
                )
        except httpx.TransportError as exc:
            return exc

    def add(
        self, picture: Picture, image_id: int | None = None, **options: Unpack[AddOptions]
    ) -> Added:
        """Add an image, durably, or replace the one with this id."""
        return self.send(calls.add(picture, image_id, options))

    def add_many(
        self,
        pictures: Sequence[Picture],
        items: Sequence[BatchItem] | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[BatchOutcome]:
        """Add up to 100 images at once; each has an outcome of its own, and none raises."""
        return self.send(calls.add_many(pictures, items, options))

    def image(self, image_id: int) -> Image:
        """Everything that is known of an image."""
        return self.send(calls.image(image_id))

    def thumbnail(self, image_id: int) -> bytes:
        """The stored preview, a JPEG."""
        return self.send(calls.thumbnail(image_id))

    def edit(self, image_id: int, **changes: Unpack[Edit]) -> EditedImage:
        """Edit annotations and metadata as a person."""
        return self.send(calls.edit(image_id, changes))

    def delete(self, image_id: int) -> None:
        """Delete an image; an unknown id is no error."""
        self.send(calls.delete(image_id))

    def delete_many(
        self, image_ids: Sequence[int], *, remember: bool = False, note: str = ""
    ) -> DeletedImages:
        """Delete up to 1,000 images; remembered pictures are refused when they come back."""
        return self.send(calls.delete_many(image_ids, remember, note))

    def search(self, *pictures: Picture, **query: Unpack[Query]) -> SearchResults:
        """Search by pictures, stored images and words at once: one page of hits."""
        return self.send(calls.search(pictures, query))

    def search_retriever(
        self, name: str, picture: Picture | None = None, **parameters: Any
    ) -> RetrieverResults:
        """Search one retriever by its own parameters."""
        return self.send(calls.search_retriever(name, picture, parameters))

    def compare(self, *pictures: Picture, image_ids: Sequence[int] = ()) -> Comparison:
        """How two pictures relate: uploads and stored images, in that order."""
        return self.send(calls.compare(pictures, image_ids))

    def retrievers(self) -> list[RetrieverState]:
        """The state of the retrievers and annotators."""
        return self.send(calls.retrievers())

    def annotate(
        self, picture: Picture, annotators: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Annotations of a picture, by annotator; nothing is stored."""
        return self.send(calls.annotate(picture, annotators))

    def changes(self, after: int | None = None, limit: int = PAGE, wait: float = 0.0) -> Changes:
        """Images that changed after a `head`, and the new `head`. Raises ChangesGone."""
        return self.send(calls.changes(after, limit, wait))

    def keep_changes(self, consumer: str, after: int) -> None:
        """Keep what a follower has still to read of the changes, for 24 hours."""
        self.send(calls.keep_changes(consumer, after))

    def images(self, **conditions: Unpack[Conditions]) -> Iterator[Image]:
        """All images that meet the conditions, by ascending id."""
        cursor: str | None = None
        while True:
            page = self.send(calls.list_images(cursor, PAGE, conditions))
            yield from page["images"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def hits(self, *pictures: Picture, **query: Unpack[Query]) -> Iterator[Hit]:
        """The hits of a search over all its pages; `k` is the size of a page."""
        following: Query | None = query
        while following is not None:
            page = self.send(calls.search(pictures, following))
            yield from page["hits"]
            following = calls.next_page(following, page)

    def follow(self, after: int) -> Iterator[tuple[Change, int]]:
        """Every change after a `head`, as it comes, without an end; each with the `head` to go on
        from once it has been dealt with. Raises ChangesGone."""
        while True:
            page = self.send(calls.changes(after, PAGE, WAIT))
            for change in page["changes"]:
                # The page is behind a reader only once all of it has been read.
                last = change is page["changes"][-1]
                yield change, page["head"] if last else after
            after = page["head"]


class AsyncClient(_BaseClient[httpx.AsyncClient]):
    """The client whose methods are awaited."""

    _kind = httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call of `ambience.calls`, and again if it is idempotent and fails."""
        attempt = 0
        while (pause := self._pause(call, attempt, outcome := await self._try(call))) is not None:
            await asyncio.sleep(pause)
            attempt += 1
        return self._read(call, outcome)

    async def _try(self, call: Call[Any]) -> Outcome:
        try:
            with call.content() as content:
                return await self._http.request(
                    call.method, call.path, params=call.params, headers=call.headers, **content
                )
        except httpx.TransportError as exc:
            return exc

    async def add(
        self, picture: Picture, image_id: int | None = None, **options: Unpack[AddOptions]
    ) -> Added:
        """Add an image, durably, or replace the one with this id."""
        return await self.send(calls.add(picture, image_id, options))

    async def add_many(
        self,
        pictures: Sequence[Picture],
        items: Sequence[BatchItem] | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[BatchOutcome]:
        """Add up to 100 images at once; each has an outcome of its own, and none raises."""
        return await self.send(calls.add_many(pictures, items, options))

    async def image(self, image_id: int) -> Image:
        """Everything that is known of an image."""
        return await self.send(calls.image(image_id))

    async def thumbnail(self, image_id: int) -> bytes:
        """The stored preview, a JPEG."""
        return await self.send(calls.thumbnail(image_id))

    async def edit(self, image_id: int, **changes: Unpack[Edit]) -> EditedImage:
        """Edit annotations and metadata as a person."""
        return await self.send(calls.edit(image_id, changes))

    async def delete(self, image_id: int) -> None:
        """Delete an image; an unknown id is no error."""
        await self.send(calls.delete(image_id))

    async def delete_many(
        self, image_ids: Sequence[int], *, remember: bool = False, note: str = ""
    ) -> DeletedImages:
        """Delete up to 1,000 images; remembered pictures are refused when they come back."""
        return await self.send(calls.delete_many(image_ids, remember, note))

    async def search(self, *pictures: Picture, **query: Unpack[Query]) -> SearchResults:
        """Search by pictures, stored images and words at once: one page of hits."""
        return await self.send(calls.search(pictures, query))

    async def search_retriever(
        self, name: str, picture: Picture | None = None, **parameters: Any
    ) -> RetrieverResults:
        """Search one retriever by its own parameters."""
        return await self.send(calls.search_retriever(name, picture, parameters))

    async def compare(self, *pictures: Picture, image_ids: Sequence[int] = ()) -> Comparison:
        """How two pictures relate: uploads and stored images, in that order."""
        return await self.send(calls.compare(pictures, image_ids))

    async def retrievers(self) -> list[RetrieverState]:
        """The state of the retrievers and annotators."""
        return await self.send(calls.retrievers())

    async def annotate(
        self, picture: Picture, annotators: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Annotations of a picture, by annotator; nothing is stored."""
        return await self.send(calls.annotate(picture, annotators))

    async def changes(
        self, after: int | None = None, limit: int = PAGE, wait: float = 0.0
    ) -> Changes:
        """Images that changed after a `head`, and the new `head`. Raises ChangesGone."""
        return await self.send(calls.changes(after, limit, wait))

    async def keep_changes(self, consumer: str, after: int) -> None:
        """Keep what a follower has still to read of the changes, for 24 hours."""
        await self.send(calls.keep_changes(consumer, after))

    async def images(self, **conditions: Unpack[Conditions]) -> AsyncIterator[Image]:
        """All images that meet the conditions, by ascending id."""
        cursor: str | None = None
        while True:
            page = await self.send(calls.list_images(cursor, PAGE, conditions))
            for image in page["images"]:
                yield image
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def hits(self, *pictures: Picture, **query: Unpack[Query]) -> AsyncIterator[Hit]:
        """The hits of a search over all its pages; `k` is the size of a page."""
        following: Query | None = query
        while following is not None:
            page = await self.send(calls.search(pictures, following))
            for hit in page["hits"]:
                yield hit
            following = calls.next_page(following, page)

    async def follow(self, after: int) -> AsyncIterator[tuple[Change, int]]:
        """Every change after a `head`, as it comes, without an end; each with the `head` to go on
        from once it has been dealt with. Raises ChangesGone."""
        while True:
            page = await self.send(calls.changes(after, PAGE, WAIT))
            for change in page["changes"]:
                # The page is behind a reader only once all of it has been read.
                last = change is page["changes"][-1]
                yield change, page["head"] if last else after
            after = page["head"]
