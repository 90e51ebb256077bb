"""The spatially even selection: its limits, and that it is greedy by strength."""

from __future__ import annotations

import numpy as np

from models.descriptors.selection import PER_CELL, Floats, Selection, cell_of

SHAPE = (300, 400)


def random_points(count: int, width: float = 400, height: float = 300) -> Floats:
    points = np.random.default_rng(count).uniform(0, 1, (count, 2)) * [width, height]
    return points.astype(np.float32)


def greedy(points: Floats, selection: Selection) -> list[int]:
    """Select the slow way."""
    chosen: list[int] = []
    quadrants, cells = [0] * 4, [0] * 16
    for row, (x, y) in enumerate(points.astype(float)):
        cell = cell_of(points[row : row + 1], SHAPE)[0]
        cells[cell] += 1
        quadrant = 2 * (x >= 200) + (y >= 150)
        near = sum(np.hypot(*(points[other] - [x, y])) < 400 / 60 for other in chosen)
        full = len(chosen) == selection.total or quadrants[quadrant] == selection.per_quadrant
        if cells[cell] <= PER_CELL and near < selection.near and not full:
            chosen.append(row)
            quadrants[quadrant] += 1
    return chosen


def test_the_strongest_that_fit_are_selected() -> None:
    for selection in (Selection(200, 50, 3), Selection(600, 600, 1), Selection(40, 20, 2)):
        for count in (0, 1, 900):
            points = random_points(count)
            assert selection.rows(points, SHAPE).tolist() == greedy(points, selection)


def test_a_crowded_cell_gives_no_more_than_its_strongest() -> None:
    points = random_points(3 * PER_CELL, 100, 75)
    chosen = Selection(600, 600, 600).rows(points, SHAPE)
    assert chosen.tolist() == list(range(PER_CELL))
