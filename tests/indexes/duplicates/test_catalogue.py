"""The catalogue: groups follow what changes, and counts agree with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexes.duplicates.catalogue import (
    Counts,
    counts,
    groups_of,
    groups_page,
    regroup,
)
from indexes.duplicates.levels import LEVELS
from indexes.store.base import Store
from indexes.store.lmdb.store import LmdbStore
from indexes.store.memory.store import MemoryStore
from indexes.store.postgres.store import PostgresStore
from tests.indexes.duplicates.collection import add, add_pairs, pair


@pytest.fixture(params=["lmdb", "memory", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: dict[str, Callable[[], Store]] = {
        "lmdb": lambda: LmdbStore(tmp_path / "store"),
        "memory": MemoryStore,
        "postgresql": lambda: PostgresStore(request.getfixturevalue("new_database")()),
    }
    store = made[request.param]()
    yield store
    store.close()


def shown(store: Store) -> list[tuple[str, tuple[int, ...]]]:
    """Return all groups, read in small pages; the counts must agree."""
    found, after = [], ""
    while True:
        page, following = groups_page(store, None, after, 2)
        found += page
        if following is None:
            break
        after = following
    totals = counts(store)
    for level in LEVELS:
        of_level = [one.group for one in found if one.group.level == level]
        images = sum(len(one.images) for one in of_level)
        size = sum(one.size for one in of_level)
        assert totals[level] == Counts(len(of_level), images, size)
        assert [one.group for one in groups_page(store, level, "", 999)[0]] == of_level
    return [(one.group.level, one.group.images) for one in found]


def test_groups_come_the_strictest_first(store: Store) -> None:
    for at in range(8):
        add(store, at)
    add_pairs(store, pair(store, 4, 5, "similar"), pair(store, 2, 3, "crop"))
    add_pairs(store, pair(store, 0, 1, "bytes"), pair(store, 6, 7, "crop"))
    assert shown(store) == [
        ("bytes", (0, 1)),
        ("crop", (2, 3)),
        ("crop", (6, 7)),
        ("similar", (4, 5)),
    ]
    (found,) = groups_of(store, [7])
    assert found.group.reasons == {
        6: ["most pixels: 3994×2994, beside 3993×2993"],
        7: ["fewer pixels: 3993×2993"],
    }


def test_a_new_pair_joins_the_group_of_its_best(store: Store) -> None:
    for at in range(4):
        add(store, at)
    add_pairs(store, pair(store, 1, 2))
    add_pairs(store, pair(store, 0, 1), pair(store, 0, 2))
    assert shown(store) == [("reencode", (0, 1, 2))]


def test_a_pair_of_an_image_that_is_gone_goes_too(store: Store) -> None:
    for at in range(3):
        add(store, at)
    add_pairs(store, pair(store, 0, 1), pair(store, 0, 2), pair(store, 1, 2))
    store.delete(0)
    regroup(store, [0])
    assert shown(store) == [("reencode", (1, 2))]
    store.delete(2)
    regroup(store, [2])
    assert shown(store) == []
    assert store.record_kinds() == ["duplicates.again", "duplicates.state"]
    assert [int(one.key) for one in store.records("duplicates.again")] == [1, 2]


def test_a_recycled_id_is_not_taken_for_the_picture_it_had(store: Store) -> None:
    for at in range(2):
        add(store, at)
    add_pairs(store, pair(store, 0, 1))
    store.delete(1)
    add(store, 1, "quite another")
    regroup(store, [1])
    assert shown(store) == []


def test_grouping_anew_changes_nothing_where_nothing_has_changed(store: Store) -> None:
    for at in range(3):
        add(store, at)
    add_pairs(store, pair(store, 0, 1), pair(store, 0, 2))
    before = {kind: store.records(kind) for kind in store.record_kinds()}
    assert regroup(store, [1]) == {0, 1, 2}
    assert {kind: store.records(kind) for kind in store.record_kinds()} == before


def test_many_writers_at_once_leave_the_counts_right(store: Store) -> None:
    for at in range(40):
        add(store, at)
    chances = random.Random(1)
    pairs = []
    for _ in range(60):
        a, b = sorted(chances.sample(range(40), 2))
        pairs.append(pair(store, a, b, chances.choice(["bytes", "crop", "similar"])))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda one: add_pairs(store, one), pairs))
    concurrent = shown(store)
    regroup(store, range(40))
    assert shown(store) == concurrent
