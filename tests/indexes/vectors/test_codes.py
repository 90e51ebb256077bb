"""The bounds on cosines that the codes of vectors give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from indexes.vectors.codes import CodedQuery, encode, kth_largest, scale_rows
from indexes.vectors.whitening import unit

FINITE = st.floats(-100, 100, width=32)


def units(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return unit(rows).astype(np.float32)


def bounds(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    coded = encode(rows)
    lower, upper = np.empty((2, len(rows)), np.float32)
    CodedQuery(queries).bound(coded["code"], coded["scale"], lower, upper)
    return lower, upper


def cosines(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the cosine of each row to its nearest query: (n,) float64."""
    several: npt.NDArray[np.float64] = rows.astype(np.float64) @ queries.astype(np.float64).T
    return several.max(axis=1)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), width=st.integers(1, 80))
def test_no_cosine_lies_outside_its_bounds(data: st.DataObject, width: int) -> None:
    rows = units(data.draw(drawn.arrays(np.float32, (5, width), elements=FINITE)))
    queries = units(data.draw(drawn.arrays(np.float32, (2, width), elements=FINITE)))
    lower, upper = bounds(rows, queries)
    exact = cosines(rows, queries)
    assert (lower <= exact).all()
    assert (exact <= upper).all()


@pytest.mark.parametrize("width", [512, 768, 2048, 5000])
def test_bounds_of_long_vectors_do_not_overflow_and_stay_tight(width: int) -> None:
    """Vectors whose values are all of equal magnitude give the largest sums."""
    alike = np.full((2, width), width**-0.5, np.float32) * [[1], [-1]]
    others = units(np.random.default_rng(0).normal(size=(50, width)))
    rows = np.concatenate([alike.astype(np.float32), others])
    for query in (rows[:1], rows[1:2], rows[7:8]):
        lower, upper = bounds(rows, query)
        exact = cosines(rows, query)
        assert (lower <= exact).all()
        assert (exact <= upper).all()
        assert (upper - lower).max() < 0.03


def test_a_vector_of_zeros_has_cosine_zero_with_all() -> None:
    rows = np.stack([np.zeros(8), np.eye(8)[0]]).astype(np.float32)
    for query in (rows[:1], rows[1:]):
        lower, upper = bounds(rows, query)
        assert lower[0] == pytest.approx(0, abs=1e-3)
        assert upper[0] == pytest.approx(0, abs=1e-3)


def test_queries_that_lie_column_by_column_have_the_same_bounds() -> None:
    rows = units(np.random.default_rng(3).normal(size=(40, 70)))
    queries = rows[:3]
    for one, other in zip(
        bounds(rows, queries), bounds(rows, np.asfortranarray(queries)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=200, deadline=None)
@given(
    values=drawn.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([-1, 0, 0.5, 2])),
    data=st.data(),
)
def test_the_kth_largest_is_that_of_the_sorted(
    values: npt.NDArray[np.float32], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(values, np.empty(k, np.float32)) == np.sort(values)[-k]


@settings(max_examples=100, deadline=None)
@given(drawn.arrays(np.float32, st.tuples(st.just(5), st.integers(1, 40)), elements=FINITE))
def test_scaled_rows_are_of_unit_length_and_those_of_zeros_stay(vectors: npt.NDArray[Any]) -> None:
    rows, lengths = np.empty_like(vectors), np.empty(len(vectors))
    scale_rows(vectors, rows, lengths)
    np.testing.assert_allclose(lengths, np.linalg.norm(vectors.astype(np.float64), axis=1))
    np.testing.assert_allclose(rows, unit(vectors), rtol=1e-6, atol=1e-30)
    assert not rows[lengths == 0].any()


def test_a_vector_that_is_not_finite_has_no_finite_length() -> None:
    vectors = np.ones((3, 9), np.float32)
    vectors[0, 3], vectors[1, 8] = np.inf, np.nan
    lengths = np.empty(3)
    scale_rows(vectors, np.empty_like(vectors), lengths)
    assert np.isfinite(lengths).tolist() == [False, False, True]


@pytest.mark.parametrize("width", [1, 7, 8, 19, 64])
def test_the_largest_value_of_either_sign_is_coded_as_127(width: int) -> None:
    rows = units(np.random.default_rng(width).normal(size=(40, width)))
    rows[0] = 0
    coded = encode(rows)
    assert not coded["code"][0].any()
    assert (np.abs(coded["code"][1:].astype(np.int64)).max(axis=1) == 127).all()
    scale = np.abs(rows[1:]).max(axis=1, keepdims=True) / 127
    np.testing.assert_array_equal(coded["code"][1:], np.rint(rows[1:] / scale))
