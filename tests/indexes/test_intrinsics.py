"""What LLVM is asked for by name does what it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from indexes.intrinsics import popcount, prefetch


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
