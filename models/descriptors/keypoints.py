"""DoG keypoints: detection at a bounded resolution, and a spatially even selection."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.types import Pixels

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

CELLS = 4
"""Cells per side: a picture has 4×4 cells."""
PER_CELL = 100
"""Number of strongest keypoints that are considered in each cell; weaker ones are noise."""


class Keypoints(NamedTuple):
    """Parallel arrays of n keypoints, strongest first."""

    points: Floats
    """Positions (n, 2) float32: x, y in pixels of the picture as given, before any resize."""
    scale: Floats
    """Scales (n,) float32: diameter in pixels."""
    angle: Floats
    """Angles (n,) float32: degrees in [0, 360), clockwise, with y pointing down."""
    strength: Floats
    """Strengths (n,) float32: DoG response times the square root of the scale."""


class Sift:
    """SIFT keypoints (Lowe 2004) of a grey picture (height, width) uint8, including all weak ones.

    A long side outside `sides` is first resized into it. SIFT itself doubles the picture, so a
    large picture gains little from its full resolution, while a thumbnail gains much from
    enlargement. Descriptors are the larger part of the work, so only the selected keypoints get
    one.
    """

    def __init__(self, gray: Pixels, sides: tuple[int, int]) -> None:
        self.gray, factor = resized(gray, sides)
        self._sift = cv2.SIFT_create(  # type: ignore[attr-defined]
            contrastThreshold=-1.0, enable_precise_upscale=True
        )
        found = self._sift.detect(self.gray, None)
        rows = [(*point.pt, point.size, point.angle, point.response) for point in found]
        table = np.array(rows, np.float32).reshape(-1, 5)
        # In natural pictures the response falls with scale. Coarse keypoints survive in
        # thumbnails and fine ones in crops; the square root balances the two.
        strength = table[:, 4] * np.sqrt(table[:, 2])
        points = (table[:, :2] + 0.5) / factor - 0.5
        order = np.lexsort((points[:, 1], points[:, 0], -strength))
        self._frames = table[order, :4]
        columns = (points, table[:, 2] / factor, table[:, 3] % 360, strength)
        self.keypoints = Keypoints(*(column[order] for column in columns))
        self._found = [found[row] for row in order]

    def frames(self, chosen: Rows) -> Floats:
        """Frames (n, 4) float32 of these rows of `keypoints`: x, y, diameter and angle in
        `gray`."""
        return np.asarray(self._frames[chosen], np.float32)

    def describe(self, chosen: Rows) -> Floats:
        """SIFT descriptors (n, 128) float32, not normalised, of these rows of `keypoints`."""
        if not len(chosen):
            return np.empty((0, 128), np.float32)
        wanted = [self._found[row] for row in chosen]
        _, descriptors = self._sift.compute(self.gray, wanted)
        return np.asarray(descriptors, np.float32)


def resized(gray: Pixels, sides: tuple[int, int]) -> tuple[Pixels, float]:
    """The picture resized so that its long side is within `sides`, and the scale factor."""
    long_side = max(gray.shape)
    factor = min(max(long_side, sides[0]), sides[1]) / long_side
    if factor == 1:
        return np.ascontiguousarray(gray), 1.0
    size = [max(1, round(side * factor)) for side in gray.shape[::-1]]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(gray, size, interpolation=how), np.uint8), factor


def rank_in_cell(points: Floats, shape: tuple[int, ...]) -> Rows:
    """For each of the points (n, 2), the number (n,) of stronger points in its cell of the
    picture."""
    size = np.array(shape[1::-1], np.float32)
    column, row = np.clip(points * CELLS // size, 0, CELLS - 1).astype(np.intp).T
    cell = row * CELLS + column
    rank = np.empty(len(cell), np.intp)
    for number in range(CELLS * CELLS):
        members = np.flatnonzero(cell == number)
        rank[members] = np.arange(len(members))
    return rank


def spread(
    points: Floats, shape: tuple[int, ...], total: int, per_quadrant: int, near: int
) -> Rows:
    """Rows of the strongest `total` of (n, 2) points, strongest first, spread over the picture.

    At most `per_quadrant` rows lie in each quadrant of a picture of this (height, width). A point
    is skipped when `near` stronger selected points lie within a sixtieth of the long side.
    """
    candidates = np.flatnonzero(rank_in_cell(points, shape) < PER_CELL)
    right = points[:, 0] >= shape[1] / 2
    quadrant = (right * 2 + (points[:, 1] >= shape[0] / 2)).tolist()
    room = [per_quadrant] * 4
    radius2 = (max(shape) / 60) ** 2
    kept = np.empty((total, 2), np.float32)
    chosen: list[int] = []
    for row in candidates.tolist():
        if not room[quadrant[row]]:
            continue
        offsets = kept[: len(chosen)] - points[row]
        if np.count_nonzero(np.einsum("ij,ij->i", offsets, offsets) < radius2) >= near:
            continue
        kept[len(chosen)] = points[row]
        chosen.append(row)
        room[quadrant[row]] -= 1
        if len(chosen) == total:
            break
    return np.array(chosen, np.intp)
