"""The best picture by the owner's order of criteria, with its reasons."""

from __future__ import annotations

from typing import Any

import pytest

from indexes.duplicates.best import (
    CRITERIA,
    MEANINGS,
    BestRule,
    best_rule_write,
    read_best_rule,
    with_enlarged,
)
from indexes.duplicates.facts import Facts
from indexes.duplicates.pairs import Pair
from indexes.store.base import Image
from indexes.store.memory.store import MemoryStore
from models.errors import InvalidInput
from models.types import FileFacts


def facts(image_id: int, file: FileFacts | None = None, **changed: Any) -> Facts:
    fields: dict[str, Any] = {"width": 400, "height": 300, "created": 100.0, "source": "online"}
    image = Image(
        image_id=image_id,
        generation=1,
        sha256=str(image_id),
        wanted=frozenset(),
        pending=frozenset(),
        facts=file,
        **{**fields, **changed},
    )
    return Facts(image)


def ordered(*given: Facts, by: BestRule | None = None) -> list[int]:
    return (by or BestRule()).ordered({one.image.image_id: one for one in given})


def test_pixels_come_first_then_compression_then_metadata_then_age() -> None:
    small = facts(1, FileFacts("PNG", 9, 1.0, 50), width=200)
    jpeg = facts(2, FileFacts("JPEG", 9, 1.0, 50, 95))
    better = facts(3, FileFacts("JPEG", 9, 5.0, 3, 98))
    told = facts(4, FileFacts("JPEG", 9, 5.0, 30, 98))
    older = facts(5, FileFacts("JPEG", 9, 4.0, 30, 98))
    lossless = facts(6, FileFacts("PNG", 9))
    raw = facts(7, FileFacts("RAW", 9))
    given = [small, jpeg, better, told, older, lossless, raw]
    assert ordered(*given) == [7, 6, 5, 4, 3, 2, 1]
    assert ordered(*reversed(given)) == [7, 6, 5, 4, 3, 2, 1]


def test_the_owner_s_order_decides() -> None:
    one, other = facts(1, created=5.0), facts(2, width=9000, created=9.0)
    assert ordered(one, other) == [2, 1]
    assert ordered(one, other, by=BestRule(["oldest", "pixels"])) == [1, 2]
    file = facts(3, source="/a.jpg")
    assert ordered(other, file, by=BestRule(["in_files"])) == [3, 2]


def test_of_equal_pictures_the_lowest_id_is_the_best() -> None:
    assert ordered(facts(9), facts(3)) == [3, 9]
    reasons = BestRule().reasons([3, 9], {3: facts(3), 9: facts(9)})
    assert reasons == {
        3: ["nothing tells them apart: the lowest id"],
        9: ["nothing tells it from the best"],
    }


def test_reasons_name_what_decided_against_each_other_one() -> None:
    given = {
        1: facts(1, FileFacts("JPEG", 9, None, 0, 95)),
        2: facts(2, FileFacts("JPEG", 9, None, 0, 60)),
        3: facts(3, width=40),
    }
    assert BestRule().reasons([1, 2, 3], given) == {
        1: [
            "most pixels: 400×300, beside 40×300",
            "least compressed: JPEG of quality 95, beside JPEG of quality 60",
        ],
        2: ["more compressed: JPEG of quality 60"],
        3: ["fewer pixels: 40×300"],
    }


def test_a_picture_that_was_only_enlarged_is_not_better_than_the_one_it_came_from() -> None:
    given = {
        1: facts(1, FileFacts("PNG", 9), width=800, height=600),
        2: facts(2, FileFacts("JPEG", 9, None, 0, 60), width=200, height=150),
        3: facts(3, FileFacts("JPEG", 9, None, 0, 60), width=100, height=75),
        4: facts(4, FileFacts("JPEG", 9, None, 0, 60), width=300, height=225),
    }

    def pair(one: int, other: int, enlarged: int | None) -> Pair:
        contents = str(one), str(other)
        return Pair(one, other, contents, "resize", "same", 0.9, enlarged=enlarged)

    pairs = [pair(1, 2, 1), pair(1, 4, 1), pair(2, 3, None), pair(2, 4, None)]
    assert [Pair.decode(one.encode()) for one in pairs] == pairs
    told = with_enlarged(given, pairs)
    assert ordered(*told.values()) == [4, 2, 1, 3]
    reasons = BestRule().reasons([4, 2, 1, 3], told)
    assert reasons[1] == ["fewer pixels: 800×600, only enlarged from 200×150"]
    assert reasons[4] == [
        "most pixels: 300×225, beside 100×75, 200×150, 800×600, only enlarged from 200×150"
    ]
    assert ordered(*with_enlarged(given, []).values())[0] == 1


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_has_words(criterion: Any) -> None:
    assert MEANINGS[criterion]
    one = facts(1, FileFacts("JPEG", 10, 50.0, 4, 90), source="/a.jpg")
    other = facts(2, FileFacts("JPEG", 9, 60.0, 1, 80), width=10)
    rule = BestRule([criterion])
    assert rule.ordered({1: one, 2: other}) == [1, 2]
    reasons = rule.reasons([1, 2], {1: one, 2: other})
    assert all(len(why) == 1 and why[0] for why in reasons.values())


def test_a_rule_is_kept_and_a_wrong_one_is_refused() -> None:
    store = MemoryStore()
    assert read_best_rule(store).criteria == BestRule().criteria
    store.write_records(best_rule_write(["oldest"]))
    assert read_best_rule(store).criteria == ("oldest",)
    for wrong, match in [(["beauty"], "no criterion 'beauty'"), ([], "one or more")]:
        with pytest.raises(InvalidInput, match=match):
            best_rule_write(wrong)
