"""What is connected is read up to a bound, and what is grouped within it is consistent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from indexes.duplicates.catalogue import Counts, counts, groups_of, groups_page, regroup
from indexes.duplicates.connected import MOST_CONNECTED, connected
from indexes.duplicates.decisions import decide, undo
from indexes.duplicates.grouping import MOST_MEMBERS, Group
from indexes.duplicates.levels import Level
from indexes.duplicates.pairs import pair_writes
from indexes.store.memory.store import MemoryStore
from tests.indexes.duplicates.collection import add, pair

LONG = 2 * MOST_CONNECTED


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    yield store
    store.close()


def add_all(store: MemoryStore, count: int, ends: list[tuple[int, int]], level: Level) -> None:
    """Add images, and pairs among them as a job does, some at a time."""
    for at in range(count):
        add(store, at)
    pairs = [pair(store, a, b, level) for a, b in ends]
    for start in range(0, len(pairs), 128):
        some = pairs[start : start + 128]
        regroup(store, {at for one in some for at in (one.a, one.b)}, pair_writes(some))


def shown(store: MemoryStore) -> list[Group]:
    """Return all groups. Each member must be related to the best, no image be shown twice at a
    level, and the counts agree."""
    groups = [one.group for one in groups_page(store, None, "", 100_000)[0]]
    places = [(one.level, at) for one in groups for at in one.images]
    assert len(places) == len(set(places))
    for one in groups:
        assert 2 <= len(one.images) <= MOST_MEMBERS
        if one.level != "bytes":
            best = one.images[0]
            related = {it.other(best) for it in one.pairs if best in (it.a, it.b)}
            assert related == {*one.images[1:]}
    totals = counts(store)
    for level in {one.level for one in groups}:
        of_level = [one for one in groups if one.level == level]
        assert totals[level] == Counts(len(of_level), sum(len(one.images) for one in of_level), 0)
    return groups


def unshown(groups: list[Group], ends: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pairs of which neither end is in a group."""
    inside = {at for one in groups for at in one.images}
    return [(a, b) for a, b in ends if a not in inside and b not in inside]


def test_of_a_chain_only_the_part_near_a_decision_is_read(store: MemoryStore) -> None:
    ends = [(at, at + 1) for at in range(LONG - 1)]
    add_all(store, LONG, ends, "edited")
    groups = shown(store)
    assert not unshown(groups, ends)
    middle = LONG // 2
    part = connected(store, [middle, middle + 1], {})
    assert {middle - 100, middle + 100} < part.seen
    assert len(part.seen) <= MOST_CONNECTED + 2
    made = decide(store, "different", [middle, middle + 1])
    after = shown(store)
    assert not any({middle, middle + 1} <= {*one.images} for one in after)
    assert not unshown(after, [one for one in ends if one != (middle, middle + 1)])
    undo(store, made.decision_id)
    assert not unshown(shown(store), ends)


def test_a_burst_of_thousands_is_shown_in_groups_that_can_be_decided(store: MemoryStore) -> None:
    ends = [(at, at + step) for at in range(LONG) for step in (1, 5) if at + step < LONG]
    add_all(store, LONG, ends, "burst")
    groups = shown(store)
    assert not unshown(groups, ends)
    decided = groups[len(groups) // 2].images
    made = decide(store, "delete", decided)
    assert made.deleted == decided[1:]
    left = shown(store)
    assert not {*decided[1:]} & {at for one in left for at in one.images}
    rest = [one for one in ends if not {*one} & {*decided}]
    assert not unshown(left, rest)


def test_of_one_image_with_very_many_copies_the_others_follow_after_the_first(
    store: MemoryStore,
) -> None:
    ends = [(0, at) for at in range(1, LONG)]
    add_all(store, LONG, ends, "reencode")
    (first,) = shown(store)
    assert first.images == tuple(range(MOST_MEMBERS))
    decide(store, "keep_all", first.images)
    (second,) = shown(store)
    assert second.images == (0, *range(MOST_MEMBERS, 2 * MOST_MEMBERS - 1))
    decide(store, "delete", second.images)
    (third,) = shown(store)
    assert third.images == (0, *range(2 * MOST_MEMBERS - 1, LONG))


def test_identical_files_beyond_one_group_are_in_more_groups(store: MemoryStore) -> None:
    count = 2 * MOST_MEMBERS + 10
    for at in range(count):
        add(store, at, "one content")
    pairs = [pair(store, at, at + 1, "bytes") for at in range(count - 1)]
    regroup(store, range(count), pair_writes(pairs))
    groups = shown(store)
    assert sum(len(one.images) for one in groups) == count
    assert len(groups_of(store, [0])) == 1


def test_groups_that_reach_beyond_what_was_read_stay_as_they_are(store: MemoryStore) -> None:
    ends = [(at, at + 1) for at in range(LONG - 1)]
    add_all(store, LONG, ends, "edited")
    far = [one for one in shown(store) if min(one.images) > MOST_CONNECTED]
    assert far
    assert regroup(store, [0, 1]) == {0, 1}
    decide(store, "different", [0, 1])
    assert [one for one in shown(store) if min(one.images) > MOST_CONNECTED] == far
