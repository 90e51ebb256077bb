"""A follower whose store fails or lags, and searches that wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.replica import adaptive_batch
from indexes.replica.answer import Answer
from indexes.store.base import Changes, Space, Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from tests.indexes.pictures import picture, row_of
from tests.indexes.replica.followers import best, ready
from tests.indexes.store.faults import FailingStore, FullStore, SlowStore, WrappedStore
from tests.indexes.tiny_index import nearest


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = LmdbStore(tmp_path / "store") if request.param == "lmdb" else MemoryStore()
    yield store
    store.close()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


# --- failing stores and waiting -------------------------------------------------------------------


def test_answers_come_from_memory_while_the_store_cannot_be_read(memory: MemoryStore) -> None:
    store = FailingStore(memory, failing=False)
    store.put(picture(1, "a"))
    follower = ready(store)
    memory.put(picture(2, "b"))
    store.failing = True
    answer = follower.search(*nearest(row_of("b")), min_seq=2)
    assert (answer.applied_seq, answer.stale) == (1, True)
    assert [hit.image_id for hit in answer.hits] == [1]
    store.failing = False
    assert best(follower.search(*nearest(row_of("b")))) == (2, 0.0)
    follower.close()


def test_a_full_store_is_still_searched(memory: MemoryStore) -> None:
    memory.put(picture(1, "a"))
    follower = ready(FullStore(memory))
    assert not follower.search(*nearest(row_of("a"))).stale
    follower.close()


def test_a_search_waits_for_the_seq_it_was_given(store: Store) -> None:
    follower = ready(store)
    later = threading.Timer(0.1, lambda: store.put(picture(1, "a")))
    later.start()
    answer = follower.search(*nearest(row_of("a")), min_seq=1)
    assert best(answer) == (1, 0.0)
    assert not answer.stale
    later.join()
    follower.close()


def test_waiting_ends_at_half_the_deadline_and_blocks_no_other_search(store: Store) -> None:
    store.put(picture(1, "a"))
    follower = ready(store)
    waited: list[Answer] = []

    def wait() -> None:
        waited.append(follower.search(*nearest(row_of("a")), min_seq=10**9, deadline=2))

    waiter = threading.Thread(target=wait)
    began = time.monotonic()
    waiter.start()
    for _ in range(20):
        assert not follower.search(*nearest(row_of("a"))).stale
    assert time.monotonic() - began < 0.8
    waiter.join()
    assert 0.9 < time.monotonic() - began < 2
    assert waited[0].stale
    assert best(waited[0]) == (1, 0.0)
    follower.close()


class _Endless(WrappedStore):
    """A store whose log grows by one entry at every read."""

    def changes(self, space: Space, after: int, limit: int | None = None) -> Changes | None:
        self.inner.put(picture(after % 50, f"{after} again"))
        time.sleep(0.002)
        return self.inner.changes(space, after, 1 if limit else None)


def test_a_search_ends_even_if_the_log_grows_as_fast_as_it_is_applied(memory: MemoryStore) -> None:
    follower = ready(memory)
    follower.applier.store = _Endless(memory)
    memory.put_many([picture(n, str(n)) for n in range(10)])
    answer = follower.search(*nearest(row_of("9")))
    assert 10 <= answer.applied_seq < 30
    assert not answer.stale
    follower.close()


def test_a_tail_too_long_for_the_deadline_is_answered_stale(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive_batch, "CHUNK", 1)
    memory.put(picture(0, "0"))
    follower = ready(SlowStore(memory, 0.01))
    memory.put_many([picture(n, str(n)) for n in range(1, 200)])
    began = time.monotonic()
    answer = follower.search(*nearest(row_of("0")), deadline=0.2)
    assert time.monotonic() - began < 1
    assert answer.stale
    assert best(answer) == (0, 0.0)
    assert 1 < answer.applied_seq < 200
    follower.close()


def test_the_event_loop_goes_on_while_a_search_follows_the_log(memory: MemoryStore) -> None:
    store = SlowStore(memory, 0.2)
    follower = ready(store)
    memory.put(picture(1, "a"))

    async def ask() -> tuple[Answer, int]:
        ticks = 0
        search = asyncio.ensure_future(follower.asearch(*nearest(row_of("a")), min_seq=1))
        while not search.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return search.result(), ticks

    answer, ticks = asyncio.run(ask())
    assert best(answer) == (1, 0.0)
    assert ticks >= 10
    follower.close()


def test_an_awaited_search_waits_for_its_seq_too(store: Store) -> None:
    follower = ready(store)

    async def ask() -> Answer:
        search = asyncio.ensure_future(follower.asearch(*nearest(row_of("a")), min_seq=1))
        await asyncio.sleep(0.05)
        assert not search.done()
        store.put(picture(1, "a"))
        return await search

    assert best(asyncio.run(ask())) == (1, 0.0)

    async def ask_too_much() -> Answer:
        return await follower.asearch(*nearest(row_of("a")), min_seq=99, deadline=0.1)

    assert asyncio.run(ask_too_much()).stale
    follower.close()


def test_a_stale_answer_can_be_asked_for(memory: MemoryStore) -> None:
    store = FailingStore(memory, failing=False)
    store.put(picture(1, "a"))
    follower = ready(store)
    memory.put(picture(2, "b"))
    store.failing = True
    answer = follower.search(*nearest(row_of("a")), stale_ok=True)
    assert (answer.applied_seq, answer.stale) == (1, False)
    follower.close()


def test_a_follower_at_the_requested_seq_does_not_read_the_store(memory: MemoryStore) -> None:
    store = FailingStore(memory, failing=False)
    store.put(picture(1, "a"))
    follower = ready(store)
    store.failing = True
    assert not follower.search(*nearest(row_of("a")), min_seq=1).stale
    assert follower.search(*nearest(row_of("a")), min_seq=2).stale
    assert follower.search(*nearest(row_of("a"))).stale
    follower.close()
