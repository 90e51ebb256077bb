"""Numba kernels that describe keypoints: orientations and SIFT histograms (Lowe 2004).

OpenCV visits every pixel of a keypoint's window, which grows with its scale. These kernels resample
the window to a fixed grid that is aligned with the keypoint, so that all weights are constants.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

CELLS = 4
DIRECTIONS = 8
PER_CELL = 4
"""Samples per cell and axis."""
GRID = (CELLS + 1) * PER_CELL
"""Samples per axis: half a cell more on each side, whose gradients still count in part."""
CELL_SIGMAS = 3.0
"""Side of a cell in sigmas of its keypoint."""
CLIPPED = np.float32(0.2)

BINS = 36
"""Bins of the histogram of gradient directions that gives a keypoint its orientations."""
ROUND = 15
"""Samples per axis of the window for orientations."""
ROUND_STEP = 0.6
"""Distance of those samples in sigmas; the window reaches 4.5 sigmas."""
PEAK = np.float32(0.8)
"""Least height of a further orientation, as a share of the highest peak."""


def _places(count: int, step: float) -> npt.NDArray[np.float64]:
    return np.asarray((np.arange(count) - (count - 1) / 2) * step)


def _window(places: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float32]:
    weights = np.exp(-(places**2) / (2 * sigma**2))
    return np.outer(weights, weights).astype(np.float32).ravel()


def _grid(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows and columns of count × count samples and one more all around, from the centre."""
    places = _places(count + 2, 1).astype(np.float32)
    return np.repeat(places, count + 2), np.tile(places, count + 2)


_ALONG = _places(GRID, 1 / PER_CELL) + CELLS / 2 + 0.5
CELL_BEFORE = np.floor(_ALONG).astype(np.int64)
"""Of each sample of a row, the cell before it; cell 0 lies outside."""
CELL_SHARE = (_ALONG - CELL_BEFORE).astype(np.float32)
"""Share of the sample that belongs to the cell after it."""
ROWS, COLUMNS = _grid(GRID)
ROUND_ROWS, ROUND_COLUMNS = _grid(ROUND)
WINDOW = _window(_places(GRID, 1 / PER_CELL), CELLS / 2)
ROUND_WINDOW = _window(_places(ROUND, ROUND_STEP), 1.5)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _gradients(level, width, frame, grid, window, scratch, size, turn):  # type: ignore[no-untyped-def]
    """Write magnitudes and directions (in turns, 0 to 1) of the gradients on a grid.

    `frame` is the centre x, y and the step along a row of the grid, to the right and down; a
    quarter turn clockwise of it is the step from row to row. `grid` are the rows and the columns of
    its samples. Directions are counter-clockwise from the rows. `scratch` is of `_scratch`.
    """
    places, fractions, inside, patch = scratch
    shape = level.shape[0], width, level.shape[1]
    _locate(shape, frame, grid, places, fractions, inside.reshape(-1))
    _interpolate(level.reshape(-1), level.shape[1], places, fractions, patch.reshape(-1))
    count = len(patch) - 2
    for row in range(count):
        line, above, below = patch[row + 1], patch[row], patch[row + 2]
        kept, first = inside[row + 1], row * count
        weights, sizes = window[first : first + count], size[first : first + count]
        turns = turn[first : first + count]
        for column in range(count):
            dx = line[column + 2] - line[column]
            dy = above[column + 1] - below[column + 1]
            sizes[column] = np.sqrt(dx * dx + dy * dy) * weights[column] * kept[column + 1]
            turns[column] = _turn(dx, dy)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _locate(shape, frame, grid, places, fractions, inside):  # type: ignore[no-untyped-def]
    """Write where the samples of a grid lie: the pixel before each, as a place in the level, and
    how far after it.

    `shape` are the height, the width and the stride of the level. `inside` is 0 for samples outside
    of the picture, which are moved to its border. A loop of its own, so that LLVM vectorises it.
    """
    height, width, stride = shape
    x, y, right, down = frame
    rows, columns = grid
    across, along = fractions
    last_x, last_y = np.float32(width - 1), np.float32(height - 1)
    for sample in range(len(places)):
        at_x = x + columns[sample] * right - rows[sample] * down
        at_y = y + columns[sample] * down + rows[sample] * right
        in_x, in_y = min(max(at_x, np.float32(0)), last_x), min(max(at_y, np.float32(0)), last_y)
        inside[sample] = np.float32(at_x == in_x) * np.float32(at_y == in_y)
        column = np.int32(min(in_x, last_x - np.float32(1)))
        row = np.int32(min(in_y, last_y - np.float32(1)))
        across[sample], along[sample] = in_x - np.float32(column), in_y - np.float32(row)
        places[sample] = np.int32(row * np.int32(stride)) + column


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _interpolate(flat, stride, places, fractions, values):  # type: ignore[no-untyped-def]
    """Write bilinear samples of a level, given where they lie."""
    across, along = fractions
    right, below, beyond = flat[1:], flat[stride:], flat[stride + 1 :]
    for sample in range(len(places)):
        place = np.uint64(places[sample])
        upper = flat[place] + across[sample] * (right[place] - flat[place])
        lower = below[place] + across[sample] * (beyond[place] - below[place])
        values[sample] = upper + along[sample] * (lower - upper)


@njit(nogil=True, cache=True)
def _scratch(side):  # type: ignore[no-untyped-def]
    """Arrays for the samples of a window: places, fractions in x and y, whether inside, values."""
    count = side * side
    fractions = np.empty(count, np.float32), np.empty(count, np.float32)
    inside, patch = np.empty((side, side), np.float32), np.empty((side, side), np.float32)
    return np.empty(count, np.int32), fractions, inside, patch


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _turn(x, y):  # type: ignore[no-untyped-def]
    """Direction of (x, y) in turns, 0 to 1, to within 1e-4 (a minimax polynomial)."""
    wide, tall = abs(x), abs(y)
    ratio = min(wide, tall) / (max(wide, tall) + np.float32(1e-20))
    square = ratio * ratio
    part = np.float32(-0.0464964749) * square + np.float32(0.15931422)
    part = (part * square - np.float32(0.327622764)) * square * ratio + ratio
    part *= np.float32(0.5 / np.pi)
    part = np.float32(0.25) - part if tall > wide else part
    part = np.float32(0.5) - part if x < 0 else part
    return np.float32(1) - part if y < 0 else part


@njit(nogil=True, cache=True)
def orient(level, width, frames, angles):  # type: ignore[no-untyped-def]
    """Orientations of keypoints on one level (h, stride) float32.

    `frames` (n, 3) float32 are x, y and sigma in its pixels. Writes each one's angles into `angles`
    (n, 4) float32, degrees in [0, 360), clockwise; -1 where there is none.
    """
    scratch = _scratch(ROUND + 2)
    grid = ROUND_ROWS, ROUND_COLUMNS
    size, turn = np.empty(ROUND * ROUND, np.float32), np.empty(ROUND * ROUND, np.float32)
    raw, smooth = np.empty(BINS, np.float32), np.empty(BINS, np.float32)
    for which in range(len(frames)):
        x, y, sigma = frames[which, 0], frames[which, 1], frames[which, 2]
        frame = x, y, np.float32(ROUND_STEP) * sigma, np.float32(0)
        _gradients(level, width, frame, grid, ROUND_WINDOW, scratch, size, turn)
        raw[:] = 0
        for sample in range(len(size)):
            place = turn[sample] * np.float32(BINS)
            before = int(place)
            share = place - np.float32(before)
            raw[before % BINS] += size[sample] * (np.float32(1) - share)
            raw[(before + 1) % BINS] += size[sample] * share
        _smooth(raw, smooth)
        _peaks(smooth, angles[which])


@njit(nogil=True, cache=True)
def _smooth(raw, smooth):  # type: ignore[no-untyped-def]
    for at in range(BINS):
        near = raw[at - 1] + raw[(at + 1) % BINS]
        far = raw[at - 2] + raw[(at + 2) % BINS]
        smooth[at] = (far + np.float32(4) * near + np.float32(6) * raw[at]) / np.float32(16)


@njit(nogil=True, cache=True)
def _peaks(histogram, angles):  # type: ignore[no-untyped-def]
    """Write the angles of the peaks, at most as many as fit."""
    least = np.float32(0)
    for at in range(BINS):
        least = max(least, PEAK * histogram[at])
    angles[:] = -1
    count = 0
    for at in range(BINS):
        left, value, right = histogram[at - 1], histogram[at], histogram[(at + 1) % BINS]
        if not (value > left and value > right and value >= least and count < len(angles)):
            continue
        peak = at + 0.5 * (left - right) / (left - 2 * value + right)
        angle = np.float32((2 * BINS - peak) % BINS * (360 / BINS))
        angles[count] = angle if angle < 360 else 0
        count += 1


@njit(nogil=True, cache=True)
def describe(level, width, frames, descriptors):  # type: ignore[no-untyped-def]
    """Write SIFT descriptors (n, 128) float32 of unit length, or zeros where all is uniform.

    `frames` (n, 4) float32 are x, y, sigma and angle (degrees, clockwise) on one level (h, stride)
    float32. The values are cells row by row, each with 8 directions.
    """
    scratch = _scratch(GRID + 2)
    grid = ROWS, COLUMNS
    size, turn = np.empty(GRID * GRID, np.float32), np.empty(GRID * GRID, np.float32)
    cells = np.empty((CELLS + 2, (CELLS + 2) * DIRECTIONS), np.float32)
    line = np.empty((CELLS + 2) * DIRECTIONS, np.float32)
    for which in range(len(frames)):
        x, y, sigma = frames[which, 0], frames[which, 1], frames[which, 2]
        angle = frames[which, 3] * np.float32(np.pi / 180)
        step = sigma * np.float32(CELL_SIGMAS / PER_CELL)
        frame = x, y, step * np.cos(angle), step * np.sin(angle)
        _gradients(level, width, frame, grid, WINDOW, scratch, size, turn)
        _collect(size, turn, cells, line)
        _write(cells, descriptors[which])


@njit(nogil=True, cache=True)
def _collect(size, turn, cells, line):  # type: ignore[no-untyped-def]
    """Add each gradient to the two nearest directions of the four nearest cells, by distance.

    `line` is scratch: one row of cells.
    """
    one = np.float32(1)
    cells[:] = 0
    for row in range(GRID):
        line[:] = 0
        for column in range(GRID):
            sample = row * GRID + column
            place = turn[sample] * np.float32(DIRECTIONS)
            direction = int(place)
            share = place - np.float32(direction)
            low = CELL_BEFORE[column] * DIRECTIONS
            after = size[sample] * CELL_SHARE[column]
            before = size[sample] - after
            first, second = direction & 7, (direction + 1) & 7
            line[low + first] += before * (one - share)
            line[low + second] += before * share
            line[low + DIRECTIONS + first] += after * (one - share)
            line[low + DIRECTIONS + second] += after * share
        share = CELL_SHARE[row]
        upper, lower = cells[CELL_BEFORE[row]], cells[CELL_BEFORE[row] + 1]
        for place in range(len(line)):
            upper[place] += line[place] * (one - share)
            lower[place] += line[place] * share


@njit(nogil=True, cache=True)
def _write(cells, descriptor):  # type: ignore[no-untyped-def]
    """Write the inner cells, scaled to unit length, clipped, and scaled again."""
    total = np.float32(0)
    for row in range(CELLS):
        for place in range(CELLS * DIRECTIONS):
            value = cells[row + 1, DIRECTIONS + place]
            descriptor[row * CELLS * DIRECTIONS + place] = value
            total += value * value
    clipped = CLIPPED * np.sqrt(total)
    total = np.float32(0)
    for place in range(len(descriptor)):
        descriptor[place] = min(descriptor[place], clipped)
        total += descriptor[place] * descriptor[place]
    if total > 0:
        factor = np.float32(1) / np.sqrt(total)
        for place in range(len(descriptor)):
            descriptor[place] *= factor
