"""Deleting by level: only what was asked for or is automatic, and always with an undo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.jobs.duplicates.applying import apply, automatic_levels
from indexes.duplicates.catalogue import groups_page
from indexes.duplicates.decisions import decide, undo
from indexes.duplicates.rules import read_rule, set_rule
from indexes.store.base import Store
from indexes.store.memory.store import MemoryStore
from tests.indexes.duplicates.collection import add, add_pairs, pair


@pytest.fixture
def store() -> Iterator[Store]:
    store = MemoryStore()
    for at in range(8):
        add(store, at)
    add_pairs(
        store,
        pair(store, 0, 1, "reencode"),
        pair(store, 2, 3, "reencode"),
        pair(store, 4, 5, "crop"),
        pair(store, 0, 6, "crop"),
    )
    yield store
    store.close()


def left(store: Store) -> list[int]:
    return [image.image_id for image in store.images()]


def test_only_levels_that_were_agreed_to_are_deleted(store: Store) -> None:
    asked: list[tuple[str, int]] = []

    def agree(level: str, groups: int) -> bool:
        asked.append((level, groups))
        return level == "reencode"

    applied = apply(store, ["reencode", "crop", "bytes"], agree)
    assert asked == [("reencode", 2), ("crop", 2)]
    assert sorted(applied.deleted) == [1, 3]
    assert left(store) == [0, 2, 4, 5, 6, 7]
    for decision_id in applied.decisions:
        undo(store, decision_id)
    assert left(store) == list(range(8))


def test_an_automatic_level_asks_nobody(store: Store) -> None:
    set_rule(store, "reencode", needed=1)
    decide(store, "delete", [2, 3])
    set_rule(store, "reencode", automatic=True)
    assert automatic_levels(store) == ["reencode"]

    def never(*_: object) -> bool:
        raise AssertionError

    assert apply(store, automatic_levels(store), never).deleted == [1]
    assert read_rule(store, "reencode").approvals == 1
    made = decide(store, "different", [4, 5])
    assert made.level == "crop"
    assert automatic_levels(store) == ["reencode"]


def test_an_order_to_keep_the_larger_holds_for_contents_that_come_back(store: Store) -> None:
    decide(store, "keep_larger", [2, 3])
    add(store, 20, "3")
    add_pairs(store, pair(store, 2, 20, "reencode"))
    assert apply(store, [], lambda *_: False).deleted == [20]
    groups = groups_page(store, "crop", "", 9)[0]
    assert len(groups) == 2
