"""Numba kernels of Hamming search. They release the GIL and run on one core."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from indexes.arrays.intrinsics import popcount, prefetch
from indexes.arrays.kernels import Kernel

BLOCK = 256
"""Rows that are transposed together, so that wide registers can count their words."""


@cache
def hamming_kernel(words: int, variants: int) -> Kernel:
    """A kernel that compares rows (n, words) with query variants (variants, words), uint64, and
    writes uint16 (n,).

    The distance of a row is that of its nearest variant. Both counts are constants of the compiled
    code; unrolled, 576 bits run at nearly memory bandwidth.
    """
    if words == 3 and variants == 8:
        return _three_words_of_eight

    @njit(nogil=True, cache=True)
    def scan(rows, queries, out):  # type: ignore[no-untyped-def]
        for row in range(rows.shape[0]):
            prefetch(rows, row, 0)
            best = np.uint64(65535)
            for variant in range(variants):
                distance = np.uint64(0)
                for word in range(words):
                    distance += popcount(rows[row, word] ^ queries[variant, word])
                best = min(best, distance)
            out[row] = best

    return scan


@cache
def masked_hamming_kernel(words: int) -> Kernel:
    """A kernel that compares rows (n, words) with one query (1, 2 words), uint64: a code, then the
    mask of the bits that count. It writes uint16 (n,), scaled as if all bits counted."""

    @njit(nogil=True, cache=True)
    def scan(rows, queries, out):  # type: ignore[no-untyped-def]
        counted = np.uint64(0)
        for word in range(words):
            counted += popcount(queries[0, words + word])
        for row in range(rows.shape[0]):
            prefetch(rows, row, 0)
            distance = np.uint64(0)
            for word in range(words):
                differing = rows[row, word] ^ queries[0, word]
                distance += popcount(differing & queries[0, words + word])
            out[row] = distance * np.uint64(64 * words) // max(counted, np.uint64(1))

    return scan


@njit(nogil=True, cache=True)
def _three_words_of_eight(rows, queries, out):  # type: ignore[no-untyped-def]
    """`hamming_kernel(3, 8)`, which is bound by counting: a full adder reduces three counts to two.

    The method of Harley and Seal (Warren, Hacker's Delight, 5-1).
    """
    first = np.empty(BLOCK, np.uint64)
    second = np.empty(BLOCK, np.uint64)
    third = np.empty(BLOCK, np.uint64)
    last = np.empty(BLOCK, np.uint16)
    for start in range(0, rows.shape[0], BLOCK):
        size = min(BLOCK, rows.shape[0] - start)
        for row in range(size):
            first[row], second[row], third[row] = rows[start + row]
        best = out[start : start + BLOCK] if size == BLOCK else last
        for row in range(BLOCK):
            nearest = np.uint64(65535)
            for variant in range(8):
                one = first[row] ^ queries[variant, 0]
                two = second[row] ^ queries[variant, 1]
                three = third[row] ^ queries[variant, 2]
                odd = one ^ two
                twice = (one & two) | (odd & three)
                distance = popcount(odd ^ three) + (popcount(twice) << np.uint64(1))
                nearest = min(nearest, distance)
            best[row] = nearest
        if size < BLOCK:
            out[start:] = last[:size]
