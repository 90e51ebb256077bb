"""The numba kernels of the local index: nearest rows, votes, mutual nearest neighbours.

All release the GIL and run on one core; `indexes.kernels` says how they are compiled and cached.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ANGLES = 16
"""Bins of a turn in the weak geometric check: 22.5 degrees each."""
SCALES = 16
"""Bins of one octave each, the middle one of equal scale."""


@njit(nogil=True, cache=True)
def keep_nearest(similarity, ids, wanted, best, best_ids):  # type: ignore[no-untyped-def]
    """Merge a block's similarities (n, m) into the k best of each query (n, k), descending.

    `ids` (m,) int64 name slot << 8 | keypoint; `wanted` (slots,) bool says which slots count, and
    is looked up only for the few that are near enough.
    """
    last = best.shape[1] - 1
    for query in range(similarity.shape[0]):
        floor = best[query, last]
        for row in range(similarity.shape[1]):
            value = similarity[query, row]
            if value <= floor or not wanted[ids[row] >> 8]:
                continue
            place = last
            while place > 0 and best[query, place - 1] < value:
                best[query, place] = best[query, place - 1]
                best_ids[query, place] = best_ids[query, place - 1]
                place -= 1
            best[query, place] = value
            best_ids[query, place] = ids[row]
            floor = best[query, last]


@njit(nogil=True, cache=True)
def count_votes(ids, query_geometry, starts, geometry, slots):  # type: ignore[no-untyped-def]
    """Votes, and votes that agree on scale and angle (Jégou et al. 2008), of each slot.

    `ids` (n, k) int64 are near descriptors, -1 for none; `slots` are the m sorted slots in them.
    A query descriptor votes once for a slot, by its nearest there. Returns two int32 (m,).
    """
    votes = np.zeros(len(slots), np.int32)
    histogram = np.zeros((len(slots), ANGLES, SCALES), np.int32)
    last_voter = np.full(len(slots), -1, np.int32)
    for query in range(ids.shape[0]):
        for rank in range(ids.shape[1]):
            if ids[query, rank] < 0:
                continue
            slot = ids[query, rank] >> 8
            place = np.searchsorted(slots, slot)
            if last_voter[place] == query:
                continue
            last_voter[place] = query
            votes[place] += 1
            row = starts[slot] + (ids[query, rank] & 255)
            octaves = np.int32(geometry[row, 0]) - np.int32(query_geometry[query, 0])
            turn = (np.int32(geometry[row, 1]) - np.int32(query_geometry[query, 1])) & 255
            scale = min(max((octaves + 8 * SCALES) >> 4, 0), SCALES - 1)
            histogram[place, turn >> 4, scale] += 1  # type: ignore[index]
    agreeing = np.zeros(len(slots), np.int32)
    for place in range(len(slots)):
        for angle in range(ANGLES):
            after = (angle + 1) % ANGLES
            for scale in range(SCALES - 1):
                # Two neighbouring bins each way: no agreement is cut by a bin's edge.
                window = (
                    histogram[place, angle, scale]
                    + histogram[place, angle, scale + 1]
                    + histogram[place, after, scale]
                    + histogram[place, after, scale + 1]
                )
                agreeing[place] = max(agreeing[place], window)
    return votes, agreeing


@njit(nogil=True, cache=True)
def mutual_nearest(similarity, points, radius):  # type: ignore[no-untyped-def]
    """Pairs that are each other's nearest, of similarities (n, m) float32 of n queries to m rows.

    Returns for each query its row or -1 (int32), its similarity, and the similarity of the nearest
    row that lies farther than `radius` from that one (`points` (m, 2) are the rows' places):
    keypoints of several angles or neighbouring scales share a place and don't speak against it
    (first geometrically inconsistent neighbour, Mishkin et al. 2015).
    """
    queries, rows = similarity.shape
    nearest_query = np.zeros(rows, np.int32)
    highest = np.full(rows, np.float32(-2))
    nearest_row = np.zeros(queries, np.int32)
    best = np.full(queries, np.float32(-2))
    for query in range(queries):
        for row in range(rows):
            value = similarity[query, row]
            if value > best[query]:
                best[query] = value
                nearest_row[query] = row
            if value > highest[row]:
                highest[row] = value
                nearest_query[row] = query
    second = np.full(queries, np.float32(-2))
    for query in range(queries):
        chosen = nearest_row[query]
        if nearest_query[chosen] != query:
            nearest_row[query] = -1
            continue
        for row in range(rows):
            value = similarity[query, row]
            if value > second[query]:
                across = points[row, 0] - points[chosen, 0]
                down = points[row, 1] - points[chosen, 1]
                if across * across + down * down > radius * radius:
                    second[query] = value
    return nearest_row, best, second
