"""Applies the store's log to one index."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from indexes.base import Index, Rows
from indexes.calibration import BackgroundModel
from indexes.replica.adaptive_batch import AdaptiveBatch
from indexes.replica.sharding import WHOLE, Shard, sample_ids, stored_ids
from indexes.replica.snapshots import Snapshots
from indexes.replica.turns import Turns
from indexes.store.base import Space, Store
from models.types import Features

Decode = Callable[[bytes], Features]
State = Literal["loading", "ready"]

log = logging.getLogger(__name__)

BATCH = 4096
"""Rows read at a time while rebuilding."""
BACKGROUND_SAMPLE, MIN_BACKGROUND_SAMPLE = 512, 50
"""Number of images sampled for the background model, and the minimum number for fitting one."""


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
    has_learnt: bool


class Applier:
    """An index and the seq up to which the log is applied to it.

    One thread at a time may change it, and takes the index's turn alone for it. While the state is
    `ready`, other threads may search the index in shared turns.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        index: Index,
        decode: Decode,
        applied: int | None,
        snapshots: Snapshots | None,
        shard: Shard,
    ) -> None:
        self.store = store
        self.space = space
        self.shard = shard
        self.snapshots = snapshots
        self.index = index
        self.applied = 0 if applied is None else applied
        self.state: State = "loading" if applied is None else "ready"
        self.turns = Turns()
        self.closing = threading.Event()
        self._decode = decode
        self._background: BackgroundModel | None = None
        self._default_background = index.background
        self._batch = AdaptiveBatch()
        self.status: Status
        self.set_state(self.state, "loading" if applied is None else "")

    def set_state(self, state: State, reason: str = "") -> None:
        """Set the state, and the status with all that belongs to the same moment."""
        self.state = state
        index = self.index
        self.status = Status(
            state,
            reason,
            self.applied,
            len(index),
            index.nbytes,
            index.kind,
            index.needs_compaction,
            index.has_learnt,
        )

    def catch_up(self) -> None:
        """Apply the log to its current end."""
        target = self.store.head()
        while self.state == "ready" and self.applied != target:
            self.apply_chunk()
            if self.applied >= target:
                return

    def apply_chunk(self) -> None:
        """Apply one batch of the log, unless the index must be rebuilt."""
        if self.state == "loading":
            return  # An earlier call found that the index must be rebuilt.
        if self._advance():
            self.set_state("ready")
        else:
            self.set_state("loading", "loading: the log no longer reaches back")

    def maintain(self) -> bool:
        """Let the index do some upkeep. Returns whether there is more to do at once."""
        if self.state == "loading":
            return False
        with self.turns.alone():
            more = self.index.maintain()
        if self.index.kind != self.status.kind:
            self.set_state("ready")
        return more

    def rebuild(self) -> None:
        """Rebuild the index from a snapshot or from all rows. Raises StoreUnavailable."""
        with self.turns.alone():  # Afterwards no search is in the index.
            self.set_state("loading", "loading")
        self._clear_index()
        if self._restore_snapshot():
            return
        self._clear_index()
        with self.store.scan(self.space, BATCH) as scan:
            for batch in scan.batches:
                if self.closing.is_set():
                    return
                if mine := self._decode_mine(batch):
                    self.index.apply(mine)
                self.set_state("loading", f"loading: {len(self.index)} pictures so far")
        self.applied = scan.head
        self.set_state("ready")

    def fit_background(self, image_ids: npt.NDArray[np.int64]) -> None:
        """Fit the background model to a sample of these indexed images or, of a shard, of the whole
        collection."""
        if len(image_ids) and self.shard != WHOLE:
            image_ids = stored_ids(self.store, self.space)
        if len(image_ids) < MIN_BACKGROUND_SAMPLE:
            # What was fitted to images that are gone says nothing of those that are left.
            self._background, self.index.background = None, self._default_background
            return
        rows = self.store.rows(self.space, sample_ids(image_ids, BACKGROUND_SAMPLE).tolist())
        sample = [
            found for at, row in rows.items() if (found := self._decoded(at, row)) is not None
        ]
        if len(sample) >= MIN_BACKGROUND_SAMPLE:
            self._background = self.index.background_of(np.stack(sample))
            self.index.background = self._background

    def _advance(self) -> bool:
        """Apply one batch of the log. Returns False if the index must be rebuilt instead (see
        `Store.changes`)."""
        began = time.perf_counter()
        changes = self.store.changes(self.space, self.applied, self._batch.entries)
        if changes is None:
            return False
        mine = self._decode_mine(changes.rows.items())
        seconds = time.perf_counter() - began
        with self.turns.alone():
            began = time.perf_counter()
            if mine:
                self.index.apply(mine)
            entries, self.applied = changes.head - self.applied, changes.head
        self._batch.record(entries, seconds + time.perf_counter() - began)
        return True

    def _restore_snapshot(self) -> bool:
        """Restore a snapshot and apply the log after it. Returns False if that is impossible."""
        applied = None if self.snapshots is None else self.snapshots.load(self.index)
        if applied is None:
            return False
        self.applied, head = applied, self.store.head()
        self.set_state("loading", f"loading: {head - applied} changes since the snapshot")
        while self.applied < head and not self.closing.is_set():
            if not self._advance():
                return False
        self.set_state("ready")
        return True

    def _clear_index(self) -> None:
        """Replace the index by an empty one that has the fitted background model."""
        if len(self.index):
            self.index = type(self.index)(self.index.options, self.index.rows)
            self.index.background = self._background or self.index.background

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


def row_reader(store: Store, space: Space, decode: Decode) -> Rows:
    """Make a function that reads stored features, for an index that re-ranks with them."""

    def rows(image_ids: Sequence[int]) -> Mapping[int, Features]:
        return {at: decode(row) for at, row in store.rows(space, image_ids).items()}

    return rows
