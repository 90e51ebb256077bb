"""Groups: every member is related to the best one, and nothing is shown twice."""

from __future__ import annotations

import pytest

from indexes.duplicates.grouping import Group, group
from indexes.duplicates.levels import LEVELS, Level
from indexes.duplicates.pairs import Pair

ORDER = {at: at for at in range(100)}


def pair(a: int, b: int, level: Level = "reencode", confidence: float = 0.9) -> Pair:
    return Pair(a, b, (str(a), str(b)), level, "same", confidence)


def shown(groups: list[Group]) -> list[tuple[str, tuple[int, ...]]]:
    return [(one.level, one.images) for one in groups]


def test_pairs_of_one_best_are_a_group_with_the_best_first() -> None:
    groups = group([pair(3, 5), pair(1, 5), pair(1, 3)], ORDER)
    assert shown(groups) == [("reencode", (1, 3, 5))]
    assert [(one.a, one.b) for one in groups[0].pairs] == [(1, 3), (1, 5), (3, 5)]
    assert shown(group([pair(1, 3), pair(1, 5)], {1: 9, 3: 2, 5: 1})) == [("reencode", (5, 1))]


def test_a_chain_is_not_merged() -> None:
    groups = group([pair(1, 2, "edited"), pair(2, 3, "edited"), pair(3, 4, "edited")], ORDER)
    assert shown(groups) == [("edited", (1, 2)), ("edited", (3, 4))]


def test_identical_files_are_one_group_whichever_pairs_were_found() -> None:
    groups = group([pair(5, 9, "bytes"), pair(3, 9, "bytes"), pair(1, 3, "bytes")], ORDER)
    assert shown(groups) == [("bytes", (1, 3, 5, 9))]


def test_an_image_is_at_a_looser_level_only_what_its_best_copy_is_not() -> None:
    pairs = [pair(1, 2, "bytes"), pair(2, 3), pair(1, 3), pair(2, 4, "crop"), pair(1, 4, "crop")]
    assert shown(group(pairs, ORDER)) == [
        ("bytes", (1, 2)),
        ("reencode", (1, 3)),
        ("crop", (1, 4)),
    ]


def test_an_exact_copy_stands_for_its_best_even_if_only_the_copy_was_compared() -> None:
    assert shown(group([pair(1, 2, "pixels"), pair(2, 3, "resize")], ORDER)) == [
        ("pixels", (1, 2)),
        ("resize", (1, 3)),
    ]


def test_what_only_a_worse_copy_is_related_to_is_not_lost() -> None:
    assert shown(group([pair(1, 2), pair(2, 3, "crop")], ORDER)) == [
        ("reencode", (1, 2)),
        ("crop", (2, 3)),
    ]


def test_no_pair_makes_no_group() -> None:
    assert group([], ORDER) == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_group_is_the_same_after_it_was_stored(level: Level) -> None:
    one = Pair(1, 2, ("a", "b"), level, "edited", 0.5, ("mirrored",), (0.5, 1.0))
    two = Group(level, (2, 1), (one,), 77, {1: ["newer"], 2: ["oldest"]})
    assert Group.decode(two.encode()).encode() == two.encode()
    assert Group.decode(two.encode()).pairs[0].overlap == (0.5, 1.0)
