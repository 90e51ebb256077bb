from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.arrays.kernels import count_nearest
from indexes.base import Hit, Query
from indexes.histogram.codes import MERGE, STEP, TOTAL, UNIT, EncodedQuery, encode, exact_l1
from indexes.histogram.index import READ_BATCH, HistogramIndex
from indexes.histogram.kernels import coarse_l1, cubic_l1
from models.errors import InvalidInput
from models.types import Options

Histogram = npt.NDArray[np.float32]


class Collection:
    """A HistogramIndex over a dict that stands for the store."""

    def __init__(self) -> None:
        self.stored: dict[int, Histogram] = {}
        self.reads: list[int] = []
        self.index = HistogramIndex(Options(), self._rows)

    def apply(self, changes: Mapping[int, Histogram | None]) -> None:
        for image_id, row in changes.items():
            if row is None:
                self.stored.pop(image_id, None)
            else:
                self.stored[image_id] = row
        self.index.apply(changes)

    def search(
        self,
        variants: Sequence[Histogram],
        allowed: Sequence[int] | None = None,
        **given: float,
    ) -> list[Hit]:
        ids = None if allowed is None else np.array(allowed, np.int64)
        return self.index.search(Query(variants, ids), self.index.Params.parse(given))

    def brute_force(
        self,
        variants: Sequence[Histogram],
        allowed: Sequence[int] | None = None,
        k: int | None = None,
        distance_threshold: float = np.inf,
    ) -> list[Hit]:
        hits = []
        for image_id, row in self.stored.items():
            gaps = [l1(row, variant) for variant in variants]
            if min(gaps) < distance_threshold and (allowed is None or image_id in allowed):
                hits.append(Hit(image_id, distance=min(gaps)))
        return sorted(hits, key=lambda hit: (hit.distance, hit.image_id))[:k]

    def _rows(self, image_ids: Sequence[int]) -> dict[int, Histogram]:
        self.reads += image_ids
        return {key: self.stored[key] for key in image_ids if key in self.stored}


def l1(a: Histogram, b: Histogram) -> float:
    return float(np.float32(np.abs(a.astype(np.float64) - b.astype(np.float64)).sum()))


def scaled(counts: npt.ArrayLike) -> Histogram:
    counts = np.asarray(counts, np.float64)
    return (counts / counts.sum(axis=-1, keepdims=True) * 1e7).astype(np.float32)


def solid(colour: int) -> Histogram:
    return scaled(np.eye(512)[colour])


def photos(count: int, seed: int = 0) -> Histogram:
    """Return histograms of a few colour blobs each, in groups of similar pictures; (count, 512)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.unravel_index(np.arange(512), (8, 8, 8)), axis=1)
    centres = rng.uniform(0, 7, (count // 5 + 1, 4, 3))[rng.integers(0, count // 5 + 1, count)]
    centres = centres + rng.normal(0, 0.15, centres.shape)
    gaps = ((grid[None, None] - centres[:, :, None]) ** 2).sum(axis=3)
    blobs = np.exp(-gaps / rng.uniform(0.3, 3, (count, 4, 1)))
    mixed = (blobs * rng.gamma(1, 1, (count, 4, 1))).sum(axis=1)
    return scaled(np.floor(mixed / mixed.sum(axis=1, keepdims=True) * 2e4))


def noise(rng: np.random.Generator) -> Histogram:
    """Return an adversarial histogram: spiky, flat, sparse, on the codes' steps, or random."""
    kind = rng.integers(0, 5)
    if kind == 0:
        return solid(int(rng.integers(0, 512)))
    if kind == 1:
        return scaled(np.ones(512))
    if kind == 2:
        return scaled(rng.random(512) * (rng.random(512) < 0.02) + np.eye(512)[0] * 1e-6)
    if kind == 3:
        return scaled(np.bincount(rng.integers(0, 512, 16), minlength=512))
    return scaled(rng.gamma(rng.choice([0.05, 1, 50]), 1, 512) + 1e-9)


def test_the_nearest_come_first_with_their_exact_distances() -> None:
    some = Collection()
    rows = photos(400)
    some.apply(dict(enumerate(rows)))
    for row in (rows[0], rows[399], photos(1, seed=9)[0]):
        assert some.search([row], k=20) == some.brute_force([row], k=20)


def test_only_what_may_be_near_is_read_from_the_store() -> None:
    some = Collection()
    rows = photos(3000)
    some.apply(dict(enumerate(rows)))
    some.search([rows[0]], k=5)
    assert len(some.reads) < 60


def test_the_threshold_itself_is_not_found() -> None:
    some = Collection()
    some.apply({1: solid(3), 2: solid(500)})
    assert some.search([solid(3)], distance_threshold=2e7) == [Hit(1, distance=0.0)]
    assert len(some.search([solid(3)], distance_threshold=2e7 + 2)) == 2


def test_a_range_search_finds_all_and_no_more() -> None:
    some = Collection()
    rows = photos(600)
    some.apply(dict(enumerate(rows)))
    gaps = np.sort(exact_l1(rows, rows[1]))
    for threshold in (float(gaps[3]), float(gaps[200]), 3e7):
        hits = some.search([rows[1]], distance_threshold=threshold)
        assert hits == some.brute_force([rows[1]], distance_threshold=threshold)


def test_k_and_a_threshold_together_hold_both() -> None:
    some = Collection()
    rows = photos(200)
    some.apply(dict(enumerate(rows)))
    gaps = np.sort(exact_l1(rows, rows[1]))
    near = float(gaps[10])
    assert len(some.search([rows[1]], k=50, distance_threshold=near)) == 10
    assert len(some.search([rows[1]], k=4, distance_threshold=near)) == 4


def test_a_picture_counts_once_with_its_nearest_variant() -> None:
    some = Collection()
    rows = photos(100)
    some.apply(dict(enumerate(rows)))
    hits = some.search([rows[0], rows[50]], k=30)
    assert hits == some.brute_force([rows[0], rows[50]], k=30)
    assert [hit.image_id for hit in hits if hit.distance == 0] == [0, 50]


def test_more_same_pictures_than_one_read_are_ordered_by_id() -> None:
    some = Collection()
    ids = np.random.default_rng(1).permutation(READ_BATCH + 500).tolist()
    some.apply(dict.fromkeys(ids, photos(1)[0]))
    hits = some.search([photos(1)[0]], k=7)
    assert hits == [Hit(number, distance=0.0) for number in range(7)]


def test_a_removed_id_can_come_back_as_another_picture() -> None:
    some = Collection()
    rows = photos(60)
    some.apply(dict(enumerate(rows)))
    some.apply({5: None, 59: None, 6: rows[0]})
    some.apply({5: solid(511)})
    assert len(some.index) == 59
    for row in (solid(511), *rows[:8]):
        assert some.search([row], k=59) == some.brute_force([row], k=59)


@pytest.mark.parametrize("allowed", [[3, 7, 5000], list(range(0, 400, 2))])
def test_only_allowed_ids_are_found(allowed: list[int]) -> None:
    some = Collection()
    rows = photos(400)
    some.apply(dict(enumerate(rows)))
    assert some.search([rows[0]], allowed, k=30) == some.brute_force([rows[0]], allowed, k=30)


def test_a_row_that_the_store_has_removed_makes_room_for_the_next() -> None:
    some = Collection()
    rows = photos(100)
    some.apply(dict(enumerate(rows)))
    # The rows are removed from the store, but the index has not been told yet.
    for hit in some.search([rows[0]], k=5)[:3]:
        del some.stored[hit.image_id]
    assert some.search([rows[0]], k=5) == some.brute_force([rows[0]], k=5)
    assert len(some.index) == 100  # A search changes nothing.


def test_an_index_whose_rows_are_all_gone_finds_nothing() -> None:
    some = Collection()
    some.apply({1: solid(1), 2: solid(2)})
    some.stored.clear()
    assert some.search([solid(1)], k=5) == []
    assert len(some.index) == 2  # A search changes nothing.


@pytest.mark.parametrize(
    "bad",
    [
        solid(0)[:511],
        solid(0).astype(np.float64),
        np.full(512, np.nan, np.float32),
        np.full(512, -1, np.float32),
        np.full(512, np.inf, np.float32),
    ],
)
def test_what_is_no_histogram_is_refused_and_nothing_applied(bad: Histogram) -> None:
    some = Collection()
    with pytest.raises(InvalidInput, match="a histogram"):
        some.index.apply({1: solid(0), 2: bad})
    assert len(some.index) == 0
    some.apply({1: solid(0)})
    with pytest.raises(InvalidInput, match="a histogram"):
        some.search([bad], k=1)


def test_a_million_rows_would_take_less_than_650_megabytes() -> None:
    some = Collection()
    one = photos(1)[0]
    # A power of two, because the id table grows by doubling.
    count = 1 << 15
    some.index.apply(dict.fromkeys(range(count), one))
    assert some.index.nbytes / count * 1e6 < 650e6


def test_no_query_waits_for_a_compiler() -> None:
    some = Collection()
    kernels = [coarse_l1, cubic_l1, count_nearest]
    compiled = [len(kernel.signatures) for kernel in kernels]
    rows = photos(40)
    rows.setflags(write=False)
    some.apply(dict(enumerate(rows)))
    some.search([rows[0]], k=3)
    assert [len(kernel.signatures) for kernel in kernels] == compiled == [1, 1, 1]


def test_every_bin_is_merged_into_exactly_one() -> None:
    assert MERGE.shape == (512, 63)
    assert (MERGE.sum(axis=1) == 1).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-7, 1e-3]))
def test_no_bound_is_ever_on_the_wrong_side(seed: int, blur: float) -> None:
    rng = np.random.default_rng(seed)
    query = noise(rng)
    near = [scaled(query + blur * 1e7 * rng.random(512)) for _ in range(4)]
    rows = np.stack([*near, *(noise(rng) for _ in range(12)), query])
    truth = np.abs(rows.astype(np.float64) - query.astype(np.float64)).sum(axis=1)
    codes, encoded = encode(rows), EncodedQuery(query)
    bounds = encoded.bounds(codes.fine, codes.error)
    assert (bounds.lower <= truth).all()
    assert (truth <= bounds.upper).all()
    coarse = np.empty(len(rows), np.uint16)
    coarse_l1(codes.coarse, encoded.coarse, coarse)
    assert all(
        distance <= encoded.coarse_limit(exact)
        for distance, exact in zip(coarse.tolist(), truth.tolist(), strict=True)
    )


def test_rows_just_across_the_edges_of_the_coarse_steps_are_not_lost() -> None:
    """Each merged bin differs by 0.02 steps, but its code differs by a whole step."""
    first_of_each = [int(column.argmax()) for column in MERGE.T if column.any()]
    below, above = np.zeros((2, 512), np.float32)
    below[first_of_each] = 3.49 * STEP
    above[first_of_each] = 3.51 * STEP
    for query, row in ((below, above), (above, below)):
        some = Collection()
        some.apply({1: row, **{key: solid(key) for key in range(2, 300)}})
        near = l1(query, row) * 1.001
        assert [hit.image_id for hit in some.search([query], k=1)] == [1]
        assert [hit.image_id for hit in some.search([query], distance_threshold=near)] == [1]


def test_fine_codes_are_the_nearest_cube_roots_or_just_beside_them() -> None:
    rows = photos(200)
    rows[0, :7] = [0, 1e-20, UNIT / 8, UNIT, 254.49**3 * UNIT, 254.51**3 * UNIT, TOTAL]
    exact = np.cbrt(rows.astype(np.float64) / UNIT)
    off = np.abs(encode(rows).fine - exact)
    assert off.max() < 0.53
    assert (off > 0.5).mean() < 0.01


def test_the_errors_of_coarse_codes_are_rounded_up() -> None:
    rows = photos(200)
    stored = encode(rows).coarse
    merged = np.clip(rows.astype(np.float64) @ MERGE / STEP, 0, 255)
    assert (stored[:, -1] >= np.abs(merged - stored[:, :-1]).sum(axis=1)).all()


steps = st.lists(
    st.dictionaries(st.integers(0, 60), st.none() | st.integers(0, 39), min_size=1, max_size=40),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(
    steps,
    st.lists(st.integers(0, 39), min_size=1, max_size=3),
    st.none() | st.lists(st.integers(0, 65), unique=True).map(sorted),
    st.none() | st.integers(1, 70),
    st.none() | st.sampled_from([1.0, 3e5, 5e6, 1.2e7, 2e7, 3e7]),
    st.integers(0, 1000),
)
def test_any_changes_leave_it_equal_to_brute_force(
    changes: list[dict[int, int | None]],
    asked: list[int],
    allowed: list[int] | None,
    k: int | None,
    threshold: float | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    pool = [*photos(20, seed), *(noise(rng) for _ in range(20))]
    some = Collection()
    for step in changes:
        some.apply({key: None if which is None else pool[which] for key, which in step.items()})
    if k is None and threshold is None:
        k = 5
    limits = {"k": k, "distance_threshold": threshold}
    given = {name: value for name, value in limits.items() if value is not None}
    variants = [pool[which] for which in asked]
    assert len(some.index) == len(some.stored)
    expected = some.brute_force(variants, allowed, **given)  # type: ignore[arg-type]
    assert some.search(variants, allowed, **given) == expected
