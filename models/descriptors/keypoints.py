"""DoG keypoints, found and selected at a bounded resolution."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from models.descriptors.scale_space import ScaleSpace
from models.descriptors.selection import Floats, Rows, Selection
from models.types import Pixels


class Keypoints(NamedTuple):
    """Parallel arrays of n keypoints, in the order of `Selection`."""

    points: Floats
    """Positions (n, 2) float32: x, y in pixels of the picture as given, before any resize."""
    scale: Floats
    """Scales (n,) float32: diameter in pixels."""
    angle: Floats
    """Angles (n,) float32: degrees in [0, 360), clockwise, with y pointing down."""


class Sift:
    """The selected SIFT keypoints (Lowe 2004) of a grey picture (height, width) uint8.

    Weak ones count too. A long side outside `sides` is first resized into it. SIFT itself doubles
    the picture, so a large picture gains little from its full resolution, while a thumbnail gains
    much from enlargement. An extremum that is selected may have several orientations; as a keypoint
    each, they are selected once more.
    """

    def __init__(self, gray: Pixels, sides: tuple[int, int], selection: Selection) -> None:
        self.gray, factor = resized(gray, sides)
        self._space = space = ScaleSpace(self.gray)
        points = (space.points + np.float32(0.5)) / np.float32(factor) - np.float32(0.5)
        # In natural pictures the response falls with scale. Coarse keypoints survive in
        # thumbnails and fine ones in crops; the square root balances the two.
        order = np.argsort(-space.response * np.sqrt(space.sigma), kind="stable")
        order = _distinct(order, np.column_stack([space.points, space.sigma]))
        chosen = order[selection.rows(points[order], gray.shape)]
        which, angle = space.orient(chosen)
        kept = selection.rows(points[chosen[which]], gray.shape)
        self._rows, angle = chosen[which[kept]], angle[kept]
        scale = 2 * space.sigma[self._rows] / np.float32(factor)
        self.keypoints = Keypoints(points[self._rows], scale, angle)

    def frames(self) -> Floats:
        """Frames (n, 4) float32 of the keypoints: x, y, diameter and angle in `gray`."""
        space, rows = self._space, self._rows
        columns = space.points[rows], 2 * space.sigma[rows], self.keypoints.angle
        return np.column_stack(columns)

    def describe(self) -> Floats:
        """SIFT descriptors (n, 128) float32 of the keypoints, of unit length."""
        return self._space.describe(self._rows, self.keypoints.angle)


def _distinct(order: Rows, extrema: Floats) -> Rows:
    """The order without extrema that equal the one before: found from two samples, they are as
    strong."""
    same = (np.diff(extrema[order], axis=0) == 0).all(axis=1)
    return np.concatenate([order[:1], order[1:][~same]])


def compile_kernels() -> None:
    """Run every kernel once, so that no picture waits for the compiler."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Sift(noise, (64, 64), Selection(8, 3)).describe()


def resized(gray: Pixels, sides: tuple[int, int]) -> tuple[Pixels, float]:
    """The picture resized so that its long side is within `sides`, and the scale factor."""
    long_side = max(gray.shape)
    factor = min(max(long_side, sides[0]), sides[1]) / long_side
    if factor == 1:
        return np.ascontiguousarray(gray), 1.0
    size = [max(1, round(side * factor)) for side in gray.shape[::-1]]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(gray, size, interpolation=how), np.uint8), factor
