"""A spatially even selection of a picture's strongest keypoints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

CELLS = 4
"""Cells per side: a picture has 4×4 cells."""
PER_CELL = 100
"""Number of strongest keypoints that are considered in each cell; weaker ones are noise."""


class Selection(NamedTuple):
    """How many keypoints are selected, and how far apart."""

    total: int
    per_quadrant: int
    """Maximum number in each quadrant of the picture."""
    near: int
    """Maximum number within a sixtieth of the long side."""

    def rows(self, points: Floats, shape: tuple[int, ...]) -> Rows:
        """Rows of the selected ones of (n, 2) points, strongest first, of a picture of (height,
        width).

        `points` are strongest first. A point is skipped when its cell has PER_CELL stronger ones,
        its quadrant is full, or `near` stronger selected points are near.
        """
        chosen = np.empty(self.total, np.intp)
        centre, radius = np.array(shape[1::-1], np.float32) / 2, np.float32(max(shape) / 60)
        cells = cell_of(points, shape)
        limits = self.per_quadrant, self.near
        return chosen[: _spread(points, cells, centre, radius * radius, limits, chosen)]


def cell_of(points: Floats, shape: tuple[int, ...]) -> Rows:
    """Cells (n,) of points (n, 2), numbered row by row."""
    size = np.array(shape[1::-1], np.float32)
    column, row = np.clip(points * CELLS // size, 0, CELLS - 1).astype(np.intp).T
    return np.asarray(row * CELLS + column, np.intp)


def rank_in_cell(points: Floats, shape: tuple[int, ...]) -> Rows:
    """For each of the points (n, 2), the number (n,) of stronger points in its cell of the
    picture."""
    cell = cell_of(points, shape)
    rank = np.empty(len(cell), np.intp)
    for number in range(CELLS * CELLS):
        members = np.flatnonzero(cell == number)
        rank[members] = np.arange(len(members))
    return rank


@njit(nogil=True, cache=True)
def _spread(points, cells, centre, radius2, limits, chosen):  # type: ignore[no-untyped-def]
    """Write the rows of selected points into `chosen` (total,). Returns their number.

    `limits` are the maximum numbers in a quadrant and within the radius. The kernel runs on one
    core and releases the GIL.
    """
    per_quadrant, near = limits
    seen, taken = np.zeros(CELLS * CELLS, np.int64), np.zeros(4, np.int64)
    kept = np.empty((2, len(chosen)), np.float32)
    count = 0
    for row in range(len(points)):
        x, y = points[row, 0], points[row, 1]
        quadrant = 2 * (x >= centre[0]) + (y >= centre[1])
        seen[cells[row]] += 1
        if count == len(chosen) or seen[cells[row]] > PER_CELL or taken[quadrant] == per_quadrant:
            continue
        neighbours = 0
        for place in range(count):
            across, down = kept[0, place] - x, kept[1, place] - y
            neighbours += across * across + down * down < radius2
        if neighbours >= near:
            continue
        kept[0, count], kept[1, count] = x, y
        chosen[count] = row
        taken[quadrant] += 1
        count += 1
    return count
