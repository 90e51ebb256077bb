"""Numba kernel that selects inverted lists. It releases the GIL and runs on one core."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def least_gaps(products, halves, first, places, gaps):  # type: ignore[no-untyped-def]
    """Merge a block of rows into each query's k rows with the least `halves - products`, ascending.

    `products` (n, m) and `halves` (m,) float32 belong to the rows from number `first` on. `places`
    (n, k) int64 and `gaps` (n, k) float32, at first infinite, hold the result so far.
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
