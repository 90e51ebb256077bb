from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.arrays.rows import SEGMENT
from indexes.base import Hit, Query
from indexes.vectors.index import VectorIndex
from models.errors import InvalidInput

Vector = npt.NDArray[np.float32]


def make() -> VectorIndex:
    return VectorIndex(VectorIndex.Config(), lambda _: {})


def random_units(count: int, width: int = 24, seed: int = 0) -> Vector:
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def search(
    index: VectorIndex,
    variants: Sequence[Vector],
    allowed: Sequence[int] | None = None,
    **given: float,
) -> list[Hit]:
    ids = None if allowed is None else np.array(allowed, np.int64)
    return index.search(Query(variants, ids), index.Params.parse(given))


def cosine_distance(vector: Vector, query: Vector) -> float:
    one, other = vector.astype(np.float64), query.astype(np.float64)
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    cosine = (one * other).sum() / lengths if lengths > 0 else 0.0
    return max(0.0, round(1 - cosine, 7))


def brute_force(
    vectors: dict[int, Vector],
    variants: Sequence[Vector],
    allowed: Sequence[int] | None = None,
    k: int | None = None,
    distance_threshold: float = np.inf,
) -> list[tuple[int, float]]:
    hits = []
    for image_id, vector in vectors.items():
        gap = min(cosine_distance(vector, variant) for variant in variants)
        if gap < distance_threshold and (allowed is None or image_id in allowed):
            hits.append((image_id, gap))
    return sorted(hits, key=lambda hit: (hit[1], hit[0]))[:k]


def same(found: Sequence[Hit], expected: Sequence[tuple[int, float]]) -> bool:
    """Return whether ids and order are equal, except where distances differ by rounding only."""
    gaps = [float(hit.distance or 0) for hit in found]
    if len(found) != len(expected) or gaps != sorted(gaps):
        return False
    wanted = dict(expected)
    return all(abs(gap - want) < 2e-7 for gap, (_, want) in zip(gaps, expected, strict=True)) and (
        all(abs(wanted.get(hit.image_id, gaps[-1]) - (hit.distance or 0)) < 2e-7 for hit in found)
    )


def test_the_distance_is_one_minus_the_cosine() -> None:
    index = make()
    east, north = np.eye(2, dtype=np.float32)
    index.apply({1: east, 2: north, 3: -east, 4: (east + north) / np.float32(2**0.5)})
    assert search(index, [east], k=9) == [
        Hit(1, distance=0.0),
        Hit(4, distance=pytest.approx(1 - 0.5**0.5, abs=1e-6)),
        Hit(2, distance=1.0),
        Hit(3, distance=2.0),
    ]


def test_pictures_with_equal_features_are_ordered_by_id_wherever_they_lie() -> None:
    index = make()
    ids = np.random.default_rng(1).permutation(3000).tolist()
    index.apply(dict.fromkeys(ids, random_units(1, 512)[0]))
    hits = search(index, [random_units(1, 512, seed=2)[0]], k=40)
    assert [hit.image_id for hit in hits] == list(range(40))
    assert len({hit.distance for hit in hits}) == 1


def test_the_threshold_itself_is_not_found() -> None:
    index = make()
    east, north = np.eye(2, dtype=np.float32)
    index.apply({1: east, 2: north})
    assert [hit.image_id for hit in search(index, [east], distance_threshold=1)] == [1]
    assert [hit.image_id for hit in search(index, [east], distance_threshold=1.001)] == [1, 2]


def test_only_allowed_ids_are_found_few_or_many() -> None:
    index = make()
    vectors = dict(enumerate(random_units(400)))
    index.apply(vectors)
    for allowed in ([5, 17, 9999], list(range(0, 400, 2)), [9999]):
        found = search(index, [vectors[17]], allowed, k=300)
        assert same(found, brute_force(vectors, [vectors[17]], allowed, k=300))


def test_pages_follow_each_other() -> None:
    index = make()
    index.apply(dict(enumerate(random_units(50))))
    query = random_units(1, seed=7)
    whole = search(index, query, k=50)
    assert search(index, query, k=20, offset=20) == whole[20:40]


def test_the_nearest_of_several_variants_counts() -> None:
    index = make()
    vectors = dict(enumerate(random_units(60)))
    index.apply(vectors)
    hits = search(index, [vectors[3], vectors[8]], k=60)
    assert same(hits, brute_force(vectors, [vectors[3], vectors[8]], k=60))
    assert {hit.image_id: hit.mirrored for hit in hits[:2]} == {3: False, 8: True}


def test_an_id_that_was_removed_comes_back_as_the_other_picture() -> None:
    index = make()
    vectors = random_units(40)
    index.apply(dict(enumerate(vectors[:30])))
    index.apply({4: None, 29: None, 5: vectors[31]})
    index.apply({4: vectors[32]})
    held = dict(enumerate(vectors[:29])) | {5: vectors[31], 4: vectors[32]}
    assert len(index) == 29
    for query in vectors:
        assert same(search(index, [query], k=40), brute_force(held, [query], k=40))


def test_rows_of_more_than_one_segment_are_all_searched() -> None:
    index = make()
    vectors = random_units(SEGMENT + 10, 4)
    index.apply(dict(enumerate(vectors)))
    for at in (0, SEGMENT - 1, SEGMENT, SEGMENT + 9):
        assert search(index, [vectors[at]], k=1)[0].image_id == at


def test_longer_vectors_count_by_their_direction_and_zeros_are_far_from_all() -> None:
    index = make()
    east, north = np.eye(2, dtype=np.float32)
    index.apply({1: 40 * east, 2: 0 * east, 3: -north})
    found = search(index, [0.1 * east], k=3)
    assert [(hit.image_id, hit.distance) for hit in found] == [(1, 0), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    "wrong",
    [np.ones(23, np.float32), np.ones(24), np.full(24, np.nan, np.float32), np.ones((2, 12), "f4")],
)
def test_what_is_no_vector_of_this_index_is_refused_whole(wrong: Vector) -> None:
    index = make()
    good = random_units(2)
    index.apply({1: good[0]})
    with pytest.raises(InvalidInput, match="vector"):
        index.apply({2: good[1], 3: wrong})
    with pytest.raises(InvalidInput, match="vector"):
        search(index, [wrong], k=1)
    assert len(index) == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"aqe_n": 3}, "aqe_alpha"),
        ({"aqe_alpha": 3.0}, "aqe_n"),
        ({"aqe_n": 0, "aqe_alpha": 1}, "aqe_n"),
        ({"aqe_n": 3, "aqe_alpha": -1}, "aqe_alpha"),
        ({"aqe_n": 3, "aqe_alpha": float("nan")}, "aqe_alpha"),
    ],
)
def test_expansion_needs_both_its_parameters(given: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        make().Params.parse({"k": 1} | given)
    assert refused.value.field == field


@pytest.mark.parametrize(("count", "alpha"), [(1, 3.0), (10, 3.0), (10, 0.0), (500, 0.5)])
def test_expanded_queries_are_those_of_the_paper(count: int, alpha: float) -> None:
    """Compared with plain NumPy: Radenović, Tolias & Chum 2018, section 3.4."""
    index = make()
    vectors = random_units(300, 16)
    index.apply(dict(enumerate(vectors)))
    query = random_units(1, 16, seed=3)[0]
    similarities = vectors @ query
    nearest = np.argsort(-similarities)[:count]
    weights = np.where(similarities[nearest] > 0, np.abs(similarities[nearest]) ** alpha, 0)
    expanded = query + weights @ vectors[nearest]
    expanded /= np.linalg.norm(expanded)
    again = vectors @ expanded
    hits = search(index, [query], k=50, aqe_n=count, aqe_alpha=alpha)
    assert [hit.image_id for hit in hits] == np.argsort(-again)[:50].tolist()
    gaps = np.array([hit.distance for hit in hits])
    np.testing.assert_allclose(gaps, 1 - np.sort(again)[::-1][:50], atol=2e-6)


def test_expansion_stays_within_the_allowed_ids() -> None:
    index = make()
    vectors = random_units(100, 16)
    index.apply(dict(enumerate(vectors)))
    allowed = list(range(50))
    alone = make()
    alone.apply(dict(enumerate(vectors[:50])))
    given = {"k": 10, "aqe_n": 5, "aqe_alpha": 3}
    assert search(index, [vectors[80]], allowed, **given) == search(alone, [vectors[80]], **given)


def test_confidence_uses_score_normalisation_if_configured() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=32)
    crowd = (centre + 0.5 * rng.normal(size=(300, 32))).astype(np.float32)
    vectors = dict(enumerate(np.concatenate([crowd, random_units(300, 32, seed=1)])))
    sure = {}
    for beta in (None, 1.0):
        index = VectorIndex(VectorIndex.Config(score_norm=beta), lambda _: {})
        index.apply(vectors)
        index.background = index.background_of(np.stack(list(vectors.values())))
        for name, at in (("crowd", 0), ("lonely", 300)):
            copy = vectors[at] / np.linalg.norm(vectors[at]) + 0.04 * rng.normal(size=32)
            query = Query([copy.astype(np.float32)])
            hits = index.answer(query, index.Params.parse({"k": 2}))
            assert hits[0].image_id == at
            sure[name, beta] = [hit.confidence or 0.0 for hit in hits]
    assert sure["lonely", 1.0][0] > 0.95
    assert sure["lonely", 1.0][0] >= sure["lonely", None][0]
    assert sure["crowd", 1.0][1] < 0.5


def test_word_queries_are_confident_only_of_images_that_stand_out() -> None:
    """Words lie far from all images, so distances to words are compared only with each other."""
    rng = np.random.default_rng(0)
    words, other = random_units(2, 64, seed=9)
    vectors = random_units(1000, 64)
    vectors[:20] += 0.7 * words
    rows = dict(enumerate(vectors.astype(np.float32)))
    index = make()
    index.apply(rows)
    chosen = rng.permutation(1000)[:400]
    index.background = index.background_of(np.stack([rows[at] for at in chosen]))
    params = index.Params.parse({"k": 200})
    hits = index.answer(Query([words], is_one_picture=False), params)
    above_confidence = [hit.image_id for hit in hits if (hit.confidence or 0) >= 0.5]
    assert 17 <= len(above_confidence) <= 22
    assert len(set(above_confidence) - set(range(20))) <= 2
    nothing = index.answer(Query([other], is_one_picture=False), params)
    assert [hit for hit in nothing if (hit.confidence or 0) >= 0.5] == []
    page = index.Params.parse({"k": 50, "offset": 150})
    assert index.answer(Query([words], is_one_picture=False), page) == hits[150:]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_gives_what_brute_force_gives(data: st.DataObject) -> None:
    pool = random_units(12, 5, seed=data.draw(st.integers(0, 3)))
    ids = st.integers(0, 15)
    change = st.one_of(st.none(), st.integers(0, len(pool) - 1))
    index, held = make(), dict[int, Vector]()
    for changes in data.draw(st.lists(st.dictionaries(ids, change, max_size=6), max_size=8)):
        index.apply({key: None if at is None else pool[at] for key, at in changes.items()})
        for key, at in changes.items():
            held.pop(key, None)
            if at is not None:
                held[key] = pool[at]
        assert len(index) == len(held)
    variants = [pool[at] for at in data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=3))]
    allowed = data.draw(st.none() | st.lists(ids, unique=True).map(sorted))
    k = data.draw(st.integers(1, 20))
    found = search(index, variants, allowed, k=k)
    assert same(found, brute_force(held, variants, allowed, k=k))
