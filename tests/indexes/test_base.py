from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from indexes.arrays.frozen import Frozen, Saved
from indexes.base import DistanceParams, Hit, Index, Query, SearchParams
from models.errors import InvalidInput
from models.types import Features, Options


class Numbers(Index):
    """An index that finds the ids 0 to 9 at distances 0 to 9 and records its search parameters."""

    def __init__(self) -> None:
        super().__init__(Options(), lambda _: {})
        self.asked: list[SearchParams] = []

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        raise AssertionError(changes)

    def freeze(self) -> Frozen:
        raise AssertionError

    def restore(self, saved: Saved) -> None:
        raise AssertionError(saved)

    def __len__(self) -> int:
        return 10

    @property
    def nbytes(self) -> int:
        return 0

    @property
    def kind(self) -> str:
        return "numbers"

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:  # noqa: ARG002
        self.asked.append(params)
        return [Hit(number, distance=number) for number in range(10)][: params.k]


QUERY = Query([np.zeros(1)])


def test_parameters_without_k_and_threshold_are_refused() -> None:
    with pytest.raises(InvalidInput, match="give k or distance_threshold"):
        DistanceParams.parse({})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 10_001}, "k"),
        ({"k": "many"}, "k"),
        ({"distance_threshold": 0}, "distance_threshold"),
        ({"distance_threshold": "inf"}, "distance_threshold"),
        ({"k": 5, "offset": -1}, "offset"),
        ({"k": 5, "treshold": 3}, "treshold"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name(given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        DistanceParams.parse(given)
    assert caught.value.field == field


def test_an_offset_leaves_out_the_best_and_still_returns_k() -> None:
    index = Numbers()
    hits = index.search(QUERY, DistanceParams.parse({"k": 3, "offset": 4}))
    assert [hit.image_id for hit in hits] == [4, 5, 6]
    assert index.asked[0].k == 7


def test_an_offset_pages_a_range_search_too() -> None:
    hits = Numbers().search(QUERY, DistanceParams.parse({"distance_threshold": 9, "offset": 8}))
    assert [hit.image_id for hit in hits] == [8, 9]


def test_an_offset_beyond_the_last_hit_finds_nothing() -> None:
    assert Numbers().search(QUERY, DistanceParams.parse({"k": 3, "offset": 10})) == []


def test_no_allowed_id_finds_nothing_without_a_search() -> None:
    index = Numbers()
    nobody = Query(QUERY.variants, np.empty(0, np.int64))
    assert index.search(nobody, DistanceParams.parse({"k": 3})) == []
    assert index.asked == []


def test_a_row_shows_only_what_is_known() -> None:
    assert Hit(7, distance=0).row() == {"image_id": 7, "distance": 0}
    assert Hit(7, inliers=9, mirrored=False).row() == {
        "image_id": 7,
        "inliers": 9,
        "mirrored": False,
    }
