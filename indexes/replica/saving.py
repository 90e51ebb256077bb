"""Writes a replica's snapshots when they are due, and compacts the log behind them.

Searches continue meanwhile: the index's thread is held for one piece of an array at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from indexes.arrays.frozen import Frozen
from indexes.base import Index
from indexes.replica.applier import Status
from indexes.replica.follower import Follower
from indexes.replica.snapshot_file import write
from indexes.replica.snapshots import DAY, Snapshots
from models.errors import RetrieverUnavailable

T = TypeVar("T")

CHANGES = 20_000
SHARE = 10
"""A snapshot is due after CHANGES log entries, or after 1/SHARE of the number of images if that is
more."""
SECONDS = 1800.0
"""A snapshot is also due after so many seconds if anything has changed, and at once when the index
has trained itself."""
RENEWAL = 3600.0
"""Seconds between two renewals of the mark that keeps the log after a snapshot."""
LEASE = 600.0


def save_if_due(follower: Follower) -> bool:
    """Write a snapshot if one is due and no other replica of this host is writing one.

    Returns whether one was written. Raises OSError (the old snapshot stays), StoreUnavailable and
    RetrieverUnavailable.
    """
    snapshots = follower.snapshots
    if snapshots is None or follower.state != "ready":
        return False
    index = _on_thread(follower, lambda index: index)
    written = snapshots.written(index)
    if _is_due(written, follower.status):
        return _save_alone(follower, snapshots, index)
    path = snapshots.path(index)
    if written is not None and time.time() - path.stat().st_mtime > RENEWAL:
        os.utime(path)
        snapshots.mark(index, written["seq"])
        compact(snapshots)
    return False


def compact(snapshots: Snapshots) -> None:
    """Compact the log up to the oldest mark, unless another replica is compacting it."""
    store, marks = snapshots.store, snapshots.store.marks()
    if marks and store.lease("compact", snapshots.holder, LEASE):
        try:
            store.compact(min(marks.values()))
        finally:
            store.release("compact", snapshots.holder)


def _is_due(written: Mapping[str, Any] | None, status: Status) -> bool:
    if written is None:
        return True
    if status.has_learnt and not written.get("learnt", False):
        return True
    changes: int = status.applied - written["seq"]
    late = time.time() - written["written"] > SECONDS
    return changes >= max(CHANGES, status.count // SHARE) or (changes > 0 and late)


def _save_alone(follower: Follower, snapshots: Snapshots, index: Index) -> bool:
    """Save under the lease, if a snapshot is still due once the lease is held."""
    name, store = snapshots.name(index), snapshots.store
    if not store.lease(name, snapshots.holder, LEASE):
        return False
    try:
        if not _is_due(snapshots.written(index), follower.status):
            return False
        _save(follower, snapshots)
        return True
    finally:
        store.release(name, snapshots.holder)


def _save(follower: Follower, snapshots: Snapshots) -> None:
    index, state, frozen = _on_thread(follower, lambda index: _frozen(follower, index))
    path = snapshots.path(index)
    header = {**snapshots.header(index), **state, "written": time.time()}
    try:
        write(
            path, header, frozen, lambda pieces: _on_thread(follower, lambda _: next(pieces, None))
        )
    finally:
        _release(follower, frozen)
    snapshots.mark(index, state["seq"])
    compact(snapshots)
    _remove_old(snapshots.folder, snapshots.prefix)


def _frozen(follower: Follower, index: Index) -> tuple[Index, dict[str, Any], Frozen]:
    """Freeze the index and read its state; both match, because this runs on the index's thread."""
    follower.check()
    state = {"seq": follower.applied, "learnt": index.has_learnt}
    return index, state, index.freeze()


def _release(follower: Follower, frozen: Frozen) -> None:
    with suppress(RetrieverUnavailable):
        _on_thread(follower, lambda _: frozen.release())


def _remove_old(folder: Path, prefix: str) -> None:
    """Remove snapshots of options that this retriever no longer has: those untouched for a day.

    Snapshots in use are touched every hour.
    """
    for path in folder.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > DAY:
                path.unlink()


def _on_thread(follower: Follower, job: Callable[[Index], T]) -> T:
    """Run a job on the index's thread. Raises RetrieverUnavailable if the follower closes."""
    try:
        return follower.submit(job).result()
    except CancelledError as exc:
        raise RetrieverUnavailable(f"{follower.space.kind} closes") from exc
