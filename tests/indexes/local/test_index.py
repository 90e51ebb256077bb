"""The local index: what it finds and where, and that it agrees with a brute-force search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from indexes.base import Hit, Query
from indexes.local.index import LocalIndex, LocalParams
from indexes.registry import make_index
from models.errors import InvalidInput, StoreUnavailable
from models.types import Features, Pixels
from tests.indexes.local.scenes import asked, jittered, random_features, scene, stored

EXACT = {"train_above": 1000, "factory": "IVF{lists},Flat", "probes": 4096}
"""Options of a trained index that probes all of its lists, so it must agree with an exact one."""


class IndexWithRows:
    """An index and the rows that it reads; like the store, it changes the rows first."""

    def __init__(self, **options: Any) -> None:
        self.rows: dict[int, Features] = {}
        index = make_index("local", options, self.read)
        assert isinstance(index, LocalIndex)
        self.index = index

    def read(self, image_ids: Sequence[int]) -> Mapping[int, Features]:
        return {key: self.rows[key] for key in image_ids if key in self.rows}

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        for key, features in changes.items():
            if features is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = features
        self.index.apply(changes)

    def search(
        self, variants: Sequence[Features], allowed: Sequence[int] | None = None, **params: Any
    ) -> list[Hit]:
        only = None if allowed is None else np.array(allowed, np.int64)
        return self.index.search(Query(variants, only), LocalParams.parse(params))


@pytest.fixture(scope="module")
def gallery() -> IndexWithRows:
    shelf = IndexWithRows()
    shelf.apply({seed: stored(scene(seed)) for seed in range(12)})
    return shelf


def half(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[60:270, 90:370])


def test_a_crop_finds_its_picture_and_where_it_lies(gallery: IndexWithRows) -> None:
    hits = gallery.search(asked(half(scene(5))), explain=True)
    assert [hit.image_id for hit in hits] == [5]
    assert hits[0].mirrored is False
    assert hits[0].inliers is not None
    assert hits[0].inliers >= 20
    np.testing.assert_allclose(hits[0].homography, [[1, 0, 90], [0, 1, 60], [0, 0, 1]], atol=2)
    points = np.array(hits[0].points)
    assert points.shape == (hits[0].inliers, 4)
    np.testing.assert_allclose(points[:, :2] + [90, 60], points[:, 2:], atol=5)


def test_a_mirrored_crop_is_found_in_pixels_of_the_query_as_it_was_given(
    gallery: IndexWithRows,
) -> None:
    query = np.ascontiguousarray(half(scene(7))[:, ::-1])
    best = gallery.search(asked(query), explain=True)[0]
    assert (best.image_id, best.mirrored) == (7, True)
    points = np.array(best.points)
    assert points[:, 0].min() >= 0
    expected = np.stack([query.shape[1] - 1 - points[:, 0] + 90, points[:, 1] + 60], axis=1)
    np.testing.assert_allclose(expected, points[:, 2:], atol=5)
    corner = np.array(best.homography) @ [0, 0, 1]
    np.testing.assert_allclose(corner / corner[2], [90 + 279, 60, 1], atol=3)


def test_a_mirrored_crop_is_missed_when_only_the_query_as_it_is_was_asked(
    gallery: IndexWithRows,
) -> None:
    query = np.ascontiguousarray(half(scene(7))[:, ::-1])
    assert gallery.search(asked(query, mirror=False)) == []


@pytest.mark.parametrize("angle", [20, 90, 135, 250])
def test_a_turned_picture_is_found(gallery: IndexWithRows, angle: int) -> None:
    turn = cv2.getRotationMatrix2D((200, 150), angle, 0.7)
    query = cv2.warpAffine(scene(3), turn, (400, 300))
    assert gallery.search(asked(np.asarray(query, np.uint8)))[0].image_id == 3


def test_a_thumbnail_is_found(gallery: IndexWithRows) -> None:
    small = cv2.resize(scene(9), (160, 120), interpolation=cv2.INTER_AREA)
    assert gallery.search(asked(np.asarray(small, np.uint8)))[0].image_id == 9


def test_an_unrelated_picture_finds_nothing(gallery: IndexWithRows) -> None:
    for seed in range(100, 104):
        assert gallery.search(asked(scene(seed))) == []


def test_two_pictures_on_one_page_are_both_found(gallery: IndexWithRows) -> None:
    page = np.hstack([half(scene(1)), half(scene(2))])
    assert {hit.image_id for hit in gallery.search(asked(page))} == {1, 2}


def test_a_page_of_the_log_with_many_pictures_is_added_whole(gallery: IndexWithRows) -> None:
    shelf = IndexWithRows()
    others = {seed: random_features(seed, 10) for seed in range(300)}
    shelf.apply(others | {seed: gallery.rows[seed % 12] for seed in (0, 75, 150, 299)})
    assert len(shelf.index) == 300
    for seed in (0, 75, 150, 299):
        query = asked(half(scene(seed % 12)))
        assert seed in [hit.image_id for hit in shelf.search(query)]


def test_only_allowed_pictures_are_found(gallery: IndexWithRows) -> None:
    page = np.hstack([half(scene(1)), half(scene(2))])
    assert [hit.image_id for hit in gallery.search(asked(page), [0, 2, 99])] == [2]
    assert gallery.search(asked(page), []) == []


def test_the_same_query_gets_the_same_answer(gallery: IndexWithRows) -> None:
    query = asked(half(scene(4)))
    assert gallery.search(query, explain=True) == gallery.search(query, explain=True)


def test_k_and_offset_cut_the_hits(gallery: IndexWithRows) -> None:
    page = asked(np.hstack([half(scene(1)), half(scene(2))]))
    both = gallery.search(page)
    assert gallery.search(page, k=1) == both[:1]
    assert gallery.search(page, k=1, offset=1) == both[1:]


def test_hits_below_the_least_inliers_are_left_out(gallery: IndexWithRows) -> None:
    query = asked(half(scene(4)))
    inliers = gallery.search(query)[0].inliers
    assert inliers is not None
    assert gallery.search(query, min_inliers=inliers + 1) == []


def test_without_verification_rows_are_votes_that_descend(gallery: IndexWithRows) -> None:
    hits = gallery.search(asked(half(scene(4))), use_smnn_matching=False, use_ransac=False)
    assert hits[0].image_id == 4
    votes = [hit.matches or 0 for hit in hits]
    assert votes == sorted(votes, reverse=True)
    assert len(hits) > 1
    assert all(hit.inliers is None for hit in hits)
    least = votes[0]
    few = gallery.search(
        asked(half(scene(4))), use_smnn_matching=False, use_ransac=False, knn_min_matches=least
    )
    assert [hit.image_id for hit in few] == [4]


def test_each_variant_has_the_votes_that_it_would_have_alone(gallery: IndexWithRows) -> None:
    variants = asked(np.ascontiguousarray(half(scene(7))[:, ::-1]))
    votes = {"use_smnn_matching": False, "use_ransac": False}
    both = gallery.search(variants, **votes)
    alone = [
        {hit.image_id: hit.matches or 0 for hit in gallery.search([variant], **votes)}
        for variant in variants
    ]
    assert (both[0].image_id, both[0].mirrored) == (7, True)
    for hit in both:
        assert hit.matches == max(found.get(hit.image_id, 0) for found in alone)


def test_mutual_matching_alone_gives_matches_and_no_inliers(gallery: IndexWithRows) -> None:
    best = gallery.search(asked(half(scene(4))), use_ransac=False)[0]
    assert best.image_id == 4
    assert best.inliers is None
    assert best.matches is not None
    assert best.matches >= 20


def test_a_picture_without_keypoints_is_indexed_and_finds_nothing() -> None:
    shelf = IndexWithRows()
    blank = np.full((50, 60), 128, np.uint8)
    shelf.apply({1: stored(blank), 2: stored(scene(2))})
    assert len(shelf.index) == 2
    assert shelf.search(asked(blank)) == []
    assert [hit.image_id for hit in shelf.search(asked(scene(2)))] == [2]


def test_a_picture_whose_row_is_gone_is_left_out() -> None:
    shelf = IndexWithRows()
    shelf.apply({1: stored(scene(1)), 2: stored(scene(1))})
    del shelf.rows[1]
    assert [hit.image_id for hit in shelf.search(asked(scene(1)))] == [2]


def test_equal_pictures_come_by_image_id() -> None:
    shelf = IndexWithRows()
    shelf.apply({key: stored(scene(1)) for key in (8, 3, 5)})
    assert [hit.image_id for hit in shelf.search(asked(scene(1)))] == [3, 5, 8]


def test_too_many_keypoints_are_refused_and_nothing_is_applied() -> None:
    shelf = IndexWithRows()
    with pytest.raises(InvalidInput, match="image 2 has 257"):
        shelf.index.apply({1: random_features(1, 10), 2: random_features(2, 257)})
    assert len(shelf.index) == 0


def test_a_distance_threshold_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no distance"):
        LocalParams.parse({"distance_threshold": 3})


def test_numbers_and_switches_may_come_as_strings() -> None:
    params = LocalParams.parse({"k": "5", "use_ransac": "1", "use_smnn_matching": "false"})
    assert (params.k, params.use_ransac, params.use_smnn_matching) == (5, True, False)


# --- switching to a trained index -----------------------------------------------------------------


def filled(**options: Any) -> IndexWithRows:
    shelf = IndexWithRows(**options)
    shelf.apply({key: random_features(key, 50) for key in range(30)})
    return shelf


def votes(
    shelf: IndexWithRows,
    features: Features,
    allowed: Sequence[int] | None = None,
    near: float = 0.1,
) -> list[Hit]:
    off = {"use_smnn_matching": False, "use_ransac": False, "k": 1000, "k_clusters": 3}
    return shelf.search([features], allowed, matching_threshold=near, **off)


def test_a_large_collection_is_trained_and_still_finds_the_same() -> None:
    shelf = filled(**EXACT)
    shelf.index.wait_for_training()
    assert shelf.index.kind == "local-ivfpq"
    assert shelf.index.nbytes > 0
    for key in range(30):
        hits = votes(shelf, jittered(shelf.rows[key], key))
        assert hits == [Hit(key, matches=50)]
        assert votes(shelf, jittered(shelf.rows[key], key), [key]) == hits
        assert (
            votes(shelf, jittered(shelf.rows[key], key), [k for k in range(30) if k != key]) == []
        )


def test_the_default_trained_index_finds_crops() -> None:
    shelf = IndexWithRows(train_above=1000)
    shelf.apply({key: stored(scene(key)) for key in range(6)})
    shelf.index.wait_for_training()
    assert shelf.index.kind == "local-ivfpq"
    for key in range(0, 6, 2):
        assert shelf.search(asked(half(scene(key))))[0].image_id == key


def test_a_picture_pasted_on_a_busy_page_is_found() -> None:
    shelf = IndexWithRows()
    shelf.apply({key: stored(scene(key)) for key in range(8)})
    page = scene(50, 600, 800)
    page[40:340, 50:450] = scene(3) // 4 * 3 + 30
    assert [hit.image_id for hit in shelf.search(asked(page))] == [3]


def test_changes_during_the_training_are_there_after_it() -> None:
    shelf = filled(**EXACT)
    shelf.apply({3: random_features(103, 50), 4: None, 200: random_features(200, 50)})
    shelf.index.wait_for_training()
    assert shelf.index.kind == "local-ivfpq"
    assert votes(shelf, random_features(103, 50)) == [Hit(3, matches=50)]
    assert votes(shelf, random_features(200, 50)) == [Hit(200, matches=50)]
    assert votes(shelf, random_features(3, 50)) == []
    assert votes(shelf, random_features(4, 50)) == []


def test_a_grown_collection_is_trained_anew() -> None:
    shelf = filled(**EXACT, retrain_growth=2.0)
    shelf.index.wait_for_training()
    shelf.apply({key: random_features(key, 50) for key in range(30, 90)})
    shelf.index.wait_for_training()
    for key in (0, 45, 89):
        assert votes(shelf, random_features(key, 50)) == [Hit(key, matches=50)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failed_training_leaves_the_exact_index_and_is_tried_again() -> None:
    shelf = IndexWithRows(**EXACT)
    working = shelf.index.rows

    def failing(image_ids: Sequence[int]) -> Mapping[int, Features]:
        raise StoreUnavailable(f"cannot read {len(image_ids)} rows")

    shelf.index.rows = failing
    shelf.apply({key: random_features(key, 50) for key in range(30)})
    shelf.index.wait_for_training()
    assert shelf.index.kind == "local-flat"
    assert votes(shelf, random_features(7, 50)) == [Hit(7, matches=50)]
    shelf.index.rows = working
    shelf.apply({key: random_features(key, 50) for key in range(30, 40)})
    shelf.index.wait_for_training()
    assert shelf.index.kind == "local-ivfpq"
    assert votes(shelf, random_features(7, 50)) == [Hit(7, matches=50)]


@pytest.mark.parametrize("options", [{}, EXACT], ids=["flat", "trained"])
def test_slots_of_removed_pictures_are_given_up(options: dict[str, Any]) -> None:
    shelf = filled(**options)
    shelf.index.wait_for_training()
    for turn in range(100):
        shelf.apply({key: random_features(1000 * turn + key, 10) for key in range(15, 30)})
    assert len(shelf.index) == 30
    assert votes(shelf, random_features(99_020, 10)) == [Hit(20, matches=10)]
    assert votes(shelf, random_features(98_020, 10)) == []
    assert votes(shelf, random_features(5, 50)) == [Hit(5, matches=50)]
    shelf.apply(dict.fromkeys(range(30)))
    assert votes(shelf, random_features(5, 50)) == []


class TrainedIndexMachine(RuleBasedStateMachine):
    """An index that is trained along the way, against votes counted by brute force over a dict."""

    ids = st.integers(0, 12)

    def __init__(self) -> None:
        super().__init__()
        self.shelf = IndexWithRows(**EXACT)
        self.contents = 0

    @rule(image_ids=st.lists(ids, min_size=1, max_size=6, unique=True), count=st.integers(0, 120))
    def put(self, image_ids: list[int], count: int) -> None:
        changes: dict[int, Features | None] = {}
        for image_id in image_ids:
            self.contents += 1
            changes[image_id] = random_features(self.contents, count)
        self.shelf.apply(changes)

    @rule(image_ids=st.lists(ids, min_size=1, max_size=4, unique=True))
    def remove(self, image_ids: list[int]) -> None:
        self.shelf.apply(dict.fromkeys(image_ids))

    @rule()
    def wait_for_training(self) -> None:
        self.shelf.index.wait_for_training()

    @rule(image_id=ids, allowed=st.none() | st.lists(ids, unique=True).map(sorted))
    def search(self, image_id: int, allowed: list[int] | None) -> None:
        features = jittered(self.shelf.rows.get(image_id, random_features(0, 20)), 1)
        self.check(features, allowed)

    @rule(content=st.integers(1, 40))
    def search_for_what_was_replaced(self, content: int) -> None:
        self.check(random_features(content, 20), None)

    @invariant()
    def counts(self) -> None:
        assert len(self.shelf.index) == len(self.shelf.rows)

    def check(self, query: Features, allowed: list[int] | None) -> None:
        found = {hit.image_id: hit.matches for hit in votes(self.shelf, query, allowed, 0.5)}
        # The index computes in float32, so what lies at the limit may be in or out.
        least, most = (self.plain(query, allowed, limit) for limit in (0.4999, 0.5001))
        assert least.keys() <= found.keys() <= most.keys()
        assert all(least.get(at, 0) <= (count or 0) <= most[at] for at, count in found.items())

    def plain(self, query: Features, allowed: list[int] | None, limit: float) -> dict[int, int]:
        owners, rows = [], []
        for key, features in self.shelf.rows.items():
            if allowed is None or key in allowed:
                owners += [key] * len(features)
                rows.append(features["descriptor"].astype(np.float64))
        found: Counter[int] = Counter()
        if owners:
            table = np.concatenate(rows)
            table /= np.linalg.norm(table, axis=1, keepdims=True)
            for row in query["descriptor"].astype(np.float64):
                distances = ((row / np.linalg.norm(row) - table) ** 2).sum(axis=1)
                near = [place for place in np.argsort(distances)[:3] if distances[place] < limit]
                found.update({owners[place] for place in near})
        return dict(found)


TrainedIndexMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None
)
TestTrainedIndexMachine = TrainedIndexMachine.TestCase


def test_alignments_are_returned_where_they_are_asked_for(gallery: IndexWithRows) -> None:
    query = asked(half(scene(7)))
    (plain, *_) = gallery.search(query)
    (aligned, *_) = gallery.search(query, aligned=True)
    assert plain.homography is None
    assert aligned == plain._replace(homography=aligned.homography, support=aligned.support)
    assert aligned.homography is not None
    assert aligned.support is not None
    assert 0 < aligned.support.rare <= (aligned.inliers or 0)
    assert aligned.support.visible > 0.3


def test_a_small_part_is_proposed_by_a_similarity(gallery: IndexWithRows) -> None:
    query = asked(np.ascontiguousarray(scene(7)[40:110, 60:150]))
    proposed = gallery.search(query, aligned=True, min_inliers=30)
    assert 7 in {hit.image_id for hit in proposed}
    assert all((hit.inliers or 0) >= 3 and hit.homography is not None for hit in proposed)
    assert gallery.search(query, min_inliers=30) == []
