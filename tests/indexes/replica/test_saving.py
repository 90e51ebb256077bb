"""When snapshots are written, by which replica, and how far the log is compacted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.base import Index
from indexes.local.index import LocalIndex
from indexes.replica import saving
from indexes.replica.follower import Follower
from indexes.replica.saving import DAY, RENEWAL, compact, save_if_due
from indexes.replica.snapshot_file import header_of
from indexes.replica.snapshots import Snapshots
from indexes.store.base import Space, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from models.errors import RetrieverUnavailable
from tests.indexes.local.scenes import random_features
from tests.indexes.pictures import LOCAL, PHASH, picture, row_of
from tests.indexes.replica.index_with_rows import IndexWithRows
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import decode, nearest, tiny


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def follower(store: MemoryStore, tmp_path: Path) -> Iterator[Follower]:
    store.put_many([picture(n, str(n)) for n in range(10)])
    follower = ready(store, tmp_path / "kept")
    yield follower
    follower.close()


def ready(store: Store, folder: Path, space: Space = PHASH, index: Index | None = None) -> Follower:
    snapshots = Snapshots(folder, store, space)
    # An empty index is falsy.
    index = tiny() if index is None else index
    follower = Follower(store, space, index, decode, snapshots=snapshots)
    follower.rebuild()
    return follower


def path_of(follower: Follower) -> Path:
    assert follower.snapshots is not None
    return follower.snapshots.path(follower.submit(lambda index: index).result())


def seq_of(follower: Follower) -> int:
    header = header_of(path_of(follower))
    assert header is not None
    seq: int = header["seq"]
    return seq


def add(store: Store, follower: Follower, count: int) -> None:
    head = store.head()
    store.put_many([picture(None, f"{head} {n}") for n in range(count)])
    follower.catch_up()


def test_it_is_written_once_and_then_after_enough_changes(
    store: MemoryStore, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "CHANGES", 20)
    assert save_if_due(follower)
    assert not save_if_due(follower)
    add(store, follower, 19)
    assert not save_if_due(follower)
    add(store, follower, 1)
    assert save_if_due(follower)
    assert seq_of(follower) == 30
    monkeypatch.setattr(saving, "SHARE", 2)
    add(store, follower, 20)
    assert not save_if_due(follower), "a large index is written more seldom"
    add(store, follower, 10)
    assert save_if_due(follower)


def test_few_changes_wait_for_some_time_and_none_for_ever(
    store: MemoryStore, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert save_if_due(follower)
    monkeypatch.setattr(saving, "SECONDS", 0.0)
    assert not save_if_due(follower)
    add(store, follower, 1)
    assert save_if_due(follower)
    assert seq_of(follower) == 11


def test_an_index_that_has_trained_itself_is_written_once_more(
    store: MemoryStore, tmp_path: Path
) -> None:
    rows = IndexWithRows("local", {"train_above": 1000})
    follower = ready(store, tmp_path / "local", LOCAL, rows.index)
    assert save_if_due(follower)
    for number in range(11):
        rows.apply({number: random_features(number, 100)})
    index = rows.index
    assert isinstance(index, LocalIndex)
    assert not save_if_due(follower), "it trains, which is not worth a snapshot"
    index.wait_for_training()
    follower.applier.set_state("ready")
    assert save_if_due(follower)
    assert not save_if_due(follower)
    follower.close()
    again = LocalIndex(index.options, index.rows)
    assert not again.has_learnt
    assert Snapshots(tmp_path / "local", store, LOCAL).load(again) is not None
    assert again.has_learnt


def test_a_snapshot_that_has_gone_is_written_anew(follower: Follower) -> None:
    assert save_if_due(follower)
    path_of(follower).unlink()
    assert save_if_due(follower)
    assert seq_of(follower) == 10


def test_a_follower_that_is_not_ready_or_closed_writes_none(
    store: MemoryStore, tmp_path: Path, follower: Follower
) -> None:
    snapshots = Snapshots(tmp_path / "kept", store, PHASH)
    loading = Follower(store, PHASH, tiny(), decode, snapshots=snapshots)
    assert not save_if_due(loading)
    loading.close()
    without = Follower(store, PHASH, tiny(), decode)
    without.rebuild()
    assert not save_if_due(without)
    without.close()
    follower.close()
    with pytest.raises(RetrieverUnavailable, match="closed"):
        save_if_due(follower)
    assert not (tmp_path / "kept").exists()


def test_of_two_replicas_one_writes(store: MemoryStore, tmp_path: Path, follower: Follower) -> None:
    other = ready(store, tmp_path / "kept")
    assert follower.snapshots is not None
    name = follower.snapshots.name(tiny())
    assert store.lease(name, "another replica", 60)
    assert not save_if_due(other)
    store.release(name, "another replica")
    assert save_if_due(other)
    assert not save_if_due(follower)
    other.close()


def test_searches_are_answered_and_changes_applied_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between pieces, one image is replaced and found, and another one is deleted."""
    store = LmdbStore(tmp_path / "store")
    store.put_many([picture(n, str(n)) for n in range(200)])
    monkeypatch.setattr("indexes.arrays.frozen_rows.PIECE_BYTES", 72 * 4)
    follower = ready(store, tmp_path / "kept", index=IndexWithRows("binary").index)
    pieces = 0
    on_thread = saving._on_thread

    def slow(*args: object) -> object:
        nonlocal pieces
        taken = on_thread(*args)  # type: ignore[arg-type]
        if pieces < 30:
            pieces += 1
            store.put(picture(5, f"during {pieces}"))
            hits = follower.search(*nearest(row_of(f"during {pieces}"))).hits
            assert (hits[0].image_id, hits[0].distance) == (5, 0)
            store.delete(pieces)
        return taken

    monkeypatch.setattr(saving, "_on_thread", slow)
    assert save_if_due(follower)
    assert pieces == 30
    monkeypatch.undo()
    restarted = ready(store, tmp_path / "kept", index=IndexWithRows("binary").index)
    assert restarted.catch_up() == follower.catch_up()
    assert restarted.count == follower.count == 200 - 30 + 1
    for content in ("0", "7", "31", "199", "during 30"):
        asked = nearest(row_of(content))
        assert restarted.search(*asked).hits == follower.search(*asked).hits
    restarted.close()
    follower.close()
    store.close()


def test_a_follower_that_closes_meanwhile_leaves_no_half_file(
    store: MemoryStore, tmp_path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_thread = saving._on_thread
    closing: list[threading.Thread] = []

    def close_then(*args: object) -> object:
        taken = on_thread(*args)  # type: ignore[arg-type]
        if isinstance(taken, tuple):
            closing.append(threading.Thread(target=follower.close))
            closing[0].start()
            wait_for(follower._closing.is_set)
            closing[0].join()
        return taken

    monkeypatch.setattr(saving, "_on_thread", close_then)
    with pytest.raises(RetrieverUnavailable):
        save_if_due(follower)
    assert list((tmp_path / "kept").iterdir()) == []
    assert store.lease("snapshot:another", "me", 1)


def test_the_log_is_compacted_behind_the_slowest_snapshot(
    store: MemoryStore, tmp_path: Path, follower: Follower
) -> None:
    slow = ready(store, tmp_path / "kept", LOCAL)
    assert save_if_due(slow)
    add(store, follower, 5)
    assert save_if_due(follower)
    assert store.changes(PHASH, 10) is not None
    assert store.changes(PHASH, 9) is None
    slow.catch_up()
    path_of(slow).unlink()
    assert save_if_due(slow)
    assert store.changes(PHASH, 15) is not None
    assert store.changes(PHASH, 14) is None
    slow.close()


def test_a_retriever_that_has_not_been_seen_for_a_day_holds_nothing_back(
    store: MemoryStore, follower: Follower
) -> None:
    store.mark("snapshot of one that was taken out", 2, 0.01)
    store.mark("one that just starts", 3, 60)
    wait_for(lambda: len(store.marks()) == 2)
    assert save_if_due(follower)
    assert store.changes(PHASH, 3) is not None
    assert store.changes(PHASH, 2) is None


def test_only_one_replica_compacts_at_a_time(store: MemoryStore, follower: Follower) -> None:
    assert follower.snapshots is not None
    assert store.lease("compact", "another replica", 60)
    compact(follower.snapshots)
    assert store.changes(PHASH, 0) is not None
    store.release("compact", "another replica")
    compact(follower.snapshots)
    assert store.changes(PHASH, 0) is None


def test_a_snapshot_in_use_is_touched_and_its_mark_renewed(
    store: MemoryStore, follower: Follower
) -> None:
    assert save_if_due(follower)
    path = path_of(follower)
    os.utime(path, (time.time() - RENEWAL - 60,) * 2)
    store._marks.clear()
    assert not save_if_due(follower)
    assert list(store.marks().values()) == [10]
    assert time.time() - path.stat().st_mtime < RENEWAL


def test_day_old_snapshots_of_other_options_are_removed_and_other_retrievers_files_stay(
    tmp_path: Path, follower: Follower
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    names = ["phash@old.snapshot", "phash@old.snapshot.7.partial", "color@old.snapshot"]
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (time.time() - DAY - 60,) * 2)
    (folder / "phash@new.snapshot").touch()
    assert save_if_due(follower)
    left = {path.name for path in folder.iterdir()}
    assert left == {"color@old.snapshot", "phash@new.snapshot", path_of(follower).name}
