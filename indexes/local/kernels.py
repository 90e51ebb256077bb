"""Numba kernels of the local index: nearest rows, votes, mutual nearest neighbours.

They release the GIL and run on one core; see `indexes.arrays.kernels` for how they are compiled and
cached.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ANGLES = 16
"""Bins of a full turn in the weak geometric check, 22.5 degrees each."""
SCALES = 16
"""Bins of one octave each; the middle bin is equal scale."""
PRODUCT_ERROR = 1e-5
"""Maximum error of the similarities of a float32 matrix product of unit rows."""


@njit(nogil=True, cache=True)
def keep_nearest(similarity, queries, rows, ids, image_ids, best, best_ids):  # type: ignore[no-untyped-def]
    """Merge a block's similarities (n, m) into the k best of each query (n, k), descending.

    `ids` (m,) int64 are slot << 8 | keypoint. `image_ids` (slots,) int64 are -1 where a slot does
    not count; only the few rows that are near enough look them up. Near rows are compared by a dot
    product of `queries` (n, d) and `rows` (m, d) that does not depend on a row's position, unlike a
    matrix product. Ties are broken by image id, then by keypoint.
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
    """Dot product in float64, in order, then rounded to float32."""
    total = 0.0
    for place in range(len(one)):
        total += np.float64(one[place]) * np.float64(other[place])
    return np.float32(total)


@njit(nogil=True, cache=True)
def _before(value, row, other_value, other, image_ids):  # type: ignore[no-untyped-def]
    """Whether a row id of this similarity ranks before another, or before none (-1)."""
    if value != other_value or other < 0:
        return value > other_value
    image, other_image = image_ids[row >> 8], image_ids[other >> 8]
    return image < other_image or (image == other_image and (row & 255) < (other & 255))


@njit(nogil=True, cache=True)
def count_votes(places, geometry, query_geometry, count):  # type: ignore[no-untyped-def]
    """Votes, and votes that agree on scale and angle (Jégou et al. 2008), of `count` images.

    `places` (n, k) int64 are the images of near descriptors, nearest first, -1 for none. `geometry`
    (n, k, 2) and `query_geometry` (n, 2) uint8 are their and the query's scale and angle. A query
    descriptor votes once for an image, by its nearest descriptor there. Returns two int32 arrays
    (count,).
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
                # Two neighbouring bins each way, so that a bin's edge cuts no
                # agreement.
                window = (
                    histogram[place, angle, scale]
                    + histogram[place, angle, scale + 1]
                    + histogram[place, after, scale]
                    + histogram[place, after, scale + 1]
                )
                agreeing[place] = max(agreeing[place], window)
    return votes, agreeing


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def mutual_nearest(products, start, query_scale, row_scale, points, radius, ratio, farthest):  # type: ignore[no-untyped-def]
    """For each of n queries the row that is its mutual nearest neighbour, or -1.

    `products` (n, ≥ start + m) float32, from column `start` on, times `query_scale` (n,) and
    `row_scale` (m,) are the cosines. Rows at `farthest` (squared L2) or beyond are rejected. So are
    rows whose distance is more than `ratio` of the distance to the nearest row farther than
    `radius` from them (`points` (m, 2) are the rows' positions): keypoints of several angles or
    neighbouring scales share a position and must not reject each other (first geometrically
    inconsistent neighbour, Mishkin et al. 2015). Returns int32 (n,).
    """
    queries, rows = len(query_scale), len(row_scale)
    highest = np.zeros(rows, np.float32)
    best = np.empty(queries, np.float32)
    cosines = np.empty(rows, np.float32)
    # LLVM does not vectorise a running maximum of floats. No product is negative, so its bits as a
    # whole number order like the product.
    bits, best_bits = cosines.view(np.int32), best.view(np.int32)
    for query in range(queries):
        scale = query_scale[query]
        line = products[query, start : start + rows]
        for row in range(rows):
            cosine = line[row] * row_scale[row] * scale
            cosines[row] = cosine
            highest[row] = max(highest[row], cosine)
        top = np.int32(0)
        for row in range(rows):
            top = max(top, bits[row])
        best_bits[query] = top
    order = np.argsort(best)
    rising = best[order]
    chosen = np.full(queries, np.int32(-1))
    for row in range(rows):
        distance = 2 - 2 * highest[row]
        if distance >= farthest:
            continue
        # Searching for a value again is faster than tracking its position during the search. Few
        # queries share a value.
        first = queries
        for place in range(np.searchsorted(rising, highest[row]), queries):
            query = order[place]
            if best[query] != highest[row]:
                break
            if products[query, start + row] * row_scale[row] * query_scale[query] == best[query]:
                first = min(first, query)
        if first < queries and _is_distinct(
            products[first, start : start + rows],
            query_scale[first],
            row_scale,
            points,
            row,
            radius,
            distance / (ratio * ratio),
        ):
            chosen[first] = row
    return chosen


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _is_distinct(products, query_scale, row_scale, points, nearest, radius, least):  # type: ignore[no-untyped-def]
    """Whether no row farther than `radius` from the nearest row has a distance below `least`."""
    for row in range(len(products)):
        if 2 - 2 * (products[row] * row_scale[row] * query_scale) < least:
            across = points[row, 0] - points[nearest, 0]
            down = points[row, 1] - points[nearest, 1]
            if across * across + down * down > radius * radius:
                return False
    return True
