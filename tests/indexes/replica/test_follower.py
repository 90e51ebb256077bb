"""A follower's answer includes every write acknowledged before the query."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from indexes.base import DistanceParams, Rows
from indexes.hamming.index import BinaryIndex
from indexes.replica import adaptive_batch, applier
from indexes.replica import follower as follower_module
from indexes.replica.applier import row_reader
from indexes.replica.follower import Follower
from indexes.store.base import ImageWrite, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from models.errors import RetrieverUnavailable
from models.types import Features, Options
from tests.indexes.pictures import COLOR, PHASH, picture, row_of, scanned
from tests.indexes.replica.followers import best, follow, ready
from tests.indexes.store.faults import FailingStore, SlowStore
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import TinyIndex, decode, nearest, no_rows, tiny


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = LmdbStore(tmp_path / "store") if request.param == "lmdb" else MemoryStore()
    yield store
    store.close()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


# --- catching up on demand ------------------------------------------------------------------------


def test_a_rebuild_reads_all_rows_in_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier, "BATCH", 4)
    store.put_many([picture(n, str(n)) for n in range(10)])
    index = tiny()
    follower = ready(store, index)
    assert index.applied == [4, 4, 2]
    assert index.rows_held() == scanned(store, PHASH)[1]
    assert (follower.applied, follower.count, follower.state) == (10, 10, "ready")
    follower.close()


def test_an_answer_holds_every_write_before_the_question(store: Store) -> None:
    follower = ready(store)
    for n in range(20):
        receipt = store.put(picture(n % 3, str(n)))
        answer = follower.search(*nearest(row_of(str(n))))
        assert best(answer) == (n % 3, 0.0)
        assert (answer.applied_seq, answer.stale) == (receipt.seq, False)
    store.delete(1)
    assert {hit.image_id for hit in follower.search(*nearest(row_of("1"))).hits} == {0, 2}
    follower.close()


def test_other_spaces_are_not_followed(store: Store) -> None:
    follower = ready(store)
    store.put(picture(1, features={COLOR: b"no 72 bytes"}))
    assert follower.catch_up() == 1
    assert follower.count == 0
    follower.close()


def test_a_loaded_index_goes_on_from_its_seq(store: Store) -> None:
    store.put_many([picture(n, str(n)) for n in range(5)])
    index = tiny()
    index.apply({n: decode(row_of(str(n))) for n in range(5)})
    follower = follow(store, index, applied=5)
    store.put(picture(9, "9"))
    assert follower.state == "ready"
    assert best(follower.search(*nearest(row_of("9")))) == (9, 0.0)
    assert index.applied == [5, 1]
    follower.close()


def test_a_long_tail_is_applied_in_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_batch, "CHUNK", 3)
    index = tiny()
    follower = ready(store, index)
    store.put_many([picture(n, str(n)) for n in range(10)])
    assert follower.catch_up() == 10
    assert index.applied == [3, 3, 3, 1]
    follower.close()


def test_a_follower_behind_the_compacted_log_rebuilds(store: Store) -> None:
    store.put_many([picture(n, str(n)) for n in range(5)])
    follower = ready(store)
    store.delete(0)
    store.put(picture(7, "7"))
    store.compact(6)
    assert follower.catch_up() == 7
    held: dict[int, bytes] = follower.submit(lambda index: index.rows_held()).result()  # type: ignore[attr-defined]
    assert held == scanned(store, PHASH)[1]
    follower.close()


def test_a_follower_beyond_a_restored_store_rebuilds(store: Store) -> None:
    store.put(picture(1, "a"))
    index = tiny()
    index.apply({5: decode(row_of("of the store that was"))})
    follower = follow(store, index, applied=40)
    assert follower.catch_up() == 1
    assert best(follower.search(*nearest(row_of("a")))) == (1, 0.0)
    assert follower.count == 1
    follower.close()


def test_a_search_that_finds_the_log_gone_has_it_rebuilt(store: Store) -> None:
    store.put(picture(1, "a"))
    follower = ready(store)
    store.put_many([picture(2, "b"), picture(3, "c")])
    store.compact(2)
    with pytest.raises(RetrieverUnavailable, match="no longer reaches back"):
        follower.search(*nearest(row_of("c")))
    wait_for(lambda: follower.state == "ready")
    assert best(follower.search(*nearest(row_of("c")))) == (3, 0.0)
    follower.close()


def test_an_unreadable_row_does_not_hide_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_many([picture(1, "a"), picture(2, "b", features={PHASH: b"short"})])
    follower = ready(store)
    store.put_many([picture(3, "c"), picture(4, "d", features={PHASH: b"short"})])
    assert follower.catch_up() == 4
    assert follower.count == 2
    assert "image 2 can't be read" in caplog.text
    assert "image 4 can't be read" in caplog.text
    follower.close()


def test_the_row_reader_decodes_and_leaves_out_what_is_gone(store: Store) -> None:
    store.put(picture(1, "a"))
    rows = row_reader(store, PHASH, decode)([1, 2])
    assert list(rows) == [1]
    assert rows[1].tobytes() == row_of("a")


# --- in the background ----------------------------------------------------------------------------


def test_a_started_follower_loads_then_follows_without_being_asked(store: Store) -> None:
    store.put(picture(1, "a"))
    follower = follow(store)
    assert follower.state == "loading"
    with pytest.raises(RetrieverUnavailable, match="phash is loading"):
        follower.search(*nearest(row_of("a")))
    follower.start(poll=0.01)
    wait_for(lambda: follower.state == "ready" and follower.applied == 1)
    store.put(picture(2, "b"))
    wait_for(lambda: follower.applied == 2)
    assert (follower.count, follower.nbytes, follower.kind) == (2, 144, "tiny")
    follower.close()


def test_searches_get_their_turn_while_a_long_tail_is_applied(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive_batch, "CHUNK", 1)
    follower = ready(SlowStore(memory, 0.002))
    follower.start(poll=0.001)
    memory.put_many([picture(n, str(n)) for n in range(200)])
    wait_for(lambda: follower.applied > 2)
    answer = follower.search(*nearest(row_of("0")), stale_ok=True)
    assert 2 < answer.applied_seq < 200
    wait_for(lambda: follower.applied == 200)
    follower.close()


def test_loading_goes_on_when_the_store_comes_back(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "RETRY", 0.01)
    memory.put(picture(1, "a"))
    store = FailingStore(memory)
    follower = follow(store)
    follower.start(poll=0.01)
    wait_for(lambda: "disk is gone" in follower.status.reason)
    with pytest.raises(RetrieverUnavailable, match="disk is gone"):
        follower.search(*nearest(row_of("a")))
    store.failing = False
    wait_for(lambda: follower.state == "ready")
    assert best(follower.search(*nearest(row_of("a")))) == (1, 0.0)
    store.failing = True
    time.sleep(0.05)
    store.failing = False
    memory.put(picture(2, "b"))
    wait_for(lambda: follower.applied == 2)
    follower.close()


class _Broken(TinyIndex):
    def apply(self, changes: Mapping[int, Features | None]) -> None:
        if 13 in changes:
            raise RuntimeError("the index is broken")
        super().apply(changes)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_index_is_reported_and_not_passed_over(memory: MemoryStore) -> None:
    follower = follow(memory, _Broken(Options(), no_rows))
    follower.start(poll=0.01)
    wait_for(lambda: follower.state == "ready")
    memory.put(picture(13))

    def failed() -> bool:
        try:
            follower.check()
        except RetrieverUnavailable as exc:
            return "the index is broken" in exc.detail
        return False

    wait_for(failed)
    assert follower.applied == 0
    follower.close()


def test_closing_ends_a_rebuild_and_cancels_what_waits(memory: MemoryStore) -> None:
    memory.put_many([picture(n, str(n)) for n in range(10)])
    follower = ready(memory)
    held = threading.Event()
    running = follower.submit(lambda _: held.wait(5))
    wait_for(running.running)
    waiting = follower.submit(len)
    closer = threading.Thread(target=follower.close)
    closer.start()
    wait_for(waiting.cancelled)
    held.set()
    closer.join(5)
    assert running.result()
    with pytest.raises(CancelledError):
        waiting.result()


def test_search_parameters_reach_the_index(store: Store) -> None:
    store.put_many([picture(n, str(n)) for n in range(10)])
    follower = ready(store)
    query, _ = nearest(row_of("3"))
    answer = follower.search(query, DistanceParams(k=2, offset=1))
    assert len(answer.hits) == 2
    assert answer.hits[0].image_id != 3
    follower.close()


def test_a_grown_collection_learns_how_near_its_own_pictures_lie(store: Store) -> None:
    count = applier.MIN_BACKGROUND_SAMPLE
    store.put_many([coded(at) for at in range(count - 1)])
    index = BinaryIndex(BinaryIndex.Config(), row_reader(store, PHASH, decode))
    usual = index.background
    follower = Follower(store, PHASH, index, decode)
    follower.start(poll=0.01)
    wait_for(lambda: follower.count == count - 1)
    store.put_many([coded(at) for at in range(count - 1, 3 * count)])
    wait_for(lambda: index.background not in (None, usual))
    assert index.background is not None
    # Random codes differ in half of their 576 bits, with a standard deviation of 12.
    assert 255 < index.background.near < 270
    best_hit = follower.search(*nearest(row_of("7"))).hits[0]
    assert (best_hit.image_id, best_hit.confidence) == (7, 1.0)
    for at in range(20, 3 * count):
        store.delete(at)
    wait_for(lambda: index.background == usual)
    follower.close()


class PreallocatingIndex(TinyIndex):
    """An index that has three pieces to maintain after each change."""

    def __init__(self, options: Options, rows: Rows) -> None:
        super().__init__(options, rows)
        self.left = 0
        self.threads = set[int]()

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        super().apply(changes)
        self.left = 3

    def maintain(self) -> bool:
        self.threads.add(threading.get_ident())
        self.left = max(0, self.left - 1)
        return self.left > 0


class RenamingIndex(TinyIndex):
    """An index that changes its kind by upkeep, as one does whose training has ended."""

    renamed = False

    @property
    def kind(self) -> str:
        return "renamed" if self.renamed else super().kind

    def maintain(self) -> bool:
        self.renamed = True
        return False


def test_the_status_tells_what_upkeep_has_changed(memory: MemoryStore) -> None:
    follower = follow(memory, RenamingIndex(Options(), no_rows))
    follower.start(poll=0.01)
    wait_for(lambda: follower.kind == "renamed")
    assert follower.state == "ready"
    follower.close()


def test_room_is_made_on_the_thread_of_the_index_once_the_log_is_applied(store: Store) -> None:
    index = PreallocatingIndex(Options(), no_rows)
    follower = Follower(store, PHASH, index, decode)
    follower.start(poll=0.01)
    for at in range(3):
        store.put(picture(at, str(at)))
        wait_for(lambda: follower.applied == store.head() and index.left == 0)
    assert index.threads == {follower.submit(lambda _: threading.get_ident()).result()}
    follower.close()


def coded(image_id: int) -> ImageWrite:
    return picture(image_id, str(image_id))
