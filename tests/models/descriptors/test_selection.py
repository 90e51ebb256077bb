"""The spatially even selection: its limits, its order, and that every part has its share."""

from __future__ import annotations

import numpy as np

from models.descriptors.selection import CELLS, PER_CELL, Floats, Selection, cell_of

SHAPE = (300, 400)


def random_points(count: int, width: float = 400, height: float = 300) -> Floats:
    points = np.random.default_rng(count).uniform(0, 1, (count, 2)) * [width, height]
    return points.astype(np.float32)


def in_turns(points: Floats, selection: Selection) -> list[int]:
    """Select the slow way."""
    queues: dict[int, list[int]] = {}
    for row in range(len(points)):
        queues.setdefault(int(cell_of(points[row : row + 1], SHAPE)[0]), []).append(row)
    chosen: list[int] = []

    def near(row: int) -> int:
        return sum(np.hypot(*(points[other] - points[row])) < 400 / 60 for other in chosen)

    for allowed in range(selection.near):
        waiting = {cell: queue[:PER_CELL] for cell, queue in queues.items()}
        while any(waiting.values()):
            for queue in waiting.values():
                while queue:
                    row = queue.pop(0)
                    if row not in chosen and near(row) <= allowed:
                        chosen.append(row)
                        break
    return chosen[: selection.total]


def test_cells_take_turns_and_give_their_strongest_that_fit() -> None:
    for selection in (Selection(200, 3), Selection(600, 1), Selection(40, 2)):
        for count in (0, 1, 900):
            points = random_points(count)
            assert selection.rows(points, SHAPE).tolist() == in_turns(points, selection)


def test_strong_points_in_one_corner_leave_every_other_part_its_share() -> None:
    corner, everywhere = random_points(3000, 200, 150), random_points(3001)
    points = np.vstack([corner, everywhere])
    cells = cell_of(points[Selection(256, 3).rows(points, SHAPE)], SHAPE)
    assert np.bincount(cells, minlength=CELLS**2).min() >= 256 // CELLS**2 - 1


def test_points_near_each_other_fill_up_what_others_leave() -> None:
    places = random_points(20)
    points = np.repeat(places, 3, axis=0) + np.float32([0.0, 0.1])
    chosen = Selection(50, 2).rows(points, SHAPE)
    assert len(chosen) == 40
    assert len(np.unique(points[chosen[:20]], axis=0)) == 20


def test_a_crowded_cell_gives_no_more_than_its_strongest() -> None:
    points = random_points(3 * PER_CELL, 400 / CELLS, 300 / CELLS)
    chosen = Selection(600, 600).rows(points, SHAPE)
    assert sorted(chosen.tolist()) == list(range(PER_CELL))
