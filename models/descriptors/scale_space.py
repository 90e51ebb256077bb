"""DoG keypoints and SIFT descriptors from one Gaussian pyramid (Lowe 2004).

The results are close to OpenCV's, at a fraction of its cost: detection and description share the
pyramid, and only selected keypoints get orientations and descriptors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.descriptors.intrinsics import ALIGNMENT
from models.descriptors.scale_space_kernels import BORDER, blur, double, find_extrema
from models.descriptors.selection import Floats, Rows
from models.descriptors.sift_kernels import describe, orient
from models.types import Pixels

LAYERS = 3
"""Levels per octave in which extrema are found; three more enclose them."""
SIGMA = 1.6
"""Blur of an octave's first level, in its pixels."""
CAMERA_SIGMA = 0.5
"""Blur that a picture is assumed to have."""
REACH = 3.0
"""Radius of the blur kernels in sigmas."""
CACHE_LINE = 16
"""Number of float32 values in a line of the processor's cache."""
PIXELS_PER_EXTREMUM = 16
"""No picture has more extrema in an octave than one in so many pixels."""


def _half_kernel(sigma: float) -> Floats:
    places = np.arange(int(np.ceil(REACH * sigma)) + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    return np.asarray(weights / (2 * weights.sum() - 1), np.float32)


def _sigma(level: float) -> float:
    return SIGMA * float(2 ** (level / LAYERS))


FIRST = _half_kernel((SIGMA**2 - (2 * CAMERA_SIGMA) ** 2) ** 0.5)
STEPS = [
    _half_kernel((_sigma(level) ** 2 - _sigma(level - 1) ** 2) ** 0.5)
    for level in range(1, LAYERS + 3)
]


class Octave(NamedTuple):
    levels: Floats
    """Levels (6, height, stride); columns from `width` on hold nothing."""
    width: int

    def fill(self) -> None:
        """Blur level after level."""
        for level, taps in enumerate(STEPS):
            blur(self.levels[level], self.width, taps, self.levels[level + 1])

    def half(self) -> Octave:
        """The next octave, with every second pixel of the level that is blurred twice as much."""
        source = self.levels[LAYERS, ::2, : self.width : 2]
        octave = _octave(*source.shape)
        octave.levels[0, :, : octave.width] = source
        return octave

    def extrema(self) -> Floats:
        """Rows (n, 5) of `find_extrema`."""
        found = np.empty((self.levels[0].size // PIXELS_PER_EXTREMUM, 5), np.float32)
        return found[: find_extrema(self.levels, self.width, found)]


def _octave(height: int, width: int) -> Octave:
    stride = -(-width // ALIGNMENT) * ALIGNMENT
    shape = LAYERS + 3, height, stride
    size = math.prod(shape)
    # From the start of a cache line, because a vector that crosses two is loaded twice.
    room = np.empty(size + CACHE_LINE, np.float32)
    start = -room.ctypes.data % (4 * CACHE_LINE) // 4
    return Octave(room[start : start + size].reshape(shape), width)


def _first(gray: Pixels) -> Octave:
    octave = _octave(2 * gray.shape[0], 2 * gray.shape[1])
    if min(gray.shape) > BORDER:
        # A copy, because numba would compile another kernel for a read-only picture.
        double(np.array(gray), octave.levels[1])
        blur(octave.levels[1], octave.width, FIRST, octave.levels[0])
    return octave


class ScaleSpace:
    """The pyramid of a grey picture (height, width) uint8, and the extrema in it.

    The picture is doubled, so that the finest extrema have a sigma of 0.8 of its pixels.
    """

    def __init__(self, gray: Pixels) -> None:
        self._octaves: list[Octave] = []
        tables = [np.empty((0, 6), np.float32)]
        octave = _first(gray)
        while min(octave.levels.shape[1], octave.width) > 2 * BORDER:
            octave.fill()
            found = octave.extrema()
            number = np.full((len(found), 1), len(self._octaves), np.float32)
            tables.append(np.hstack([found, number]))
            self._octaves.append(octave)
            octave = octave.half()
        table = np.concatenate(tables)
        pixel = 2.0 ** (table[:, 5] - 1)
        self.points = np.asarray(table[:, :2] * pixel[:, None], np.float32)
        """Positions (n, 2) in pixels of the picture."""
        self.sigma = np.asarray(SIGMA * 2 ** (table[:, 2] / LAYERS) * pixel, np.float32)
        """Blur (n,) at which the extrema were found, in pixels of the picture."""
        self.response = table[:, 3]
        """Absolute difference of neighbouring levels (n,), of grey values up to 255."""
        self._level = np.asarray(table[:, 5] * LAYERS + table[:, 4] - 1, np.intp)

    def orient(self, rows: Rows) -> tuple[Rows, Floats]:
        """Orientations of these extrema, which may have several: places in `rows`, and degrees
        clockwise."""
        angles = np.empty((len(rows), 4), np.float32)
        for octave, level, members, frames in self._by_level(rows):
            some = np.empty((len(members), 4), np.float32)
            orient(octave.levels[level], octave.width, frames, some)
            angles[members] = some
        which, place = np.nonzero(angles >= 0)
        return which, angles[which, place]

    def describe(self, rows: Rows, angles: Floats) -> Floats:
        """SIFT descriptors (n, 128) float32 of unit length of these extrema at these angles."""
        descriptors = np.zeros((len(rows), 128), np.float32)
        for octave, level, members, frames in self._by_level(rows):
            some = np.empty((len(members), 128), np.float32)
            turned = np.column_stack([frames, angles[members]])
            describe(octave.levels[level], octave.width, turned, some)
            descriptors[members] = some
        return descriptors

    def _by_level(self, rows: Rows) -> list[tuple[Octave, int, Rows, Floats]]:
        """Octave and level of some of the rows, which of the rows they are, and their frames: x, y
        and sigma in pixels of that octave."""
        groups = []
        levels = self._level[rows]
        for number in np.unique(levels).tolist():
            members = np.flatnonzero(levels == number)
            octave, level = number // LAYERS, number % LAYERS + 1
            frames = np.column_stack([self.points[rows[members]], self.sigma[rows[members]]])
            frames *= np.float32(2.0 ** (1 - octave))
            groups.append((self._octaves[octave], level, members, frames))
        return groups
