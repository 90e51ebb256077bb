"""Numba kernels over row arrays. They release the GIL and run on one core.

They compile on first call and are cached on disk (beside this file, else in the user's cache
folder). An index calls its kernels once when it is built, so that no query waits for the compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Kernel = Callable[[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]], None]
"""A kernel that writes the distance of each row (first argument) to the query (second) into the
third."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4)."""

BLOCK = 256
"""Number of distances that are looked at together."""
EMPTY = np.int32(-1)


@njit(nogil=True, cache=True)
def count_nearest(distances, k, counts):  # type: ignore[no-untyped-def]
    """The k-th smallest of uint16 distances, each below `len(counts)`; `counts` must be zeros.

    Returns `len(counts) - 1` when there are fewer than k. Blocks without any near row are skipped.
    """
    limit = len(counts) - 1
    seen = 0
    for start in range(0, len(distances), BLOCK):
        # LLVM vectorises a loop over a slice from 0 on, whose indices can't be negative.
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
def find_ids(table, ids, wanted, positions):  # type: ignore[no-untyped-def]
    """Write the position of each wanted id, or -1, found by linear probing of `table`.

    `table` (int32, a power of two long) holds positions in `ids` (int64), or -1.
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
    """Write the position of each added id; new ids go to the end. Returns the new count."""
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
    """Remove ids and write their positions into `holes` (-1 for unknown ids). Returns the new
    count.

    After each removal the last id moves into the hole; the caller must move its row in the same
    order. Backward-shift deletion keeps the table free of tombstones.
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
