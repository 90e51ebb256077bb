"""Unit vectors as bytes: a scan of a quarter of the memory that bounds every cosine.

Scalar quantisation with a step per row. By the Cauchy-Schwarz inequality, the cosine differs from
that of the codes by at most the length of the residual of the row (and of the query). A row that
the bounds exclude is no hit, so filter and refine is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from indexes.arrays.intrinsics import LANES, dot, prefetch
from indexes.arrays.rows import Column

LARGEST = 127
QUERY_LARGEST = 8191
"""Bits of a query's codes: 16, or fewer where the products of a long row would overflow 32 bits."""
SLACK = 1e-5
"""Upper bound of what rounding to float32 changes."""


def code_columns(width: int) -> dict[str, Column]:
    """Arrays that `encode` makes of vectors (n, width)."""
    return {"code": Column(np.int8, width), "scale": Column(np.float32, 2)}


def encode(vectors: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Unit rows (n, d) as `code` int8 (n, d) and `scale` float32 (n, 2).

    A row is about scale[0] · code, and its residual has the length scale[1].
    """
    code = np.empty(vectors.shape, np.int8)
    scale = np.empty((len(vectors), 2), np.float32)
    code_rows(vectors, code, scale)
    return {"code": code, "scale": scale}


class CodedQuery:
    """Unit query vectors (v, d); for each row the best variant counts."""

    def __init__(self, variants: npt.NDArray[np.float32]) -> None:
        width = variants.shape[1]
        largest = min(QUERY_LARGEST, (2**31 - 1) // (LARGEST * width))
        step = np.abs(variants).max(axis=1) / np.float32(largest)
        step[step == 0] = 1
        codes = np.rint(variants / step[:, None])
        left = np.linalg.norm(variants - codes * step[:, None], axis=1)
        self._codes = codes.astype(np.int16, order="C")
        self._scales = np.column_stack([step, left]).astype(np.float32)

    def bound(
        self,
        code: npt.NDArray[np.int8],
        scale: npt.NDArray[np.float32],
        lower: npt.NDArray[np.float32],
        upper: npt.NDArray[np.float32],
    ) -> None:
        """Write bounds of each encoded row's cosine into `lower` and `upper` (n,)."""
        bound_cosines(code, scale, self._codes, self._scales, lower, upper)


@njit(nogil=True, cache=True)
def scale_rows(vectors, rows, lengths):  # type: ignore[no-untyped-def]
    """Write float32 `vectors` (n, d) at unit length into `rows`. Returns their lengths (n,).

    Sums are in float64 in a fixed order, so that equal vectors give equal rows. A vector of zeros
    stays zero.
    """
    width = vectors.shape[1]
    whole = width - width % 8
    for row in range(vectors.shape[0]):
        sums = np.zeros(8)
        # LLVM vectorises eight separate sums, but not an index of `column & 7`.
        for start in range(0, whole, 8):
            for lane in range(8):
                value = np.float64(vectors[row, start + lane])
                sums[lane] += value * value
        for column in range(whole, width):
            value = np.float64(vectors[row, column])
            sums[column - whole] += value * value
        total = 0.0
        for part in sums:
            total += part
        length = np.sqrt(total)
        lengths[row] = length
        by = 1 / length if length > 0 else 1.0
        for column in range(width):
            rows[row, column] = np.float32(np.float64(vectors[row, column]) * by)


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def code_rows(vectors, code, scale):  # type: ignore[no-untyped-def]
    """Write what `encode` returns into `code` and `scale`."""
    # Floats of one sign are ordered like their bits, and LLVM vectorises a maximum of
    # integers.
    bits = vectors.view(np.int32)
    largest = np.empty(1, np.int32)
    for row in range(vectors.shape[0]):
        largest[0] = 0
        for column in range(vectors.shape[1]):
            largest[0] = max(largest[0], np.int32(bits[row, column] & 0x7FFFFFFF))
        step = largest.view(np.float32)[0] / np.float32(LARGEST) if largest[0] else np.float32(1)
        total = np.float32(0)
        for column in range(vectors.shape[1]):
            rounded = np.rint(vectors[row, column] / step)
            left = vectors[row, column] - rounded * step
            total += left * left
            code[row, column] = np.int8(rounded)
        scale[row, 0] = step
        scale[row, 1] = np.sqrt(total)


@njit(nogil=True, cache=True)
def bound_cosines(code, scale, queries, query_scale, lower, upper):  # type: ignore[no-untyped-def]
    """Bounds float32 (n,) of each row's largest cosine with int16 `queries` (v, d).

    The arithmetic is 32-bit, which numba would not keep by itself.
    """
    whole = code.shape[1] - code.shape[1] % LANES
    for row in range(code.shape[0]):
        for column in range(0, code.shape[1], 64):
            prefetch(code, row, column)
        lowest = np.float32(-2)
        highest = np.float32(-2)
        for variant in range(queries.shape[0]):
            total = dot(code, row, queries, variant, whole)
            for column in range(whole, code.shape[1]):
                product = np.int32(code[row, column]) * np.int32(queries[variant, column])
                total = np.int32(total + np.int32(product))
            cosine = np.float32(total) * scale[row, 0] * query_scale[variant, 0]
            # |q·x - q'·x'| ≤ |q| |x - x'| + |q - q'| |x'|, and x' is no longer than
            # 2.
            gap = scale[row, 1] + np.float32(2) * query_scale[variant, 1] + np.float32(SLACK)
            lowest = max(lowest, cosine - gap)
            highest = max(highest, cosine + gap)
        lower[row] = lowest
        upper[row] = highest


@njit(nogil=True, cache=True)
def kth_largest(values, heap):  # type: ignore[no-untyped-def]
    """The k-th largest of float32 values (n,), n ≥ k; `heap` has room for k."""
    size = len(heap)
    heap[:] = np.sort(values[:size])
    for value in values[size:]:
        if value <= heap[0]:
            continue
        place = 0
        while 2 * place + 1 < size:
            child = 2 * place + 1
            if child + 1 < size and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= value:
                break
            heap[place] = heap[child]
            place = child
        heap[place] = value
    return heap[0]
