"""The intrinsics that call LLVM by name compute what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba import TypingError, njit

from indexes.arrays.intrinsics import LANES, dot, popcount, prefetch


@njit
def counted(words, out):  # type: ignore[no-untyped-def]
    for at in range(len(words)):
        out[at] = popcount(words[at])


@njit
def summed(rows):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for row in range(rows.shape[0]):
        prefetch(rows, row, 0)
        for column in range(rows.shape[1]):
            total += rows[row, column]
    return total


@njit
def multiplied(codes, queries, query, stop, out):  # type: ignore[no-untyped-def]
    for row in range(codes.shape[0]):
        out[row] = dot(codes, row, queries, query, stop)


def test_set_bits_are_counted_in_all_64() -> None:
    words = np.append(
        np.random.default_rng(0).integers(0, 2**64, 100, np.uint64),
        np.array([0, 1, 2**63, 2**64 - 1], np.uint64),
    )
    out = np.empty(len(words), np.int64)
    counted(words, out)
    assert out.tolist() == np.bitwise_count(words).tolist()


def test_a_prefetch_is_in_the_machine_code() -> None:
    summed(np.ones((1, 1), np.int64))
    (code,) = summed.inspect_llvm().values()
    assert "call void @llvm.prefetch" in code


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(600).reshape(100, 6),
        np.arange(600).reshape(100, 6)[::2],
        np.asfortranarray(np.arange(600).reshape(100, 6)),
        np.arange(3, dtype=np.uint8).reshape(3, 1),
        np.empty((0, 4), np.float32),
    ],
)
def test_a_prefetch_changes_nothing_not_even_at_the_end(rows: npt.NDArray[Any]) -> None:
    assert summed(rows) == rows.sum()


@pytest.mark.parametrize("width", [1, LANES - 1, LANES, 3 * LANES + 5, 768])
def test_a_dot_product_is_that_of_the_columns_before_its_stop(width: int) -> None:
    rng = np.random.default_rng(width)
    codes = rng.integers(-128, 128, (9, width), np.int8)
    queries = rng.integers(-(2**13), 2**13, (3, width), np.int16)
    for stop in {0, width // 2 // LANES * LANES, width // LANES * LANES}:
        for query in range(3):
            out = np.empty(9, np.int32)
            multiplied(codes, queries, query, stop, out)
            expected = codes[:, :stop].astype(np.int64) @ queries[query, :stop].astype(np.int64)
            assert out.tolist() == expected.tolist()


def test_a_dot_product_of_the_largest_values_keeps_every_bit() -> None:
    codes = np.full((1, 64), -127, np.int8)
    queries = np.full((1, 64), -(2**15), np.int16)
    out = np.empty(1, np.int32)
    multiplied(codes, queries, 0, 64, out)
    assert out.tolist() == [64 * 127 * 2**15]


def test_a_dot_product_of_rows_that_lie_otherwise_is_refused() -> None:
    codes, queries = np.ones((64, 64), np.int8), np.ones((1, 64), np.int16)
    with pytest.raises(TypingError):
        multiplied(codes.T, queries, 0, 64, np.empty(64, np.int32))
    with pytest.raises(TypingError):
        multiplied(codes, queries.astype(np.int32), 0, 64, np.empty(64, np.int32))
