"""Exact L1 search over colour histograms: filter by short codes, refine by stored rows.

This is multi-step k-nearest-neighbour search (Seidl and Kriegel, 1998). All rows are scanned by
64-byte codes, candidates are filtered by 512-byte codes, and the remaining ones are read from the
store and compared exactly. The bounds in `indexes.histogram.codes` guarantee that no step loses a
hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import Frozen, Saved
from indexes.arrays.rows import Column, Positions, RowArrays
from indexes.arrays.selection import at_places, best_first, kth_smallest
from indexes.base import Hit, Index, Query, Rows, SearchParams
from indexes.calibration import BackgroundModel, pairs
from indexes.histogram.codes import (
    BINS,
    COARSE_MAX,
    GROUPS,
    SLACK,
    TOTAL,
    Bounds,
    EncodedQuery,
    encode,
    exact_l1,
)
from indexes.histogram.kernels import coarse_l1
from models.errors import InvalidInput
from models.types import Features, Options

Histograms = npt.NDArray[np.float32]

FLOAT = np.dtype(np.float32)
SEEDS = 256
SEEDS_PER_HIT = 4
"""Number of rows, nearest by coarse codes, that give the first bound on the k-th distance."""
FINE_BATCH = 1 << 14
READ_BATCH = 1 << 10
WRITE_BATCH = 1 << 11
COLUMNS = {
    "coarse": Column(np.uint8, GROUPS + 1),
    "fine": Column(np.uint8, BINS),
    "error": Column(np.float32, 1),
}


class Found(NamedTuple):
    image_ids: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    gone: list[int]
    """Ids whose row the store no longer has."""


class HistogramIndex(Index):
    """Index of histograms float32 (512,), bins from 0 to 1e7. It keeps only 580 bytes of codes for
    each.

    A distance is the float64 sum of the float32 values' differences, rounded to float32.
    """

    default_background: ClassVar[BackgroundModel | None] = BackgroundModel(7.3e6, 5.8)

    def __init__(self, options: Options, rows: Rows) -> None:
        super().__init__(options, rows)
        self._rows = RowArrays(COLUMNS)
        self._warm_up()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    @property
    def kind(self) -> str:
        return "l1-pyramid"

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """See Index.apply. Raises InvalidInput, and applies nothing, for a row that is no
        histogram."""
        kept = {key: row for key, row in changes.items() if row is not None}
        gone = [key for key, row in changes.items() if row is None]
        rows = list(kept.values())
        codes = [
            encode(_stack(rows[start : start + WRITE_BATCH]))
            for start in range(0, len(rows), WRITE_BATCH)
        ]
        self._rows.remove(np.array(gone, np.int64))
        image_ids = np.array(list(kept), np.int64)
        for number, batch in enumerate(codes):
            start = number * WRITE_BATCH
            self._rows.put(image_ids[start : start + len(batch.fine)], batch._asdict())

    def maintain(self) -> bool:
        return self._rows.preallocate()

    def freeze(self) -> Frozen:
        return Frozen({}, *self._rows.freeze())

    def restore(self, saved: Saved) -> None:
        self._rows = RowArrays.restored(COLUMNS, saved)

    def image_ids(self) -> npt.NDArray[np.int64]:
        return self._rows.ids.copy()

    def pair_distances(self, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return pairs(sample, "cityblock")

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        variants, allowed = _stack(query.variants), query.allowed
        while True:
            found = [self._find(variant, allowed, params) for variant in variants]
            gone = [key for one in found for key in one.gone]
            if not gone:
                return _merge(found, params.k)
            # The store is ahead of this index: an image that it has removed can't be
            # a hit any more.
            allowed = np.setdiff1d(self._rows.ids if allowed is None else allowed, gone)

    def _find(
        self,
        histogram: Histograms,
        allowed: npt.NDArray[np.int64] | None,
        params: SearchParams,
    ) -> Found:
        positions = None if allowed is None else self._rows.positions(allowed)
        query = EncodedQuery(histogram)
        distances = self._rows.scan("coarse", coarse_l1, query.coarse, positions)
        reach = self._reach(query, distances, positions, params)
        near = at_places(np.flatnonzero(distances <= query.coarse_limit(reach)), positions)
        bounds = self._bounds(query, near)
        reach = _tighten(reach, bounds, params.k)
        left = np.flatnonzero(bounds.lower <= reach * (1 + SLACK))
        left = left[np.argsort(bounds.lower[left], kind="stable")]
        return self._refine(histogram, near[left], bounds.lower[left], params)

    def _reach(
        self,
        query: EncodedQuery,
        distances: npt.NDArray[np.uint16],
        positions: Positions | None,
        params: SearchParams,
    ) -> float:
        """An upper bound on the distance of every hit: the threshold, or a bound from the nearest
        codes."""
        reach = np.inf if params.distance_threshold is None else params.distance_threshold
        if params.k is None or len(distances) < params.k:
            return reach
        wanted = SEEDS + SEEDS_PER_HIT * params.k
        seeds = np.flatnonzero(distances <= kth_smallest(distances, wanted, COARSE_MAX))
        return _tighten(reach, self._bounds(query, at_places(seeds[:wanted], positions)), params.k)

    def _bounds(self, query: EncodedQuery, positions: Positions) -> Bounds:
        parts = [
            query.bounds(self._rows.take("fine", batch), self._rows.take("error", batch))
            for batch in _batches(positions, FINE_BATCH)
        ]
        return Bounds(*(np.concatenate(side) for side in zip(*parts, strict=True)))

    def _refine(
        self,
        histogram: Histograms,
        positions: Positions,
        lower: npt.NDArray[np.float64],
        params: SearchParams,
    ) -> Found:
        """Re-rank candidates by their stored rows, by ascending lower bound, until no other can be
        a hit."""
        found = Found(np.empty(0, np.int64), np.empty(0, np.float32), [])
        start = 0
        while start < len(positions):
            full = params.k is not None and len(found.image_ids) >= params.k
            if full and lower[start] > found.distances[-1] * (1 + SLACK):
                break
            read = self._read(histogram, self._rows.ids[positions[start : start + READ_BATCH]])
            found = _nearest([found, read], params)
            start += READ_BATCH
        return found

    def _read(self, histogram: Histograms, image_ids: npt.NDArray[np.int64]) -> Found:
        rows = self.rows(image_ids.tolist())
        here = [key for key in image_ids.tolist() if key in rows]
        stored = np.array([rows[key] for key in here], np.float32).reshape(-1, BINS)
        gone = [key for key in image_ids.tolist() if key not in rows]
        return Found(np.array(here, np.int64), exact_l1(stored, histogram), gone)

    def _warm_up(self) -> None:
        """Compile all kernels, or load them from the cache, before the first query."""
        blank = np.zeros(BINS, np.float32)
        self.apply({0: blank})
        self._reach(
            EncodedQuery(blank),
            self._rows.scan("coarse", coarse_l1, EncodedQuery(blank).coarse, None),
            self._rows.positions(np.zeros(1, np.int64)),
            self.Params.parse({"k": 1}),
        )
        self.apply({0: None})


def _stack(rows: Sequence[Features]) -> Histograms:
    """Histograms, each float32 (512,), as one array (n, 512). Raises InvalidInput."""
    for kind in {(row.shape, row.dtype) for row in rows} - {((BINS,), FLOAT)}:
        raise InvalidInput(f"a histogram is float32 ({BINS},), not {kind[1]} {kind[0]}")
    stacked = np.concatenate(rows).reshape(-1, BINS)
    # Not `min < 0`, which is False for NaN.
    if not (stacked.min() >= 0 and stacked.max() <= TOTAL * 1.001):
        raise InvalidInput(f"a histogram's bins are from 0 to {TOTAL:g}")
    return stacked


def _batches(positions: Positions, size: int) -> list[Positions]:
    """At least one part, so that an empty result still has arrays to join."""
    return [positions[start : start + size] for start in range(0, max(1, len(positions)), size)]


def _tighten(reach: float, bounds: Bounds, k: int | None) -> float:
    """The k-th smallest upper bound where it is below `reach`: at least k rows are that near."""
    if k is None or len(bounds.upper) < k:
        return reach
    return min(reach, float(np.partition(bounds.upper, k - 1)[k - 1]))


def _nearest(parts: Sequence[Found], params: SearchParams) -> Found:
    """The hits of all parts, best first."""
    image_ids = np.concatenate([part.image_ids for part in parts])
    distances = np.concatenate([part.distances for part in parts])
    if params.distance_threshold is not None:
        inside = distances < params.distance_threshold
        image_ids, distances = image_ids[inside], distances[inside]
    order = best_first(distances, image_ids, params.k)
    gone = [key for part in parts for key in part.gone]
    return Found(image_ids[order], distances[order], gone)


def _merge(found: Sequence[Found], k: int | None) -> list[Hit]:
    """Each image once, with its nearest variant. No histogram tells of a mirror image."""
    best: dict[int, float] = {}
    for one in found:
        for key, distance in zip(one.image_ids.tolist(), one.distances.tolist(), strict=True):
            best[key] = min(best.get(key, np.inf), distance)
    order = best if len(found) == 1 else sorted(best, key=lambda key: (best[key], key))[:k]
    return [Hit(key, distance=best[key]) for key in order]


INDEX = HistogramIndex
