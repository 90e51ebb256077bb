"""A follower keeps one index in step with the store's log and answers queries from it.

Searches run side by side, each in a thread of its own. All changes run on the follower's single
writing thread, which has the index alone for a few milliseconds at a time. A search first has the
new log entries applied, so that its answer includes every write that was acknowledged before the
query; one application serves all searches that wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from indexes.base import Index, Query, SearchParams
from indexes.replica.answer import Answer
from indexes.replica.applier import Applier, Decode, State, Status
from indexes.replica.sharding import WHOLE, Shard
from indexes.replica.snapshots import Snapshots
from indexes.store.base import Space, Store
from models.errors import RetrieverUnavailable, StoreUnavailable
from models.machine import cores

T = TypeVar("T")

log = logging.getLogger(__name__)

DEADLINE = 5.0
"""Default deadline of a search in seconds. Up to half of it may be spent on applying the log and on
waiting for a seq."""
SEQ_POLL_SECONDS = 0.005
"""Seconds between two checks for a seq that the store does not have yet."""
RETRY = 1.0
"""Seconds between two attempts to read an unavailable store."""


class Follower:
    """Owns an index and keeps it in step with the log.

    `applied` is the seq of an index that is already loaded; with None the index is rebuilt. With
    `snapshots`, a rebuild starts from a valid snapshot if there is one, instead of reading all
    rows. `searches` is the number of searches that may run at once, by default that of the cores.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        index: Index,
        decode: Decode,
        applied: int | None = None,
        snapshots: Snapshots | None = None,
        shard: Shard = WHOLE,
        searches: int | None = None,
    ) -> None:
        self.applier = Applier(store, space, index, decode, applied, snapshots, shard)
        self.space = space
        self.snapshots = snapshots
        self._closing = self.applier.closing
        self._lock = threading.Lock()
        self._writing = ThreadPoolExecutor(1, f"index-{space.kind}")
        self._searching = ThreadPoolExecutor(searches or cores(), f"search-{space.kind}")
        self._next_chunk: Future[None] | None = None
        self._poller: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._fitted_at = 0

    # --- state, from any thread ------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return self.applier.store

    @property
    def status(self) -> Status:
        return self.applier.status

    @property
    def state(self) -> State:
        return self.status.state

    @property
    def applied(self) -> int:
        return self.status.applied

    @property
    def count(self) -> int:
        return self.status.count

    @property
    def nbytes(self) -> int:
        return self.status.nbytes

    @property
    def kind(self) -> str:
        return self.status.kind

    # --- work, from any thread -------------------------------------------------------------------

    def start(self, poll: float = 0.5) -> None:
        """Rebuild the index in the background, then follow the log: at every notification by the
        store, and at least every `poll` seconds."""
        self._poller = threading.Thread(target=self._follow, args=(poll,), daemon=True)
        self._poller.start()

    def submit(self, job: Callable[[Index], T]) -> Future[T]:
        """Run a job that has the index alone. Raises RetrieverUnavailable after `close`."""

        def alone() -> T:
            with self.applier.turns.alone():
                return job(self.applier.index)

        return self._write(alone)

    def rebuild(self) -> None:
        """Rebuild the index from a snapshot or all rows, then apply the log to its end.

        Raises StoreUnavailable.
        """

        def job() -> None:
            self.applier.rebuild()
            self.applier.catch_up()

        self._write(job).result()

    def catch_up(self) -> int:
        """Apply the log to its current end; rebuild if the log can't be followed from `applied`.

        Returns the applied seq. Raises StoreUnavailable.
        """
        return self._write(self._catch_up_or_rebuild).result()

    def check(self) -> None:
        """Raise RetrieverUnavailable, with the reason, while searches can't be answered."""
        if self._failure is not None:
            raise RetrieverUnavailable(f"{self.space.kind} has stopped: {self._failure!r}")
        if self.state == "loading":
            raise RetrieverUnavailable(f"{self.space.kind} is {self.status.reason}")

    def search(
        self,
        query: Query,
        params: SearchParams,
        min_seq: int = 0,
        deadline: float = DEADLINE,
        stale_ok: bool = False,
    ) -> Answer:
        """Search with the whole log applied or, given a `min_seq`, at least the log up to it.

        The log is not read if `min_seq` is already applied, or with `stale_ok`. Up to half of
        `deadline` (seconds) may be spent on catching up; if that is too short, the answer is marked
        stale. Raises RetrieverUnavailable while loading.
        """
        self.check()
        until = time.monotonic() + deadline / 2
        job = partial(self._search, query, params, min_seq, stale_ok, until)
        answer = self._searching.submit(job).result()
        while not stale_ok and answer.may_improve(min_seq, until):
            time.sleep(SEQ_POLL_SECONDS)
            answer = self._searching.submit(job).result()
        return answer.checked(min_seq)

    async def asearch(
        self,
        query: Query,
        params: SearchParams,
        min_seq: int = 0,
        deadline: float = DEADLINE,
        stale_ok: bool = False,
    ) -> Answer:
        """`search` for use in an event loop, which it never blocks."""
        self.check()
        until = time.monotonic() + deadline / 2
        job = partial(self._search, query, params, min_seq, stale_ok, until)
        answer = await asyncio.wrap_future(self._searching.submit(job))
        while not stale_ok and answer.may_improve(min_seq, until):
            await asyncio.sleep(SEQ_POLL_SECONDS)
            answer = await asyncio.wrap_future(self._searching.submit(job))
        return answer.checked(min_seq)

    def close(self) -> None:
        """Stop after the current jobs; queued jobs are cancelled."""
        self._closing.set()
        self._writing.shutdown(wait=True, cancel_futures=True)
        self._searching.shutdown(wait=True, cancel_futures=True)
        if self._poller is not None:
            self._poller.join()

    # --- on the poller's thread ------------------------------------------------------------------

    def _follow(self, poll: float) -> None:
        while not self._closing.is_set():
            try:
                self._follow_once()
            except StoreUnavailable as exc:
                log.warning("%s can't follow the store: %s", self.space.kind, exc)
                self._closing.wait(RETRY)
            except BaseException as exc:
                if self._closing.is_set():
                    return
                self._failure = exc
                raise
            self.store.wait(self.applied, poll, self._closing)

    def _follow_once(self) -> None:
        if self.state == "loading":
            self._write(self._reload).result()
        # One job per batch, so that searches can run between the batches of a long backlog.
        while self.state == "ready" and self.store.head() != self.applied:
            self._applied_chunk().result()
        grown = not self._fitted_at / 2 < self.count < self._fitted_at * 2
        if self.state == "ready" and self.count and grown:
            self._fit_background()
        while self.state == "ready" and self._write(self.applier.maintain).result():
            pass

    def _fit_background(self) -> None:
        """Fit the background model when the number of images has doubled or halved."""
        self._fitted_at = self.count
        image_ids = self.submit(lambda index: index.image_ids()).result()
        self.applier.fit_background(image_ids)

    # --- on the threads of searches --------------------------------------------------------------

    def _search(
        self, query: Query, params: SearchParams, min_seq: int, stale_ok: bool, until: float
    ) -> Answer:
        applier, stale = self.applier, False
        if not stale_ok and not 0 < min_seq <= applier.applied:
            try:
                stale = not self._wait_for_log(until)
            except StoreUnavailable as exc:
                log.warning("%s answers from memory: %s", self.space.kind, exc)
                stale = True
        if applier.state == "loading":
            self._write(self._reload)
        with applier.turns.shared():
            self.check()
            if query.sharded:
                return Answer([], applier.applied, stale, applier.index.part(query, params))
            return Answer(applier.index.answer(query, params), applier.applied, stale)

    def _wait_for_log(self, until: float) -> bool:
        """Have the log applied to its current end. Returns False if `until` passes first."""
        applier, target = self.applier, self.store.head()
        while applier.state == "ready" and applier.applied != target:
            try:
                self._applied_chunk().result(max(0.0, until - time.monotonic()))
            except TimeoutError:
                return False
            except CancelledError as exc:
                raise RetrieverUnavailable(f"{self.space.kind} closes") from exc
            if applier.applied >= target:
                break
            if time.monotonic() > until:
                return False
        return True

    def _applied_chunk(self) -> Future[None]:
        """The application of the next batch of the log, which all who wait for it share."""
        with self._lock:
            if self._next_chunk is None or self._next_chunk.done():
                self._next_chunk = self._write(self.applier.apply_chunk)
            return self._next_chunk

    # --- on the writing thread -------------------------------------------------------------------

    def _write(self, job: Callable[[], T]) -> Future[T]:
        """Queue a job for the writing thread. Raises RetrieverUnavailable after `close`."""
        try:
            return self._writing.submit(job)
        except RuntimeError as exc:
            raise RetrieverUnavailable(f"{self.space.kind} is closed") from exc

    def _catch_up_or_rebuild(self) -> int:
        self.applier.catch_up()
        if self.applier.state == "loading":
            self.applier.rebuild()
            self.applier.catch_up()
        return self.applier.applied

    def _reload(self) -> None:
        """Rebuild, and retry while the store is unavailable; no query is answered meanwhile."""
        while self.applier.state == "loading" and not self._closing.is_set():
            try:
                self.applier.rebuild()
            except StoreUnavailable as exc:
                self.applier.set_state("loading", f"loading: {exc}")
                self._closing.wait(RETRY)
