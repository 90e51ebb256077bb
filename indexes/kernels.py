"""The numba kernels of the indexes over rows of our own: all release the GIL, run on one core.

They compile on first call and are cached on disk (beside this file, else in the user's cache
folder); an index calls its own once when it is built, so no query waits for a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from indexes.intrinsics import popcount, prefetch

Kernel = Callable[[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]], None]
"""Writes the distance of each row (first) to the query (second) into the last argument."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4)."""

ROOT_BITS = 13
"""With the 10 bits that are left of a float32's fraction, a root is off by 0.02 % at most."""
BLOCK = 256
"""Rows whose words lie side by side, to be counted in wide registers; distances seen at once."""
EMPTY = np.int32(-1)


@cache
def hamming_kernel(words: int, variants: int) -> Kernel:
    """A kernel for rows (n, words) and query variants (variants, words), uint64, to uint16 (n,).

    The distance of a row is that of its nearest variant. Both counts are constants of the compiled
    code: unrolled so, 576 bits run at nearly the speed of memory.
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


@njit(nogil=True, cache=True)
def _three_words_of_eight(rows, queries, out):  # type: ignore[no-untyped-def]
    """`hamming_kernel(3, 8)`, whose time is counting: a full adder leaves two counts of three.

    Harley and Seal's way (Warren, Hacker's Delight, 5-1).
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


@njit(nogil=True, cache=True)
def coarse_l1(rows, query, out):  # type: ignore[no-untyped-def]
    """L1 of uint8 rows (n, 64) to a query (64,), to uint16 (n,): two `vpsadbw` a row.

    LLVM finds that instruction for this width, this spelling and 32-bit arithmetic (numba would
    widen to 64): mind the benchmark when changing any of them.
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
    """L1 of cubed uint8 codes (n, m) to a float32 query (m,), to float32 (n,).

    Every cube is below 2^24, so exact; the result is within (m + 1) 2^-24 of the true sum,
    relatively, in whatever order the terms are added.
    """
    for row in range(rows.shape[0]):
        total = np.float32(0)
        for column in range(rows.shape[1]):
            code = np.float32(rows[row, column])
            total += abs(query[column] - code * code * code)
        out[row] = total


@njit(nogil=True, cache=True)
def code_roots(rows, roots, unit, group, merged, codes, error):  # type: ignore[no-untyped-def]
    """Code float32 rows (n, m) by cube roots: each value is about `unit` times its code cubed.

    `roots` has the code of every positive float32 by all but its last ROOT_BITS. Writes uint8
    `codes` (n, m), what they are off in L1 into `error` (n, 1) float64, and into `merged`
    (n, groups) float64 the sums of the values of each `group` (m,). Most values are 0.
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


@njit(nogil=True, cache=True)
def count_nearest(distances, k, counts):  # type: ignore[no-untyped-def]
    """The k-th smallest of uint16 distances, each below `len(counts)`; `counts` are zeros.

    `len(counts) - 1` when there are fewer. Blocks that hold nothing near are passed over whole.
    """
    limit = len(counts) - 1
    seen = 0
    for start in range(0, len(distances), BLOCK):
        # Of a slice's places from 0 on, LLVM makes vectors: they can't be negative.
        block = distances[start : start + BLOCK]
        nearest = np.uint16(65535)
        for place in range(len(block)):
            nearest = min(nearest, block[place])
        if nearest > limit:
            continue
        for distance in block:
            if distance <= limit:
                counts[distance] += 1
                seen += 1
        while seen - counts[limit] >= k:
            seen -= counts[limit]
            limit -= 1
    return limit


@njit(nogil=True, cache=True)
def least_gaps(products, halves, first, places, gaps):  # type: ignore[no-untyped-def]
    """Merge a block of rows into the k of each query with the least `halves - products`, ascending.

    `products` (n, m) and `halves` (m,) float32 are of the rows from number `first` on; `places`
    (n, k) int64 and `gaps` (n, k) float32, at first infinite, are what was found before.
    """
    last = places.shape[1] - 1
    for query in range(products.shape[0]):
        farthest = gaps[query, last]
        for row in range(products.shape[1]):
            gap = halves[row] - products[query, row]
            if gap >= farthest:
                continue
            place = last
            while place > 0 and gap < gaps[query, place - 1]:
                gaps[query, place] = gaps[query, place - 1]
                places[query, place] = places[query, place - 1]
                place -= 1
            gaps[query, place] = gap
            places[query, place] = first + row
            farthest = gaps[query, last]


@njit(nogil=True, cache=True)
def find_ids(table, ids, wanted, positions):  # type: ignore[no-untyped-def]
    """Write the position of each wanted id, or -1, by linear probing of `table`.

    `table` (int32, a power of two long) holds positions in `ids` (int64) or -1.
    """
    mask = len(table) - 1
    shift = _shift(mask)
    for which in range(len(wanted)):
        place = _home(wanted[which], shift)
        while table[place] != EMPTY and ids[table[place]] != wanted[which]:
            place = (place + 1) & mask
        positions[which] = table[place]


@njit(nogil=True, cache=True)
def put_ids(table, ids, count, added, positions):  # type: ignore[no-untyped-def]
    """Write the position of each added id; one that is new goes to the end. The new count."""
    mask = len(table) - 1
    shift = _shift(mask)
    for which in range(len(added)):
        place = _home(added[which], shift)
        while table[place] != EMPTY and ids[table[place]] != added[which]:
            place = (place + 1) & mask
        if table[place] == EMPTY:
            table[place] = count
            ids[count] = added[which]
            count += 1
        positions[which] = table[place]
    return count


@njit(nogil=True, cache=True)
def drop_ids(table, ids, count, dropped, holes):  # type: ignore[no-untyped-def]
    """Remove ids; write into `holes` where each was (-1: nowhere). The new count.

    After each removal the last id moves into the hole: the caller moves its row likewise, in order.
    The table is closed up by backward shift, so it never fills with tombstones.
    """
    mask = len(table) - 1
    shift = _shift(mask)
    for which in range(len(dropped)):
        place = _home(dropped[which], shift)
        while table[place] != EMPTY and ids[table[place]] != dropped[which]:
            place = (place + 1) & mask
        hole = table[place]
        holes[which] = hole
        if hole == EMPTY:
            continue
        count -= 1
        moved = _home(ids[count], shift)
        while table[moved] != count:
            moved = (moved + 1) & mask
        table[moved] = hole
        ids[hole] = ids[count]
        following = (place + 1) & mask
        while table[following] != EMPTY:
            home = _home(ids[table[following]], shift)
            if ((following - home) & mask) >= ((following - place) & mask):
                table[place] = table[following]
                place = following
            following = (following + 1) & mask
        table[place] = EMPTY
    return count


@njit(nogil=True, cache=True)
def _shift(mask):  # type: ignore[no-untyped-def]
    bits = 0
    while mask:
        bits += 1
        mask >>= 1
    return np.uint64(64 - bits)


@njit(nogil=True, cache=True)
def _home(image_id, shift):  # type: ignore[no-untyped-def]
    return np.int64((np.uint64(image_id) * MULTIPLIER) >> shift)
