"""Searches run at once; a change has the index alone, and both come to their turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexes.base import Hit, Query, SearchParams
from indexes.store.memory.store import MemoryStore
from models.types import Features, Options
from tests.indexes.pictures import picture, row_of
from tests.indexes.replica.followers import best, follow
from tests.indexes.store.faults import SlowStore
from tests.indexes.store.forks import wait_for
from tests.indexes.tiny_index import TinyIndex, nearest, no_rows


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


class WatchedIndex(TinyIndex):
    """An index that fails when a change meets a search or another change, and counts searches that
    run at once."""

    def __init__(self) -> None:
        super().__init__(Options(), no_rows)
        self.lock = threading.Lock()
        self.changing = False
        self.searching = self.most_searching = 0

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        with self.lock:
            assert not self.changing
            assert not self.searching
            self.changing = True
        time.sleep(0.001)
        super().apply(changes)
        self.changing = False

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        with self.lock:
            assert not self.changing
            self.searching += 1
            self.most_searching = max(self.most_searching, self.searching)
        time.sleep(0.002)
        hits = super()._search(query, params)
        with self.lock:
            self.searching -= 1
        return hits


def test_searches_run_at_once_and_a_change_has_the_index_alone(memory: MemoryStore) -> None:
    index = WatchedIndex()
    follower = follow(memory, index, searches=3)
    follower.rebuild()
    follower.start(poll=0.001)
    memory.put(picture(0, "0"))
    right: list[bool] = []

    def ask(first: int) -> None:
        for n in range(first, first + 10):
            memory.put(picture(n, str(n)))
            answer = follower.search(*nearest(row_of(str(n))))
            right.append(best(answer) == (n, 0.0))
            assert follower.status.count >= 1

    threads = [threading.Thread(target=ask, args=(first,)) for first in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 30
    assert index.most_searching > 1
    follower.close()


class CountingStore(SlowStore):
    """Counts the reads of the log."""

    reads = 0

    def before(self, name: str) -> None:
        self.reads += name == "changes"
        super().before(name)


def test_one_application_of_the_log_serves_all_searches_that_wait_for_it(
    memory: MemoryStore,
) -> None:
    slow = CountingStore(memory, 0.05)
    follower = follow(slow, searches=8)
    follower.rebuild()
    memory.put(picture(1, "a"))
    before = slow.reads
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(follower.search, *nearest(row_of("a"))) for _ in range(8)]
        assert [best(one.result()) for one in asked] == [(1, 0.0)] * 8
    assert slow.reads - before <= 2
    follower.close()


def test_changes_are_applied_below_a_stream_of_searches(memory: MemoryStore) -> None:
    follower = follow(memory, WatchedIndex(), searches=4)
    follower.rebuild()
    follower.start(poll=0.001)
    memory.put(picture(0, "0"))
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            follower.search(*nearest(row_of("0")), stale_ok=True)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for n in range(1, 20):
            head = memory.put(picture(n, str(n))).seq
            wait_for(lambda head=head: follower.applied >= head)  # type: ignore[misc]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        follower.close()
