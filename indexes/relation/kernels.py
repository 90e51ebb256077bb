"""Numba kernels that compare two grey pictures window by window.

They release the GIL and run on one core; see `indexes.arrays.kernels` for how they are compiled and
cached. Windows lie STRIDE pixels apart and are three times as large; an array of windows has a
quarter of the pixels' rows and columns.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

STRIDE = 4
"""Pixels from one window to the next."""
WINDOW = 3 * STRIDE
"""Side, in pixels, of the windows that are compared."""
NOISE = 1.8
"""Standard deviation of what compression leaves, in grey values."""
RELATIVE_NOISE = 0.05
"""The same as a share of the picture's contrast, which is the spread of its strongest windows."""
STRONG = 0.95
"""Share of the windows that are weaker than the strongest."""
HALF_WEIGHT = 0.35
"""Spread, as a share of the picture's contrast, that has half the largest weight."""
EDGE = 0.52
"""Distance, in pixels, from the centres of the outermost pixels to the edge of a picture."""
LOUD = 0.3
"""Weight from which a contradicted window counts as changed."""
LEVELS, LEVEL = 640, 0.2
"""Number and width, in grey values, of the classes by which strong windows are found."""


@njit(nogil=True, cache=True)
def spreads(pixels):  # type: ignore[no-untyped-def]
    """Standard deviation in each window of uint8 (height, width): float32."""
    rows, columns = pixels.shape[0] // STRIDE, pixels.shape[1] // STRIDE
    moments = np.empty((2, rows, columns), np.float32)
    for row in range(rows):
        for column in range(columns):
            total = squares = np.int32(0)
            for y in range(row * STRIDE, (row + 1) * STRIDE):
                for x in range(column * STRIDE, (column + 1) * STRIDE):
                    value = np.int32(pixels[y, x])
                    total += value
                    squares += value * value
            moments[0, row, column] = total / np.float32(STRIDE**2)
            moments[1, row, column] = squares / np.float32(STRIDE**2)
    return _spreads(moments, 0)[1]


@njit(nogil=True, cache=True)
def has_edges(pixels, least, share):  # type: ignore[no-untyped-def]
    """Whether more than this share of the windows of uint8 (height, width) spread further than
    `least`."""
    rows, columns = pixels.shape[0] // STRIDE - 2, pixels.shape[1] // STRIDE - 2
    found, enough = 0, share * rows * columns
    for row in range(rows):
        for column in range(columns):
            total = squares = 0
            for y in range(row * STRIDE, row * STRIDE + WINDOW):
                for x in range(column * STRIDE, column * STRIDE + WINDOW):
                    value = int(pixels[y, x])
                    total += value
                    squares += value * value
            mean = total / WINDOW**2
            if squares / WINDOW**2 - mean * mean > least * least:
                found += 1
                if found > enough:
                    return True
    return False


@njit(nogil=True, cache=True)
def histogram(pixels):  # type: ignore[no-untyped-def]
    """Number of pixels of each of 256 values: int64 (256,)."""
    counts = np.zeros(256, np.int64)
    for row in range(pixels.shape[0]):
        for column in range(pixels.shape[1]):
            counts[pixels[row, column]] += 1
    return counts


@njit(nogil=True, cache=True)
def coverage(matrix, rows, columns, height, width):  # type: ignore[no-untyped-def]
    """Which windows of a picture lie wholly, and at least partly, in another of this size: two
    arrays bool (rows, columns). `matrix` maps to the other's pixels."""
    corners = np.empty((rows + 1, columns + 1), np.bool_)
    for row in range(rows + 1):
        y = STRIDE * row - 0.5
        for column in range(columns + 1):
            x = STRIDE * column - 0.5
            weight = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
            across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] + EDGE * weight
            down = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] + EDGE * weight
            inside = 0 <= across <= (width - 1 + 2 * EDGE) * weight
            corners[row, column] = inside and 0 <= down <= (height - 1 + 2 * EDGE) * weight
    full = np.empty((rows, columns), np.bool_)
    part = np.empty((rows, columns), np.bool_)
    for row in range(rows):
        for column in range(columns):
            count = np.int64(corners[row, column]) + corners[row, column + 1]
            count += np.int64(corners[row + 1, column]) + corners[row + 1, column + 1]
            full[row, column] = count == 4
            part[row, column] = count > 0
    return _all_around(full), _any_around(part)


@njit(nogil=True, cache=True)
def _all_around(full):  # type: ignore[no-untyped-def]
    """Which windows have only true blocks around them; those beyond the edge count as true."""
    rows, columns = full.shape
    lines = full.copy()
    for row in range(rows):
        for column in range(columns):
            left, right = max(column - 1, 0), min(column + 1, columns - 1)
            lines[row, column] = full[row, left] & full[row, column] & full[row, right]
    found = np.empty((rows, columns), np.bool_)
    for row in range(rows):
        above, below = max(row - 1, 0), min(row + 1, rows - 1)
        for column in range(columns):
            found[row, column] = lines[above, column] & lines[row, column] & lines[below, column]
    return found


@njit(nogil=True, cache=True)
def _any_around(part):  # type: ignore[no-untyped-def]
    """Which windows have a true block up to two blocks away."""
    return ~_all_around(_all_around(~part))


@njit(nogil=True, cache=True)
def compare_windows(one, other, covered, low, high):  # type: ignore[no-untyped-def]
    """Compare two aligned pictures, uint8 (height, width), where `covered` is true.

    Returns the correlations as explained shares, from 0 at `low` to 1 at `high`; which windows
    contradict; by picture (2, rows, columns): weights, means, spreads; the two levels of noise;
    and the sign of the correlation. See Wang et al. 2004 on the correlation of windows.
    """
    moments = _moments(one, other)
    rows, columns = covered.shape
    means = np.empty((2, rows, columns), np.float32)
    spread = np.empty((2, rows, columns), np.float32)
    means[0], spread[0] = _spreads(moments, 0)
    means[1], spread[1] = _spreads(moments, 2)
    covariance = _window_means(moments, 4)
    noise = np.empty(2)
    contrast = np.empty(2)
    for side in range(2):
        noise[side] = noise_of(spread[side], covered)
        contrast[side] = HALF_WEIGHT * noise[side] / RELATIVE_NOISE
    total = 0.0
    for row in range(rows):
        for column in range(columns):
            covariance[row, column] -= means[0, row, column] * means[1, row, column]
            if covered[row, column]:
                total += covariance[row, column]
    sign = -1.0 if total < 0 else 1.0
    explained = np.zeros((rows, columns), np.float32)
    contradicted = np.zeros((rows, columns), np.bool_)
    weights = np.empty((2, rows, columns), np.float32)
    both = noise[0] * noise[1]
    for row in range(rows):
        for column in range(columns):
            for side in range(2):
                excess = max(0.0, spread[side, row, column] - noise[side])
                weights[side, row, column] = excess / (excess + contrast[side])
            if covered[row, column]:
                first = spread[0, row, column] ** 2 + noise[0] ** 2
                second = spread[1, row, column] ** 2 + noise[1] ** 2
                alike = (sign * covariance[row, column] + both) / math.sqrt(first * second)
                explained[row, column] = min(1.0, max(0.0, (alike - low) / (high - low)))
                loud = max(weights[0, row, column], weights[1, row, column]) > LOUD
                contradicted[row, column] = alike < low and loud
    return explained, contradicted, weights, means, spread, noise, sign


@njit(nogil=True, cache=True)
def noise_of(spread, covered):  # type: ignore[no-untyped-def]
    """Spread of the noise, from the spreads of the covered windows, float32 (rows, columns)."""
    counts = np.zeros(LEVELS, np.int64)
    total = 0
    for row in range(spread.shape[0]):
        for column in range(spread.shape[1]):
            if covered[row, column]:
                counts[min(LEVELS - 1, int(spread[row, column] / LEVEL))] += 1
                total += 1
    rest = STRONG * total
    level = 0
    while level < LEVELS - 1 and rest > counts[level]:
        rest -= counts[level]
        level += 1
    return max(NOISE, RELATIVE_NOISE * LEVEL * (level + 0.5))


@njit(nogil=True, cache=True)
def weighed(spread, noise):  # type: ignore[no-untyped-def]
    """Sum of the weights of windows with these spreads, float32 (rows, columns)."""
    contrast = HALF_WEIGHT * noise / RELATIVE_NOISE
    total = 0.0
    for row in range(spread.shape[0]):
        for column in range(spread.shape[1]):
            excess = max(0.0, spread[row, column] - noise)
            total += excess / (excess + contrast)
    return total


@njit(nogil=True, cache=True)
def normalised(pixels, mean, spread, sign):  # type: ignore[no-untyped-def]
    """A picture less its local mean, in units of its local spread, as uint8 around 128.

    `mean` and `spread` are of windows, and are interpolated.
    """
    rows, columns = mean.shape
    found = np.empty((rows * STRIDE, columns * STRIDE), np.uint8)
    gain = np.float32(40 * sign)
    middles, gains = np.empty(columns + 1, np.float32), np.empty(columns + 1, np.float32)
    for y in range(rows * STRIDE):
        top = max(y - STRIDE // 2, 0) // STRIDE
        below = min(top + 1, rows - 1)
        v = np.float32(min(max((y + 0.5) / STRIDE - 0.5 - top, 0.0), 1.0))
        for column in range(columns):
            middles[column] = mean[top, column] + (mean[below, column] - mean[top, column]) * v
            around = spread[top, column] + (spread[below, column] - spread[top, column]) * v
            gains[column] = gain / (around + np.float32(3))
        middles[columns], gains[columns] = middles[columns - 1], gains[columns - 1]
        for half in range(2 * columns):
            left = max(half - 1, 0) // 2
            middle, more = middles[left], middles[left + 1] - middles[left]
            times, growth = gains[left], gains[left + 1] - gains[left]
            for x in range(half * STRIDE // 2, (half + 1) * STRIDE // 2):
                u = np.float32(max((x + 0.5) / STRIDE - 0.5 - left, 0.0))
                value = (pixels[y, x] - (middle + more * u)) * (times + growth * u)
                found[y, x] = min(np.float32(255), max(np.float32(0), value + np.float32(128)))
    return found


@njit(nogil=True, cache=True)
def trackable(normal, usable, step):  # type: ignore[no-untyped-def]
    """The most salient pixel in each cell of `step` pixels, float32 (n, 2): x, y.

    `normal` is from `normalised`; `usable`, float32 by window, is 0 where nothing may be tracked,
    and larger where there is more to see.
    """
    rows, columns = normal.shape[0] // step, normal.shape[1] // step
    found = np.empty((rows * columns, 2), np.float32)
    count = 0
    for row in range(rows):
        for column in range(columns):
            most = 0.0
            for y in range(row * step, (row + 1) * step):
                for x in range(column * step, (column + 1) * step):
                    salience = usable[y // STRIDE, x // STRIDE] * abs(
                        np.float32(normal[y, x]) - 128
                    )
                    if salience > most:
                        most = salience
                        found[count, 0], found[count, 1] = x, y
            count += most > 0
    return found[:count]


@njit(nogil=True, cache=True)
def _moments(one, other):  # type: ignore[no-untyped-def]
    """Means in blocks of STRIDE by STRIDE pixels of x, x², y, y² and xy: float32 (5, rows,
    columns). Rows and columns beyond whole blocks are left out."""
    rows, columns = one.shape[0] // STRIDE, one.shape[1] // STRIDE
    sums = np.empty((5, rows, columns), np.float32)
    part = np.float32(1 / STRIDE**2)
    for row in range(rows):
        for column in range(columns):
            x = xx = y = yy = xy = np.int32(0)
            for line in range(row * STRIDE, (row + 1) * STRIDE):
                for at in range(column * STRIDE, (column + 1) * STRIDE):
                    first, second = np.int32(one[line, at]), np.int32(other[line, at])
                    x += first
                    y += second
                    xx += first * first
                    yy += second * second
                    xy += first * second
            sums[0, row, column] = x * part
            sums[1, row, column] = xx * part
            sums[2, row, column] = y * part
            sums[3, row, column] = yy * part
            sums[4, row, column] = xy * part
    return sums


@njit(nogil=True, cache=True)
def _spreads(moments, first):  # type: ignore[no-untyped-def]
    mean, spread = _window_means(moments, first), _window_means(moments, first + 1)
    for row in range(mean.shape[0]):
        for column in range(mean.shape[1]):
            variance = spread[row, column] - mean[row, column] ** 2
            spread[row, column] = math.sqrt(max(0.0, variance))
    return mean, spread


@njit(nogil=True, cache=True)
def _window_means(moments, which):  # type: ignore[no-untyped-def]
    """Means of 3 by 3 blocks; blocks at the edge are repeated outside."""
    blocks = moments[which]
    rows, columns = blocks.shape
    lines = np.empty((rows, columns), np.float32)
    found = np.empty((rows, columns), np.float32)
    part = np.float32(1 / 9)
    for row in range(rows):
        above, below = max(row - 1, 0), min(row + 1, rows - 1)
        for column in range(columns):
            total = blocks[above, column] + blocks[row, column] + blocks[below, column]
            lines[row, column] = total * part
        line = lines[row]
        last = columns - 1
        found[row, 0] = line[0] + line[0] + line[min(1, last)]
        found[row, last] = line[last] + line[last] + line[max(0, last - 1)]
        for column in range(1, last):
            found[row, column] = line[column - 1] + line[column] + line[column + 1]
    return found
