"""Numba kernels of histogram search. They release the GIL and run on one core."""

from __future__ import annotations

import numpy as np
from numba import njit

from indexes.arrays.intrinsics import prefetch

ROOT_BITS = 13
"""Dropped bits of a float32's fraction. With the 10 remaining bits a root is off by 0.02 % at
most."""


@njit(nogil=True, cache=True)
def coarse_l1(rows, query, out):  # type: ignore[no-untyped-def]
    """L1 distances of uint8 rows (n, 64) to a query (64,), written as uint16 (n,): two `vpsadbw` a
    row.

    LLVM emits that instruction for this width, this way of writing it and 32-bit arithmetic (numba
    would widen to 64). Run the benchmark after changing any of them.
    """
    for row in range(rows.shape[0]):
        prefetch(rows, row, 0)
        total = np.int32(0)
        for column in range(64):
            gap = np.int32(np.int32(rows[row, column]) - np.int32(query[column]))
            if gap < 0:
                gap = np.int32(-gap)
            total = np.int32(total + gap)
        out[row] = np.uint16(total)


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def cubic_l1(rows, query, out):  # type: ignore[no-untyped-def]
    """L1 distances of cubed uint8 codes (n, m) to a float32 query (m,), written as float32 (n,).

    Every cube is below 2^24 and therefore exact. The relative error of the result is at most (m +
    1) 2^-24, in whatever order the terms are added.
    """
    for row in range(rows.shape[0]):
        total = np.float32(0)
        for column in range(rows.shape[1]):
            code = np.float32(rows[row, column])
            total += abs(query[column] - code * code * code)
        out[row] = total


@njit(nogil=True, cache=True)
def code_roots(rows, roots, unit, group, merged, codes, error):  # type: ignore[no-untyped-def]
    """Encode float32 rows (n, m) by cube roots: each value is about `unit` times its code cubed.

    `roots` has the code of every positive float32, indexed by all but its last ROOT_BITS. The
    kernel writes uint8 `codes` (n, m), their L1 error into `error` (n, 1) float64, and the sums of
    the values of each `group` (m,) into `merged` (n, groups) float64. Most values are 0.
    """
    bits = rows.view(np.uint32)
    for row in range(rows.shape[0]):
        merged[row] = 0
        off = 0.0
        for column in range(rows.shape[1]):
            value = np.float64(rows[row, column])
            if value == 0:
                codes[row, column] = 0
                continue
            code = roots[bits[row, column] >> ROOT_BITS] if value > 0 else np.uint8(0)
            codes[row, column] = code
            root = np.float64(code)
            merged[row, group[column]] += value
            off += abs(value - unit * root * root * root)
        error[row, 0] = off
