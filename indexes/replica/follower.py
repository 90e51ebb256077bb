"""A follower keeps one index in step with the store's log and answers queries from it.

Every call of the index runs on the follower's single thread. A search first applies the new log
entries, so that its answer includes every write that was acknowledged before the query.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from indexes.base import Index, Query, Rows, SearchParams
from indexes.calibration import BackgroundModel
from indexes.replica.adaptive_batch import AdaptiveBatch
from indexes.replica.answer import Answer
from indexes.replica.sharding import WHOLE, Shard, sample_ids, stored_ids
from indexes.replica.snapshots import Snapshots
from indexes.store.base import Space, Store
from models.errors import RetrieverUnavailable, StoreUnavailable
from models.types import Features

T = TypeVar("T")
Decode = Callable[[bytes], Features]
State = Literal["loading", "ready"]

log = logging.getLogger(__name__)

BATCH = 4096
"""Rows read at a time while rebuilding."""
DEADLINE = 5.0
"""Default deadline of a search in seconds. Up to half of it may be spent on applying the log and on
waiting for a seq."""
SEQ_POLL_SECONDS = 0.005
"""Seconds between two checks for a seq that the store does not have yet."""
BACKGROUND_SAMPLE, MIN_BACKGROUND_SAMPLE = 512, 50
"""Number of images sampled for the background model, and the minimum number for fitting one."""
RETRY = 1.0
"""Seconds between two attempts to read an unavailable store."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a follower, with all fields from the same moment."""

    state: State
    reason: str
    applied: int
    count: int
    nbytes: int
    kind: str
    needs_compaction: bool


class Follower:
    """Owns an index and keeps it in step with the log.

    `applied` is the seq of an index that is already loaded; with None the index is rebuilt. With
    `snapshots`, a rebuild starts from a valid snapshot if there is one, instead of reading all
    rows.
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
    ) -> None:
        self.store = store
        self.shard = shard
        self.space = space
        self.snapshots = snapshots
        self._index = index
        self._decode = decode
        self._applied = 0 if applied is None else applied
        self._state: State = "loading" if applied is None else "ready"
        self._closing = threading.Event()
        self._executor = ThreadPoolExecutor(1, f"index-{space.kind}")
        self._poller: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._background: BackgroundModel | None = None
        self._fitted_at = 0
        self._batch = AdaptiveBatch()
        self._status: Status
        self._set_state(self._state, "loading" if applied is None else "")

    # --- state, from any thread ------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self._status

    @property
    def state(self) -> State:
        return self._status.state

    @property
    def applied(self) -> int:
        return self._status.applied

    @property
    def count(self) -> int:
        return self._status.count

    @property
    def nbytes(self) -> int:
        return self._status.nbytes

    @property
    def kind(self) -> str:
        return self._status.kind

    # --- work, from any thread -------------------------------------------------------------------

    def start(self, poll: float = 0.5) -> None:
        """Rebuild the index in the background, then follow the log: at every notification by the
        store, and at least every `poll` seconds."""
        self._poller = threading.Thread(target=self._follow, args=(poll,), daemon=True)
        self._poller.start()

    def submit(self, job: Callable[[Index], T]) -> Future[T]:
        """Run a job on the index's thread. Raises RetrieverUnavailable after `close`."""
        try:
            return self._executor.submit(lambda: job(self._index))
        except RuntimeError as exc:
            raise RetrieverUnavailable(f"{self.space.kind} is closed") from exc

    def rebuild(self) -> None:
        """Rebuild the index from a snapshot or all rows, then apply the log to its end.

        Raises StoreUnavailable.
        """

        def job() -> None:
            self._rebuild()
            self._catch_up()

        self._executor.submit(job).result()

    def catch_up(self) -> int:
        """Apply the log to its current end; rebuild if the log can't be followed from `applied`.

        Returns the applied seq. Raises StoreUnavailable.
        """
        return self._executor.submit(self._catch_up_or_rebuild).result()

    def check(self) -> None:
        """Raise RetrieverUnavailable, with the reason, while searches can't be answered."""
        if self._failure is not None:
            raise RetrieverUnavailable(f"{self.space.kind} has stopped: {self._failure!r}")
        if self.state == "loading":
            raise RetrieverUnavailable(f"{self.space.kind} is {self._status.reason}")

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
        answer = self._executor.submit(job).result()
        while not stale_ok and answer.may_improve(min_seq, until):
            time.sleep(SEQ_POLL_SECONDS)
            answer = self._executor.submit(job).result()
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
        answer = await asyncio.wrap_future(self._executor.submit(job))
        while not stale_ok and answer.may_improve(min_seq, until):
            await asyncio.sleep(SEQ_POLL_SECONDS)
            answer = await asyncio.wrap_future(self._executor.submit(job))
        return answer.checked(min_seq)

    def close(self) -> None:
        """Stop after the current job; queued jobs are cancelled."""
        self._closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
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
            self._executor.submit(self._reload).result()
        # One job per batch, so that searches can run between the batches of a long backlog.
        while self.state == "ready" and self.store.head() != self.applied:
            self._executor.submit(self._apply_chunk).result()
        grown = not self._fitted_at / 2 < self.count < self._fitted_at * 2
        if self.state == "ready" and self.count and grown:
            self._fit_background()
        while self.state == "ready" and self.submit(lambda index: index.preallocate()).result():
            pass

    def _fit_background(self) -> None:
        """Fit the background model to a sample of the collection, over all shards.

        It is fitted again when the number of images has doubled or halved.
        """
        self._fitted_at = self.count
        image_ids = self.submit(lambda index: index.image_ids()).result()
        if len(image_ids) and self.shard != WHOLE:
            image_ids = stored_ids(self.store, self.space)
        if len(image_ids) < MIN_BACKGROUND_SAMPLE:
            return
        rows = self.store.rows(self.space, sample_ids(image_ids, BACKGROUND_SAMPLE).tolist())
        sample = [
            found for at, row in rows.items() if (found := self._decoded(at, row)) is not None
        ]
        if len(sample) >= MIN_BACKGROUND_SAMPLE:
            self._background = self._index.background_of(np.stack(sample))
            self._index.background = self._background

    # --- on the index's thread -------------------------------------------------------------------

    def _search(
        self, query: Query, params: SearchParams, min_seq: int, stale_ok: bool, until: float
    ) -> Answer:
        stale = False
        if not stale_ok and not 0 < min_seq <= self._applied:
            try:
                stale = not self._catch_up(until)
            except StoreUnavailable as exc:
                log.warning("%s answers from memory: %s", self.space.kind, exc)
                stale = True
        if self._state == "loading":
            self._executor.submit(self._reload)
        self.check()
        if query.sharded:
            return Answer([], self._applied, stale, self._index.part(query, params))
        return Answer(self._index.answer(query, params), self._applied, stale)

    def _catch_up(self, until: float = math.inf) -> bool:
        """Apply the log to its current end. Returns False if `until` passes first."""
        target = self.store.head()
        while self._state == "ready" and self._applied != target:
            self._apply_chunk()
            if self._applied >= target:
                break
            if time.monotonic() > until:
                return False
        return True

    def _catch_up_or_rebuild(self) -> int:
        self._catch_up()
        if self._state == "loading":
            self._rebuild()
            self._catch_up()
        return self._applied

    def _apply_chunk(self) -> None:
        if self._state == "loading":
            return  # An earlier job found that the index must be rebuilt.
        if self._advance():
            self._set_state("ready")
        else:
            self._set_state("loading", "loading: the log no longer reaches back")

    def _advance(self) -> bool:
        """Apply one batch of the log. Returns False if the index must be rebuilt instead (see
        `Store.changes`)."""
        began = time.perf_counter()
        changes = self.store.changes(self.space, self._applied, self._batch.entries)
        if changes is None:
            return False
        if mine := self._decode_mine(changes.rows.items()):
            self._index.apply(mine)
        self._batch.record(changes.head - self._applied, time.perf_counter() - began)
        self._applied = changes.head
        return True

    def _reload(self) -> None:
        """Rebuild, and retry while the store is unavailable; no query is answered meanwhile."""
        while self._state == "loading" and not self._closing.is_set():
            try:
                self._rebuild()
            except StoreUnavailable as exc:
                self._set_state("loading", f"loading: {exc}")
                self._closing.wait(RETRY)

    def _restore_snapshot(self) -> bool:
        """Restore a snapshot and apply the log after it. Returns False if that is impossible."""
        applied = None if self.snapshots is None else self.snapshots.load(self._index)
        if applied is None:
            return False
        self._applied, head = applied, self.store.head()
        self._set_state("loading", f"loading: {head - applied} changes since the snapshot")
        while self._applied < head and not self._closing.is_set():
            if not self._advance():
                return False
        self._set_state("ready")
        return True

    def _clear_index(self) -> None:
        """Replace the index by an empty one that has the fitted background model."""
        if len(self._index):
            self._index = type(self._index)(self._index.options, self._index.rows)
            self._index.background = self._background or self._index.background

    def _rebuild(self) -> None:
        self._set_state("loading", "loading")
        self._clear_index()
        if self._restore_snapshot():
            return
        self._clear_index()
        with self.store.scan(self.space, BATCH) as scan:
            for batch in scan.batches:
                if self._closing.is_set():
                    return
                if mine := self._decode_mine(batch):
                    self._index.apply(mine)
                self._set_state("loading", f"loading: {len(self._index)} pictures so far")
        self._applied = scan.head
        self._set_state("ready")

    def _decode_mine(self, rows: Iterable[tuple[int, bytes | None]]) -> dict[int, Features | None]:
        return {at: self._decoded(at, row) for at, row in rows if self.shard.holds(at)}

    def _decoded(self, image_id: int, row: bytes | None) -> Features | None:
        """Decode a row. An unreadable row is logged and treated as missing, so that it does not
        affect other images."""
        try:
            return None if row is None else self._decode(row)
        except ValueError as exc:
            log.error("%s of image %d can't be read: %s", self.space.kind, image_id, exc)
            return None

    def _set_state(self, state: State, reason: str = "") -> None:
        self._state = state
        index = self._index
        size = len(index), index.nbytes
        self._status = Status(
            state, reason, self._applied, *size, index.kind, index.needs_compaction
        )


def row_reader(store: Store, space: Space, decode: Decode) -> Rows:
    """Make a function that reads stored features, for an index that re-ranks with them."""

    def rows(image_ids: Sequence[int]) -> Mapping[int, Features]:
        return {at: decode(row) for at, row in store.rows(space, image_ids).items()}

    return rows
