"""Numba kernels of the scale space: Gaussian levels, and extrema of their differences.

They release the GIL and run on one core. They compile on first call and are cached on disk, beside
this file or in the user's cache folder.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from models.descriptors.intrinsics import filter_row

MARGIN = 32
"""Columns beside a row that hold its reflection; no filter reaches farther."""
BORDER = 5
"""Extrema nearer to the border than this are ignored, as in OpenCV."""
FAINT = np.float32(1e-3)
"""Differences below this are rounding errors of uniform areas; grey values go up to 255."""
EDGE_RATIO = 10.0
"""Ratio of principal curvatures from which an extremum counts as an edge (Lowe 2004)."""
MOVES = 5
"""Moves to a neighbouring sample before an extremum is given up."""


@njit(nogil=True, cache=True)
def double(picture, doubled):  # type: ignore[no-untyped-def]
    """Write the picture (h, w) uint8 at twice its size, by linear interpolation, as float32.

    Pixel (x, y) of the picture becomes (2x, 2y).
    """
    height, width = picture.shape
    half, quarter = np.float32(0.5), np.float32(0.25)
    for y in range(height):
        row, below = picture[y], picture[min(y + 1, height - 1)]
        even, odd = doubled[2 * y], doubled[2 * y + 1]
        for x in range(width):
            right = min(x + 1, width - 1)
            upper = np.float32(row[x]) + np.float32(row[right])
            lower = np.float32(below[x]) + np.float32(below[right])
            even[2 * x] = row[x]
            even[2 * x + 1] = half * upper
            odd[2 * x] = half * (np.float32(row[x]) + np.float32(below[x]))
            odd[2 * x + 1] = quarter * (upper + lower)


@njit(nogil=True, cache=True)
def blur(source, width, taps, target):  # type: ignore[no-untyped-def]
    """Gaussian blur of float32 rows (h, stride), whose first `width` columns are the picture.

    `taps` (r + 1,) float32 are half a kernel, its centre first. The border is reflected without
    its outermost pixel, so both sides must be greater than r. The stride is a multiple of
    ALIGNMENT.
    """
    height, stride = source.shape
    radius = len(taps) - 1
    row = np.zeros(stride + 2 * MARGIN, np.float32)
    across = np.empty(2 * radius + 1, np.int64)
    along = np.empty(2 * radius + 1, np.int64)
    along[0] = MARGIN
    for tap in range(1, radius + 1):
        along[2 * tap - 1], along[2 * tap] = MARGIN - tap, MARGIN + tap
    source, target = source.reshape(-1), target.reshape(-1)
    for y in range(height):
        across[0] = y * stride
        for tap in range(1, radius + 1):
            across[2 * tap - 1] = abs(y - tap) * stride
            across[2 * tap] = (height - 1 - abs(height - 1 - y - tap)) * stride
        filter_row(row, MARGIN, source, across, taps, stride)
        for beside in range(1, radius + 1):
            row[MARGIN - beside] = row[MARGIN + beside]
            row[MARGIN + width - 1 + beside] = row[MARGIN + width - 1 - beside]
        filter_row(target, y * stride, row, along, taps, stride)


@njit(nogil=True, cache=True)
def find_extrema(levels, width, found):  # type: ignore[no-untyped-def]
    """Write the extrema of the differences of neighbouring levels (s + 3, h, stride) float32.

    A row of `found` (n, 5) float32 is x, y, the level as a fraction, the absolute value there, and
    the nearest level, 1 to s. Returns their number, at most n.
    """
    layers, height, stride = levels.shape[0] - 3, levels.shape[1], levels.shape[2]
    differences = np.zeros((layers + 2, 3, stride), np.float32)
    highest = np.zeros((layers + 2, stride), np.float32)
    lowest = np.zeros((layers + 2, stride), np.float32)
    most, least = np.zeros(stride, np.float32), np.zeros(stride, np.float32)
    flags = np.zeros(stride, np.uint8)
    eights = flags.view(np.uint64)
    cube = np.empty((3, 3, 3), np.float64)
    near, far = BORDER - 1, width - BORDER + 1
    count = 0
    for y in range(BORDER - 1, height - BORDER + 1):
        for layer in range(layers + 2):
            lines = differences[layer]
            _subtract(levels[layer + 1, y], levels[layer, y], lines[y % 3])
            _greatest(lines[0], lines[1], lines[2], highest[layer])
            _least(lines[0], lines[1], lines[2], lowest[layer])
        if y <= BORDER:
            continue
        for layer in range(1, layers + 1):
            _greatest(highest[layer - 1], highest[layer], highest[layer + 1], most)
            _least(lowest[layer - 1], lowest[layer], lowest[layer + 1], least)
            middle = differences[layer, (y - 1) % 3]
            _flag(middle[near:far], most[near:far], least[near:far], flags[near:far])
            for eight in range(len(eights)):
                if eights[eight] == 0:
                    continue
                for x in range(8 * eight, 8 * eight + 8):
                    if flags[x] and count < len(found):
                        count += _refine(levels, width, layer, y - 1, x, cube, found[count])
    return count


@njit(nogil=True, cache=True)
def _subtract(one, other, difference):  # type: ignore[no-untyped-def]
    for x in range(len(difference)):
        difference[x] = one[x] - other[x]


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _greatest(one, two, three, greatest):  # type: ignore[no-untyped-def]
    for x in range(len(greatest)):
        greatest[x] = max(one[x], two[x], three[x])


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _least(one, two, three, least):  # type: ignore[no-untyped-def]
    for x in range(len(least)):
        least[x] = min(one[x], two[x], three[x])


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _flag(values, highest, lowest, flags):  # type: ignore[no-untyped-def]
    """Flag values, but the first and the last, that none of their neighbours exceeds.

    `highest` and `lowest` are the extremes of each column in three rows of three levels.
    """
    for x in range(len(values) - 2):
        value = values[x + 1]
        greatest = max(highest[x], highest[x + 1], highest[x + 2])
        least = min(lowest[x], lowest[x + 1], lowest[x + 2])
        peak = (value >= greatest) & (value > FAINT)
        pit = (value <= least) & (value < -FAINT)
        flags[x + 1] = np.uint8(peak | pit)


@njit(nogil=True, cache=True)
def _refine(levels, width, layer, y, x, cube, found):  # type: ignore[no-untyped-def]
    """Fit quadrics around an extremum until one peaks near its sample (Brown & Lowe 2002).

    Returns whether `found` was written: not for an extremum that wanders off, nor for an edge.
    `cube` is scratch (3, 3, 3) float64.
    """
    height, layers = levels.shape[1], levels.shape[0] - 3
    for _ in range(MOVES):
        _cut(levels, layer, y, x, cube)
        right, down, up, value, edge = _fit(cube)
        farthest = max(abs(right), abs(down), abs(up))
        if farthest < 0.5:
            found[0], found[1], found[2] = x + right, y + down, layer + up
            found[3], found[4] = abs(value), layer
            return not edge
        if farthest > max(width, height):
            break
        x, y, layer = x + round(right), y + round(down), layer + round(up)
        inside = BORDER <= x < width - BORDER and BORDER <= y < height - BORDER
        if not (inside and 1 <= layer <= layers):
            break
    return False


@njit(nogil=True, cache=True)
def _cut(levels, layer, y, x, cube):  # type: ignore[no-untyped-def]
    """Write the differences around a sample: level, row, column."""
    for up in range(3):
        for down in range(3):
            for right in range(3):
                level, row, column = layer + up - 1, y + down - 1, x + right - 1
                cube[up, down, right] = levels[level + 1, row, column]
                cube[up, down, right] -= levels[level, row, column]


@njit(nogil=True, cache=True)
def _fit(cube):  # type: ignore[no-untyped-def]
    """Where the quadric through the middle of a cube peaks, relative to it, how high, and whether
    it is an edge."""
    value = cube[1, 1, 1]
    dx = (cube[1, 1, 2] - cube[1, 1, 0]) / 2
    dy = (cube[1, 2, 1] - cube[1, 0, 1]) / 2
    ds = (cube[2, 1, 1] - cube[0, 1, 1]) / 2
    dxx = cube[1, 1, 2] + cube[1, 1, 0] - 2 * value
    dyy = cube[1, 2, 1] + cube[1, 0, 1] - 2 * value
    dss = cube[2, 1, 1] + cube[0, 1, 1] - 2 * value
    dxy = (cube[1, 2, 2] - cube[1, 2, 0] - cube[1, 0, 2] + cube[1, 0, 0]) / 4
    dxs = (cube[2, 1, 2] - cube[2, 1, 0] - cube[0, 1, 2] + cube[0, 1, 0]) / 4
    dys = (cube[2, 2, 1] - cube[2, 0, 1] - cube[0, 2, 1] + cube[0, 0, 1]) / 4
    # Cramer's rule for the symmetric matrix of second derivatives.
    xx, xy, xs = dyy * dss - dys * dys, dxs * dys - dxy * dss, dxy * dys - dxs * dyy
    yy, ys, ss = dxx * dss - dxs * dxs, dxs * dxy - dxx * dys, dxx * dyy - dxy * dxy
    determinant = dxx * xx + dxy * xy + dxs * xs
    if determinant == 0:
        return 0.0, 0.0, 0.0, value, True
    right = -(xx * dx + xy * dy + xs * ds) / determinant
    down = -(xy * dx + yy * dy + ys * ds) / determinant
    up = -(xs * dx + ys * dy + ss * ds) / determinant
    edge = (dxx + dyy) ** 2 * EDGE_RATIO >= (EDGE_RATIO + 1) ** 2 * ss
    return right, down, up, value + (dx * right + dy * down + ds * up) / 2, edge
