"""A spatially even selection of a picture's strongest keypoints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

CELLS = 8
"""Cells per side: a picture has 8×8 cells."""
PER_CELL = 32
"""Number of strongest keypoints that are considered in each cell; weaker ones are noise."""


class Selection(NamedTuple):
    """How many keypoints are selected, and how close together."""

    total: int
    near: int
    """Maximum number within a sixtieth of the long side."""

    def rows(self, points: Floats, shape: tuple[int, ...]) -> Rows:
        """Rows (m,) of the selected ones of points (n, 2), given strongest first, of a picture of
        (height, width).

        The cells take turns, so that every part of the picture can be found by itself; each gives
        its strongest point that has no selected one near. Only when none is left do points count
        that have one near, then those that have two, up to `near`. The rows are in this order, so
        that the first few, too, represent every part.
        """
        chosen = np.empty(self.total, np.intp)
        radius = np.float32(max(shape) / 60)
        cells = cell_of(points, shape)
        return chosen[: _spread(points, cells, radius * radius, self.near, chosen)]


def cell_of(points: Floats, shape: tuple[int, ...]) -> Rows:
    """Cells (n,) of points (n, 2), numbered row by row."""
    size = np.array(shape[1::-1], np.float32)
    column, row = np.clip(points * CELLS // size, 0, CELLS - 1).astype(np.intp).T
    return np.asarray(row * CELLS + column, np.intp)


@njit(nogil=True, cache=True)
def _spread(points, cells, radius2, near, chosen):  # type: ignore[no-untyped-def]
    """Write the rows of selected points into `chosen` (total,). Returns their number.

    The kernel runs on one core and releases the GIL.
    """
    members, sizes, turns = _by_cell(cells)
    kept = np.empty((2, len(chosen)), np.float32)
    count = 0
    for allowed in range(near):
        tried = np.zeros(len(sizes), np.int64)
        found = True
        while found and count < len(chosen):
            found = False
            for cell in turns:
                while tried[cell] < sizes[cell] and count < len(chosen):
                    place = tried[cell]
                    tried[cell] += 1
                    row = members[cell, place]
                    if row >= 0 and _neighbours(points[row], kept[:, :count], radius2) <= allowed:
                        kept[0, count], kept[1, count] = points[row, 0], points[row, 1]
                        chosen[count] = row
                        count += 1
                        members[cell, place] = -1
                        found = True
                        break
    return count


@njit(nogil=True, cache=True)
def _by_cell(cells):  # type: ignore[no-untyped-def]
    """The first PER_CELL rows of each cell, their numbers, and the cells in the order of their
    first rows."""
    members = np.empty((CELLS * CELLS, PER_CELL), np.int64)
    sizes = np.zeros(CELLS * CELLS, np.int64)
    turns = np.empty(CELLS * CELLS, np.int64)
    used = 0
    for row in range(len(cells)):
        cell = cells[row]
        if sizes[cell] == 0:
            turns[used] = cell
            used += 1
        if sizes[cell] < PER_CELL:
            members[cell, sizes[cell]] = row
            sizes[cell] += 1
    return members, sizes, turns[:used]


@njit(nogil=True, cache=True)
def _neighbours(point, others, radius2):  # type: ignore[no-untyped-def]
    """Number of the others (2, n) within the radius."""
    count = 0
    for other in range(others.shape[1]):
        across, down = others[0, other] - point[0], others[1, other] - point[1]
        count += across * across + down * down < radius2
    return count
