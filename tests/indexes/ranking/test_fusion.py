from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.base import Hit
from indexes.ranking.fusion import RankedList, above_confidence, fuse, old_rule
from indexes.relation.judging import Relation
from models.errors import InvalidInput


def ranked(name: str, *image_ids: int, weight: float = 1.0, verifying: bool = False) -> RankedList:
    hits = [Hit(image_id, distance=10 + rank) for rank, image_id in enumerate(image_ids)]
    return RankedList(name, hits, weight, verifying)


def ids_of(lists: list[RankedList]) -> list[int]:
    return [hit.image_id for hit in fuse(lists)]


id_lists = st.lists(st.integers(0, 12), unique=True, max_size=8)
list_sets = st.lists(
    st.tuples(id_lists, st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), max_size=4
).map(
    lambda rows: [
        ranked(f"r{number}", *image_ids, weight=weight, verifying=verifying)
        for number, (image_ids, weight, verifying) in enumerate(rows)
    ]
)


def test_a_picture_in_two_lists_goes_before_the_first_of_one() -> None:
    assert ids_of([ranked("color", 1, 2), ranked("global", 3, 2)]) == [2, 1, 3]


def test_the_score_is_the_share_of_the_best_reciprocal_rank_sum() -> None:
    hits = fuse([ranked("color", 1, 2), ranked("global", 2, weight=3.0)])
    best = 1 / 61 + 3 / 61
    assert [hit.image_id for hit in hits] == [2, 1]
    assert hits[0].score == pytest.approx((1 / 62 + 3 / 61) / best / 2)
    assert hits[1].score == pytest.approx(1 / 61 / best / 2)


def test_a_heavier_list_decides() -> None:
    assert ids_of([ranked("color", 1), ranked("global", 2, weight=1.1)]) == [2, 1]
    assert ids_of([ranked("color", 1, weight=1.1), ranked("global", 2)]) == [1, 2]


def test_a_list_of_weight_zero_is_left_out() -> None:
    hits = fuse([ranked("color", 1), ranked("phash", 1, 2, weight=0, verifying=True)])
    assert [(hit.image_id, hit.verified, list(hit.retrievers)) for hit in hits] == [
        (1, False, ["color"])
    ]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="weight of color"):
        ranked("color", weight=weight)


def test_a_verified_picture_goes_before_any_that_is_not() -> None:
    lists = [ranked("color", 1, 2), ranked("global", 1, 2), ranked("phash", 8, 9, verifying=True)]
    hits = fuse(lists)
    assert [hit.image_id for hit in hits] == [8, 9, 1, 2]
    assert [hit.verified for hit in hits] == [True, True, False, False]


def test_a_list_is_cut_at_its_threshold_before_its_hits_count_as_verified() -> None:
    phash = RankedList(
        "phash", [Hit(1, distance=63), Hit(2, distance=64)], verifying=True, distance_below=64
    )
    local = RankedList(
        "local", [Hit(3, inliers=20), Hit(4, inliers=19), Hit(5)], verifying=True, min_inliers=20
    )
    hits = fuse([phash, local, ranked("color", 2, 4)])
    assert {hit.image_id: hit.verified for hit in hits} == {1: True, 3: True, 2: False, 4: False}


def test_ranks_count_what_is_left_of_the_list() -> None:
    color = RankedList("color", [Hit(-1, distance=1), Hit(5, distance=2), Hit(6, distance=3)])
    assert [hit.row() for hit in fuse([color], exclude=[5])] == [
        {
            "image_id": 6,
            "score": 0.5,
            "retrievers": {"color": {"rank": 0, "distance": 3}},
        }
    ]


def test_a_hit_says_what_each_retriever_said() -> None:
    phash = RankedList("phash", [Hit(7, distance=12, mirrored=True)], verifying=True)
    local = RankedList("local", [Hit(8, inliers=200), Hit(7, inliers=143)], verifying=True)
    found = {hit.image_id: hit for hit in fuse([phash, local])}
    assert found[7].retrievers == {
        "phash": {"rank": 0, "distance": 12, "mirrored": True},
        "local": {"rank": 1, "inliers": 143},
    }


def test_two_lists_of_one_retriever_count_both_and_show_the_better() -> None:
    hits = fuse([ranked("color", 1, 2), ranked("color", 2, 3)])
    assert [hit.image_id for hit in hits] == [2, 1, 3]
    assert hits[0].retrievers == {"color": {"rank": 0, "distance": 10}}


def test_equal_scores_are_ordered_by_image_id() -> None:
    assert ids_of([ranked("color", 9), ranked("global", 3)]) == [3, 9]


def test_no_list_makes_no_hit() -> None:
    assert fuse([]) == []
    assert fuse([ranked("color")]) == []


@given(list_sets)
def test_every_believable_picture_is_fused_exactly_once(lists: list[RankedList]) -> None:
    found = Counter(hit.image_id for hit in fuse(lists))
    assert set(found) == {hit.image_id for one in lists if one.weight for hit in one.hits}
    assert set(found.values()) <= {1}


@given(list_sets)
def test_scores_descend_and_separate_verified_hits_from_the_rest(lists: list[RankedList]) -> None:
    hits = fuse(lists)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(0.5 < hit.score <= 1 if hit.verified else 0 < hit.score <= 0.5 for hit in hits)


@given(list_sets, st.randoms())
def test_the_order_of_the_lists_changes_nothing(lists: list[RankedList], random: object) -> None:
    before = [(hit.image_id, hit.score) for hit in fuse(lists)]
    random.shuffle(lists)  # type: ignore[attr-defined]
    assert [(hit.image_id, hit.score) for hit in fuse(lists)] == before


@given(list_sets, st.sampled_from([0.25, 3.0, 1000.0]))
def test_only_the_ratio_of_weights_matters(lists: list[RankedList], factor: float) -> None:
    scaled = [RankedList(one.name, one.hits, one.weight * factor, one.verifying) for one in lists]
    before = {hit.image_id: hit.score for hit in fuse(lists)}
    assert {hit.image_id: hit.score for hit in fuse(scaled)} == pytest.approx(before)


@given(list_sets, st.sets(st.integers(0, 12)))
def test_excluding_is_the_same_as_never_finding(
    lists: list[RankedList], excluded: set[int]
) -> None:
    cut = [
        RankedList(
            one.name,
            [hit for hit in one.hits if hit.image_id not in excluded],
            one.weight,
            one.verifying,
        )
        for one in lists
    ]
    assert fuse(lists, exclude=excluded) == fuse(cut)


def test_the_old_rule_wants_two_lists_and_adds_one_over_rank() -> None:
    hits = old_rule([ranked("phash", 5, 1), ranked("color", 2, 1, 5), ranked("local", 5)])
    assert [(hit.image_id, hit.score) for hit in hits] == [
        (5, pytest.approx(1 + 1 / 3 + 1)),
        (1, pytest.approx(1 / 2 + 1 / 2)),
    ]


def test_the_old_rule_heeds_no_weight_and_no_limit() -> None:
    hits = [Hit(1, distance=500)]
    lists = [RankedList("phash", hits, weight=0, distance_below=64), RankedList("color", hits)]
    assert [(hit.image_id, hit.score) for hit in old_rule(lists)] == [(1, 2.0)]


@given(list_sets)
def test_the_old_rule_is_its_definition(lists: list[RankedList]) -> None:
    expected = {}
    for image_id in range(13):
        ranks = [
            rank for one in lists for rank, hit in enumerate(one.hits) if hit.image_id == image_id
        ]
        if len(ranks) >= 2:
            expected[image_id] = sum(1 / (rank + 1) for rank in ranks)
    hits = old_rule(lists)
    assert {hit.image_id: hit.score for hit in hits} == pytest.approx(expected)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.image_id))


def test_a_fused_hit_is_as_sure_as_its_surest_retriever() -> None:
    lists = [
        RankedList("color", [Hit(1, distance=5, confidence=0.2), Hit(2, distance=6)]),
        RankedList("phash", [Hit(1, distance=9, confidence=0.9)], verifying=True),
    ]
    hits = fuse(lists)
    assert [(hit.image_id, hit.confidence) for hit in hits] == [(1, 0.9), (2, None)]
    assert hits[0].row()["confidence"] == 0.9
    assert "confidence" not in hits[1].row()


def test_a_hit_by_words_is_not_cut_for_its_unlikely_colours() -> None:
    lists = [
        RankedList("color", [Hit(1, distance=5, confidence=0.01)]),
        RankedList("text", [Hit(1, distance=0)]),
    ]
    hits = fuse(lists)
    assert hits[0].confidence is None
    assert above_confidence(hits, 0.5) == hits


def test_hits_below_the_least_confidence_are_dropped_unless_their_confidence_is_unknown() -> None:
    hits = fuse(
        [RankedList("color", [Hit(at, distance=at, confidence=at / 10) for at in range(1, 9)])]
    )
    assert sorted(hit.image_id for hit in above_confidence(hits, 0.5)) == [5, 6, 7, 8]
    assert above_confidence(hits, 0) == hits
    unknown = fuse([ranked("text", 1, 2)])
    assert above_confidence(unknown, 1.0) == unknown


def test_the_relation_decides_what_is_verified() -> None:
    lists = [ranked("phash", 1, 2, verifying=True), ranked("local", 3, verifying=True)]
    relations = {1: Relation("shares", 0.3), 2: Relation("part", 0.99), 3: Relation("like", 0.0)}
    hits = fuse(lists, relations=relations)
    assert (hits[0].image_id, hits[0].verified) == (2, True)
    assert not any(hit.verified for hit in hits[1:])
    assert [hit.image_id for hit in above_confidence(hits, 0.5)] == [2]


def test_verified_images_are_ordered_by_confidence_and_explained_share() -> None:
    lists = [ranked("color", 1, 2, 3), ranked("phash", 1, 2, 3, verifying=True)]
    relations = {
        1: Relation("part", 0.99, explained=0.5),
        2: Relation("same", 0.99, explained=1.0),
        3: Relation("same", 0.99, explained=1.0),
    }
    hits = fuse(lists, relations=relations)
    assert [hit.image_id for hit in hits] == [2, 3, 1]
    assert all(0.5 < hit.score <= 1 for hit in hits)


def test_what_another_retriever_finds_stays_when_a_relation_is_refuted() -> None:
    lists = [
        RankedList("global", [Hit(1, distance=0.1, confidence=0.8)]),
        RankedList("local", [Hit(1, inliers=9, confidence=0.99)], verifying=True),
    ]
    (like,) = fuse(lists, relations={1: Relation("like", 0.0)})
    assert (like.verified, like.confidence) == (False, 0.8)
    (scene,) = fuse(lists, relations={1: Relation("like", 0.85)})
    assert (scene.verified, scene.confidence) == (False, 0.85)
    (shares,) = fuse(lists, relations={1: Relation("shares", 0.3)})
    assert (shares.verified, shares.confidence) == (False, 0.3)


def test_a_row_says_the_relation() -> None:
    same = Relation("same", 0.99, (1.0, 0.9), 1.0, ("mirrored",))
    (hit,) = fuse([ranked("phash", 1, verifying=True)], relations={1: same})
    row = hit.row()
    assert (row["relation"], row["changes"]) == ("same", ("mirrored",))
    assert (row["overlap"], row["confidence"]) == ((1.0, 0.9), 0.99)
