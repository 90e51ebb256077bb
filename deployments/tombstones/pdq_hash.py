"""The PDQ hash of a picture: 256 bits, which services that moderate pictures exchange.

The method is that of Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing
Algorithm", 2019.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import Pixels

Floats = npt.NDArray[np.float32]

GRID, SIDE = 64, 16
"""Sides of the reduced picture and of its part of the cosine transform."""
PASSES = 2
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def pdq_hashes(rgb: Pixels) -> tuple[npt.NDArray[np.uint8], int]:
    """The hashes (8, 32) of a picture (height, width, 3), first as it is, then turned and mirrored,
    and its quality from 0 to 100: how much content it has."""
    luma = np.asarray(rgb, np.float32) @ LUMA
    for _ in range(PASSES):
        luma = _box_filtered(_box_filtered(luma, 1), 0)
    rows, columns = (((np.arange(GRID) + 0.5) * side / GRID).astype(int) for side in luma.shape)
    small = luma[np.ix_(rows, columns)]
    turned = [np.rot90(one, turns) for one in (small, small.T) for turns in range(4)]
    return np.stack([_bits(one) for one in turned]), _quality(small)


def _box_filtered(luma: Floats, axis: int) -> Floats:
    """The moving mean along an axis, over a 128th of it; at the ends, of what is there."""
    length = luma.shape[axis]
    window = -(-length // (2 * GRID))
    begin: npt.NDArray[Any] = np.zeros_like(luma.take([0], axis), np.float64)
    sums = np.concatenate([begin, luma.astype(np.float64).cumsum(axis)], axis)
    last = np.arange(length) + (window + 2) // 2
    ends, starts = np.minimum(last, length), np.maximum(last - window, 0)
    counts = (ends - starts).reshape((-1, 1) if axis == 0 else (1, -1))
    means = (sums.take(ends, axis) - sums.take(starts, axis)) / counts
    return np.asarray(means, np.float32)


def _quality(small: Floats) -> int:
    steps = [np.trunc(np.diff(small, axis=axis) * 100 / 255) for axis in (0, 1)]
    return min(100, int(sum(float(np.abs(one).sum()) for one in steps) // 90))


def _bits(small: Floats) -> npt.NDArray[np.uint8]:
    transformed = _basis() @ small @ _basis().T
    bits = transformed > np.median(transformed)
    # The first bit is the last one of the written hash.
    return np.packbits(bits.ravel()[::-1])


@cache
def _basis() -> Floats:
    """Rows 1 to SIDE of the cosine transform of GRID values (SIDE, GRID)."""
    rows, columns = np.arange(1, SIDE + 1)[:, None], np.arange(GRID)
    waves = np.cos(np.pi / (2 * GRID) * rows * (2 * columns + 1))
    return np.asarray(np.sqrt(2 / GRID) * waves, np.float32)
