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
PRODUCT_ERROR = 1e-5
"""Similarities of a float32 matrix product of unit rows are nearer than this to the exact ones."""


@njit(nogil=True, cache=True)
def keep_nearest(similarity, queries, rows, ids, image_ids, best, best_ids):  # type: ignore[no-untyped-def]
    """Merge a block's similarities (n, m) into the k best of each query (n, k), descending.

    `ids` (m,) int64 name slot << 8 | keypoint; `image_ids` (slots,) int64 are -1 where a slot
    doesn't count, and looked up only for the few that are near enough. Those are compared by a dot
    product of `queries` (n, d) and `rows` (m, d) that is the same wherever a row lies, as a matrix
    product's is not; ties by image id, then keypoint.
    """
    last = best.shape[1] - 1
    for query in range(similarity.shape[0]):
        floor = best[query, last] - PRODUCT_ERROR
        for row in range(similarity.shape[1]):
            if similarity[query, row] < floor or image_ids[ids[row] >> 8] < 0:
                continue
            value = _dot(queries[query], rows[row])
            place = last + 1
            while place > 0 and _before(
                value, ids[row], best[query, place - 1], best_ids[query, place - 1], image_ids
            ):
                if place <= last:
                    best[query, place] = best[query, place - 1]
                    best_ids[query, place] = best_ids[query, place - 1]
                place -= 1
            if place <= last:
                best[query, place] = value
                best_ids[query, place] = ids[row]
                floor = best[query, last] - PRODUCT_ERROR


@njit(nogil=True, cache=True)
def _dot(one, other):  # type: ignore[no-untyped-def]
    """In float64, in order, then rounded to float32."""
    total = 0.0
    for place in range(len(one)):
        total += np.float64(one[place]) * np.float64(other[place])
    return np.float32(total)


@njit(nogil=True, cache=True)
def _before(value, row, other_value, other, image_ids):  # type: ignore[no-untyped-def]
    """Whether a row id of this similarity comes before another, or before none (-1)."""
    if value != other_value or other < 0:
        return value > other_value
    image, other_image = image_ids[row >> 8], image_ids[other >> 8]
    return image < other_image or (image == other_image and (row & 255) < (other & 255))


@njit(nogil=True, cache=True)
def count_votes(places, geometry, query_geometry, count):  # type: ignore[no-untyped-def]
    """Votes, and votes that agree on scale and angle (Jégou et al. 2008), of `count` pictures.

    `places` (n, k) int64 name the pictures of near descriptors, nearest first, -1 for none;
    `geometry` (n, k, 2) and `query_geometry` (n, 2) uint8 are theirs and the query's. A query
    descriptor votes once for a picture, by its nearest there. Returns two int32 (count,).
    """
    votes = np.zeros(count, np.int32)
    histogram = np.zeros((count, ANGLES, SCALES), np.int32)
    last_voter = np.full(count, -1, np.int32)
    for query in range(places.shape[0]):
        for rank in range(places.shape[1]):
            place = places[query, rank]
            if place < 0 or last_voter[place] == query:
                continue
            last_voter[place] = query
            votes[place] += 1
            octaves = np.int32(geometry[query, rank, 0]) - np.int32(query_geometry[query, 0])
            turn = np.int32(geometry[query, rank, 1]) - np.int32(query_geometry[query, 1])
            scale = min(max((octaves + 8 * SCALES) >> 4, 0), SCALES - 1)
            histogram[place, (turn & 255) >> 4, scale] += 1  # type: ignore[index]
    agreeing = np.zeros(count, np.int32)
    for place in range(count):
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
