"""The indexes beside the main one, each of the images with one tag, for keys that are limited to
it.

One is built when it is first searched, from the rows of its images; there are no snapshots of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from deployments.wire import TaggedIndex
from indexes.replica.follower import Follower
from indexes.store.base import Store
from indexes.store.tagged.store import TaggedStore
from models.errors import AmbienceError, RetrieverUnavailable

logger = logging.getLogger(__name__)
RENEWAL_SECONDS = 1.0
UNUSED_SECONDS = 3600.0
"""Seconds after the last search at which an index is dropped."""
CLOSING_SECONDS = 30.0
"""Seconds that searches on a replaced index may still take."""


def filled(new: Callable[[], Follower]) -> Follower:
    """A started follower with everything that is stored. Raises StoreUnavailable."""
    follower = new()
    try:
        follower.catch_up()
    except AmbienceError:
        follower.close()
        raise
    follower.start()
    return follower


class TaggedFollowers:
    """Followers by tag. Only tags of configured keys are searched, so there are as many at most."""

    def __init__(self, store: Store, new: Callable[[Store], Follower]) -> None:
        self._store = store
        self._new = new
        self._stores: dict[str, TaggedStore] = {}
        self._building: dict[str, asyncio.Task[Follower]] = {}
        self._followers: dict[str, Follower] = {}
        self._used: dict[str, float] = {}
        self._retired: list[tuple[float, Follower]] = []
        """Followers that are closed at a monotonic time."""

    def store(self, tag: str) -> TaggedStore:
        """The images with this tag."""
        return self._stores.setdefault(tag, TaggedStore(self._store, tag))

    def describe(self) -> dict[str, TaggedIndex]:
        """The state of each index, by tag."""
        known = {
            tag: TaggedIndex(follower.state, follower.kind, follower.count, follower.nbytes)
            for tag, follower in self._followers.items()
        }
        return dict.fromkeys(self._building, TaggedIndex("loading", "", 0, 0)) | known

    async def follower(self, tag: str, seconds: float) -> Follower:
        """The follower of a tag, built if there is none. Raises RetrieverUnavailable if that takes
        longer; it goes on."""
        self._used[tag] = time.monotonic()
        if tag in self._followers:
            return self._followers[tag]
        if tag not in self._building:
            self._building[tag] = asyncio.create_task(self._built(tag))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._building[tag])
        except TimeoutError:
            raise RetrieverUnavailable("loading: the index of this key is being built") from None

    async def keep(self, file_versions: Callable[[], Any]) -> None:
        """Rebuild what needs compaction, all when a trained file changes, and drop what is not
        used; for ever."""
        versions = file_versions()
        try:
            while True:
                await asyncio.sleep(RENEWAL_SECONDS)
                now = file_versions()
                for tag, follower in list(self._followers.items()):
                    if time.monotonic() - self._used[tag] > UNUSED_SECONDS:
                        del self._stores[tag], self._used[tag]
                        self._retire(self._followers.pop(tag))
                    elif now != versions or follower.status.needs_compaction:
                        await self._renew(tag)
                versions = now
                await self._close(time.monotonic())
        finally:
            await asyncio.gather(*self._building.values(), return_exceptions=True)
            for follower in self._followers.values():
                self._retire(follower)
            await self._close(math.inf)

    async def _built(self, tag: str) -> Follower:
        try:
            follower = await asyncio.to_thread(filled, lambda: self._new(self.store(tag)))
            self._followers[tag] = follower
            return follower
        finally:
            del self._building[tag]

    async def _renew(self, tag: str) -> None:
        store = self.store(tag)
        try:
            fresh = await asyncio.to_thread(filled, lambda: self._new(store))
        except AmbienceError as exc:
            logger.warning("an index of a tag stays as it is: %s", exc)
            return
        self._retire(self._followers[tag])
        self._followers[tag] = fresh

    def _retire(self, follower: Follower) -> None:
        """Close a follower later, after the searches that have begun on it."""
        self._retired.append((time.monotonic() + CLOSING_SECONDS, follower))

    async def _close(self, until: float) -> None:
        due = [follower for ends, follower in self._retired if ends <= until]
        self._retired = [one for one in self._retired if one[0] > until]
        for follower in due:
            await asyncio.to_thread(follower.close)
