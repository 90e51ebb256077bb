"""All pairs of near hashes, under every flip and rotation, without comparing each with each.

The 576 bits are 36 bands of 16 (locality-sensitive hashing; Indyk & Motwani 1998): a code meets
those with which it shares a band. Two that differ in up to 35 bits always share one; of random
differences of 64 bits 99.7 % do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from indexes.arrays.intrinsics import popcount
from models.extractors.phash import turned_codes

BITS = 576
BYTES, WORDS = BITS // 8, BITS // 64
BANDS, BAND_BITS = 36, 16
RADIUS = 71
"""Largest distance of a pair. Copies differ in fewer than 64 bits; a turned hash, which is computed
from the stored one, in a few more."""
CERTAIN = BANDS - 1
"""Largest distance up to which every pair is found."""
MAX_BUCKET = 2048
"""Rows of one bucket that are compared with a code. Larger buckets hold drawings with plain areas;
of those the rows with the most similar codes are compared."""
VARIANTS = 8

Words = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint8]
Pairs = npt.NDArray[np.int64]
"""Pairs (n, 3): position of the query, position of the row, distance."""


class HashTables:
    """The codes (n, 72) of all images, by their bands."""

    def __init__(self, codes: Codes) -> None:
        # Similar codes become neighbours, also within a bucket.
        self._order = np.lexsort(codes.T[::-1]) if len(codes) else np.zeros(0, np.int64)
        ordered = np.ascontiguousarray(codes[self._order])
        self._words = ordered.view(np.uint64).reshape(-1, WORDS)
        self._place = np.empty(len(codes), np.int64)
        self._place[self._order] = np.arange(len(codes))
        bands = _bands(ordered)
        self._starts = np.zeros((BANDS, (1 << BAND_BITS) + 1), np.int32)
        self._rows = np.empty((BANDS, len(codes)), np.int32)
        for band in range(BANDS):
            keys = bands[:, band]
            self._rows[band] = np.argsort(keys, kind="stable")
            np.cumsum(np.bincount(keys, minlength=1 << BAND_BITS), out=self._starts[band, 1:])

    def near(
        self, positions: npt.NDArray[np.int64], codes: Codes, allowed: Any, most: int = 64
    ) -> Pairs:
        """Rows within RADIUS of the queries, which are rows themselves, in any orientation.

        `allowed` (n,) bool says which rows may be found. A row is not found by itself. Of each
        query the `most` nearest rows are returned.
        """
        if not len(positions):
            return np.zeros((0, 3), np.int64)
        queries = turned_codes(codes)
        words = np.ascontiguousarray(queries).view(np.uint64).reshape(-1, VARIANTS, WORDS)
        bands = _bands(queries.reshape(-1, BYTES)).reshape(-1, VARIANTS, BANDS)
        places, open_rows = self._place[positions], np.asarray(allowed, np.bool_)[self._order]
        tables = self._words, self._rows, self._starts, open_rows
        room = 64 * len(positions) + 1024
        while True:
            out = np.empty((room, 3), np.int64)
            count = _near(places, words, bands, tables, out)
            if count <= room:
                break
            room = count
        found = out[:count]
        found[:, 0], found[:, 1] = positions[found[:, 0]], self._order[found[:, 1]]
        # Of several orientations the nearest counts.
        found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))]
        first = np.ones(len(found), np.bool_)
        first[1:] = (found[1:, :2] != found[:-1, :2]).any(axis=1)
        found = found[first]
        found = found[np.lexsort((found[:, 1], found[:, 2], found[:, 0]))]
        begins = np.searchsorted(found[:, 0], found[:, 0])
        return found[np.arange(len(found)) - begins < most]


def _bands(codes: Codes) -> npt.NDArray[np.uint16]:
    """The bands (n, 36) of codes (n, 72): each takes every 36th bit, so that none is plain."""
    bits = np.unpackbits(codes, axis=1).reshape(-1, BAND_BITS, BANDS)
    packed = np.packbits(bits, axis=1).astype(np.uint16)
    return packed[:, 0] << np.uint16(8) | packed[:, 1]


@njit(nogil=True, cache=True)
def _near(places, words, bands, tables, out):  # type: ignore[no-untyped-def]
    """Write the near rows of each query under each variant to `out`; return their number, which may
    exceed its room."""
    row_words, rows, starts, allowed = tables
    stamps = np.full(row_words.shape[0], -1, np.int32)
    count = 0
    for query in range(places.shape[0]):
        for variant in range(words.shape[1]):
            mark = np.int32(query * words.shape[1] + variant)
            for band in range(bands.shape[2]):
                key = np.int64(bands[query, variant, band])
                first, last = _bucket(rows[band], starts[band], key, places[query])
                for at in range(first, last):
                    row = rows[band, at]
                    if stamps[row] == mark:
                        continue
                    stamps[row] = mark
                    distance = _distance(words[query, variant], row_words[row])
                    if distance > RADIUS or row == places[query] or not allowed[row]:
                        continue
                    if count < out.shape[0]:
                        out[count, 0], out[count, 1] = query, row
                        out[count, 2] = distance
                    count += 1
    return count


@njit(nogil=True, cache=True)
def _bucket(rows, starts, key, own):  # type: ignore[no-untyped-def]
    """The part of a bucket that is compared: of a large one, what lies around the query's row."""
    first, last = starts[key], starts[key + 1]
    if last - first <= MAX_BUCKET:
        return first, last
    middle = first + np.searchsorted(rows[first:last], own)
    first = max(first, min(middle - MAX_BUCKET // 2, last - MAX_BUCKET))
    return first, first + MAX_BUCKET


@njit(nogil=True, cache=True)
def _distance(one, other):  # type: ignore[no-untyped-def]
    distance = np.int64(0)
    for word in range(one.shape[0]):
        distance += np.int64(popcount(one[word] ^ other[word]))
        if distance > RADIUS:
            break
    return distance


def classes(codes: Codes) -> list[list[int]]:
    """Positions, ascending, of codes that are equal, by code."""
    if not len(codes):
        return []
    _, which, counts = np.unique(
        np.ascontiguousarray(codes).view(f"V{codes.shape[1]}").ravel(),
        return_inverse=True,
        return_counts=True,
    )
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(counts)
    return [part.tolist() for part in np.split(order, ends[:-1])]
