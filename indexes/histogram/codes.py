"""Short codes of colour histograms, with bounds on the L1 distance that hold without exception.

Two levels stand between a scan and the exact rows, both from the triangle inequality:

coarse   64 bytes. Merging bins never lengthens an L1 distance (of the sums of parts, only less is
         left), nor does cutting at a ceiling. 63 merged bins are stored in steps of 0.2 % of a
         histogram's sum; how far the steps are off is summed, rounded up, and is the last byte.
fine     512 bytes. Each bin b of a histogram is stored as the cube root of its share, so small bins
         keep their precision: b is about UNIT c^3. The error sum of |b - UNIT c^3| is kept beside.

For a query q, a row x and their decodings q', x': |L1(q, x) - L1(q', x')| <= L1(q, q') + L1(x, x').
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexes.histogram.kernels import ROOT_BITS, code_roots, cubic_l1

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

BINS = 512
TOTAL = 1e7
UNIT = TOTAL / 255**3
STEP = 0.5 * TOTAL / 255
GROUPS = 63
COARSE_MAX = (GROUPS + 1) * 255
SLACK = 1e-4
"""Bound above (BINS + 1) 2^-24, the relative error of a float32 sum of BINS terms in any order."""


def _groups() -> npt.NDArray[np.intp]:
    """The merged bin of each of the 8x8x8 bins, 58 in all (5 more stay empty).

    The merged bins are 8 levels of r + g + b, times 4 levels of r - b, times whether green stands
    out. Colours of photographs lie along the grey axis and spread most between warm and cool. This
    partition keeps 0.98 of an L1 distance between photographs (median; 0.94 in the lower quartile),
    where 64 cubes of 2x2x2 bins keep 0.83 (0.74). Of a million rows hundreds remain as candidates,
    where cubes leave tens of thousands.
    """
    red, green, blue = np.unravel_index(np.arange(BINS), (8, 8, 8))
    level = (red + green + blue) * 8 // 22
    warmth = np.clip(red - blue, -1, 2)
    greenish = 2 * green > red + blue
    return np.unique(level * 16 + warmth * 2 + greenish, return_inverse=True)[1]


def _roots() -> Bytes:
    """The code of a positive float32 by its leading bits; the dropped bits count as their middle
    value."""
    middles = (np.arange(0x7F800000 >> ROOT_BITS, dtype=np.uint32) << ROOT_BITS) + (
        1 << (ROOT_BITS - 1)
    )
    values = middles.astype(np.uint32).view(np.float32).astype(np.float64)
    return np.rint(np.cbrt(values / UNIT)).clip(0, 255).astype(np.uint8)


GROUP = _groups()
"""(512,): the merged bin of each bin."""
MERGE = (GROUP[:, None] == np.arange(GROUPS)).astype(np.float64)
"""Matrix (512, 63): a histogram times this matrix is its merged bins."""


ROOTS = _roots()


class Codes(NamedTuple):
    coarse: Bytes
    """Coarse codes (n, 64): 63 merged bins and their error, in steps."""
    fine: Bytes
    """Fine codes (n, 512): cube roots of the bins."""
    error: npt.NDArray[np.float32]
    """Errors (n, 1): upper bound of the L1 distance between a histogram and its fine code."""


class Bounds(NamedTuple):
    """Bounds of each row's exact distance: lower <= L1 <= upper, both float64 (n,)."""

    lower: Floats
    upper: Floats


def encode(histograms: npt.NDArray[np.float32]) -> Codes:
    """Codes of histograms, float32 (n, 512) and finite."""
    merged = np.empty((len(histograms), GROUPS))
    fine = np.empty(histograms.shape, np.uint8)
    error = np.empty((len(histograms), 1))
    code_roots(np.ascontiguousarray(histograms), ROOTS, UNIT, GROUP, merged, fine, error)
    steps, coarse_error = _steps(merged)
    rounded = np.nextafter(error.astype(np.float32), np.float32(np.inf))
    return Codes(np.concatenate([steps, coarse_error[:, None]], axis=1), fine, rounded)


class EncodedQuery:
    """A query histogram, float32 (512,), encoded for both levels."""

    def __init__(self, histogram: npt.NDArray[np.float32]) -> None:
        exact = histogram.astype(np.float64)
        steps, error = _coarse(exact[None])
        # A row's last byte e then adds 255 - e, so the scan subtracts the row's error by
        # itself.
        self.coarse = np.append(steps[0], np.uint8(255))
        self._offset = 255 + int(error[0])
        self._fine = (exact / UNIT).astype(np.float32)
        self._error = float(np.abs(exact / UNIT - self._fine).sum()) * UNIT

    def coarse_limit(self, distance: float) -> int:
        """Coarse distance above which a row is farther than `distance` (exact L1)."""
        return int(min(distance / STEP * (1 + SLACK), 65535)) + self._offset

    def bounds(self, fine: Bytes, error: npt.NDArray[np.float32]) -> Bounds:
        """Bounds from fine codes (m, 512) and their errors (m, 1)."""
        decoded = np.empty(len(fine), np.float32)
        cubic_l1(fine, self._fine, decoded)
        distance = decoded.astype(np.float64) * UNIT
        both = error[:, 0].astype(np.float64) + self._error
        return Bounds(distance * (1 - SLACK) - both, distance * (1 + SLACK) + both)


def exact_l1(
    histograms: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """L1 distances of float32 rows (n, 512) to a query (512,): summed in float64, rounded to
    float32 once."""
    gaps: Floats = np.abs(histograms.astype(np.float64) - query.astype(np.float64))
    distances: npt.NDArray[np.float32] = gaps.sum(axis=1).astype(np.float32)
    return distances


def _coarse(exact: Floats) -> tuple[Bytes, Bytes]:
    """Merged bins in steps, uint8 (n, 63), and their error in steps, rounded up, uint8 (n,)."""
    return _steps(exact @ MERGE)


def _steps(sums: Floats) -> tuple[Bytes, Bytes]:
    merged = np.clip(sums / STEP, 0, 255)
    steps = np.rint(merged)
    error = np.abs(merged - steps).sum(axis=1)
    return steps.astype(np.uint8), np.ceil(error + 1e-6).astype(np.uint8)
