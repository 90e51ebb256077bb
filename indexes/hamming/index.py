"""Exact Hamming search over binary codes: a scan of all rows at memory bandwidth.

Where only near rows count, a third of each code (its head) is compared first. A row whose head
exceeds the limit exceeds it as a whole, and heads are read in a third of the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from indexes.arrays.frozen import Frozen, Saved
from indexes.arrays.rows import Column, Positions, RowArrays
from indexes.arrays.selection import at_places, best_first, kth_smallest
from indexes.base import DistanceParams, Hit, Index, Query, Rows, SearchParams
from indexes.calibration import BackgroundModel, pairs
from indexes.hamming.kernels import hamming_kernel, masked_hamming_kernel
from models.errors import InvalidInput
from models.types import Features, Options

Words = npt.NDArray[np.uint64]


HEAD_STEP = 3
"""The head of a code is every third word of it."""
NEAR = 1 / 6
"""Heads are used up to this share of all bits (96 of 576), where few heads pass."""
LEAST_BITS = 24
"""Number of meaningful bits below which a query's hash finds nothing."""
TOGETHER = (8, 2, 1)
"""Numbers of variants that are compared in one pass: all flips and rotations, a mirror image,
one."""


class BinaryIndex(Index):
    """Flat index of codes with a fixed number of bits, uint8 (bits / 8,) each."""

    class Params(DistanceParams):
        negatives: bool = Field(
            False, description="Also find negatives, whose hashes are the complement."
        )

    class Config(Options):
        bits: int = Field(576, ge=64, le=8192, multiple_of=64, description="Length of a code.")

    verifying = True
    fused: ClassVar[Mapping[str, Any]] = {
        "k": 200,
        "distance_threshold": 64,
        "negatives": True,
    }
    """Default threshold of copies: fewer than 64 of 576 bits differ."""

    default_background: ClassVar[BackgroundModel | None] = BackgroundModel(260.0, 45.0)

    state_version = 2
    options: Config

    def __init__(self, options: Config, rows: Rows) -> None:
        super().__init__(options, rows)
        self._words = options.bits // 64
        self._head = slice(None, None, HEAD_STEP)
        heads = len(range(self._words)[self._head])
        self._columns = {
            "code": Column(np.uint64, self._words),
            "head": Column(np.uint64, heads),
        }
        self._rows = RowArrays(self._columns)
        self._warm_up()
        # Of photographs in general: 1 % of the pairs agree in 55 % of the bits.
        self.background = BackgroundModel(0.45 * options.bits, 45.0)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    @property
    def kind(self) -> str:
        return "binary-flat"

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """See Index.apply. Raises InvalidInput, and applies nothing, for a code of the wrong
        shape."""
        kept = {key: code for key, code in changes.items() if code is not None}
        codes = self._stack(list(kept.values()))
        gone = [key for key, code in changes.items() if code is None]
        self._rows.remove(np.array(gone, np.int64))
        rows = {"code": codes, "head": codes[:, self._head]}
        self._rows.put(np.array(list(kept), np.int64), rows)

    def maintain(self) -> bool:
        return self._rows.preallocate()

    def freeze(self) -> Frozen:
        return Frozen({}, *self._rows.freeze())

    def restore(self, saved: Saved) -> None:
        self._rows = RowArrays.restored(self._columns, saved)

    def image_ids(self) -> npt.NDArray[np.int64]:
        return self._rows.ids.copy()

    def pair_distances(self, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return pairs(np.unpackbits(sample, axis=1), "hamming") * self.options.bits

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        variants, masks = self._variants(query)
        if isinstance(params, self.Params) and params.negatives:
            variants = np.concatenate([variants, ~variants])
            masks = masks if masks is None else np.concatenate([masks, masks])
        positions = None if query.allowed is None else self._rows.positions(query.allowed)
        if masks is not None:
            if min(int(np.bitwise_count(mask).sum()) for mask in masks) < LEAST_BITS:
                return []
            distances = self._masked_distances(variants, masks, positions)
        else:
            if params.distance_threshold is not None:
                limit = math.ceil(params.distance_threshold) - 1
                if limit <= self.options.bits * NEAR:
                    positions = self._possible(variants, positions, limit)
            distances = self._distances("code", variants, positions)
        near = np.flatnonzero(distances <= self._limit(distances, params))
        where = at_places(near, positions)
        order = best_first(distances[near], self._rows.ids[where], params.k)
        mirrors = len(query.variants) > 1
        return self._hits(where[order], distances[near][order], variants, masks, mirrors)

    def _variants(self, query: Query) -> tuple[Words, Words | None]:
        """The query's codes and, where it has them, its masks; bits outside a mask don't count."""
        size = self.options.bits // 8
        if any(len(one) != 2 * size for one in query.variants):
            return self._stack(query.variants), None
        codes = self._stack([one[:size] for one in query.variants])
        return codes, self._stack([one[size:] for one in query.variants])

    def _masked_distances(
        self, variants: Words, masks: Words, positions: Positions | None
    ) -> npt.NDArray[np.uint16]:
        """Distances to the nearest variant in the bits of its mask, as if all bits counted."""
        queries = np.concatenate([variants, masks], axis=1)
        nearest: npt.NDArray[np.uint16] | None = None
        for query in queries:
            kernel = masked_hamming_kernel(self._words)
            scanned = self._rows.scan("code", kernel, query[None], positions)
            nearest = scanned.copy() if nearest is None else np.minimum(nearest, scanned)
        assert nearest is not None
        return nearest

    def _possible(
        self, variants: Words, positions: Positions | None, limit: int
    ) -> Positions | None:
        """Positions, ascending, of rows whose heads are within the limit."""
        heads = np.ascontiguousarray(variants[:, self._head])
        near = np.flatnonzero(self._distances("head", heads, positions) <= limit)
        return at_places(near, positions)

    def _distances(
        self, column: str, variants: Words, positions: Positions | None
    ) -> npt.NDArray[np.uint16]:
        """Distances to the nearest variant. Variants are compared 8, 2 or 1 at a time, so three
        kernels serve any number."""
        nearest: npt.NDArray[np.uint16] | None = None
        start = 0
        while start < len(variants):
            size = next(size for size in TOGETHER if start + size <= len(variants))
            some = variants[start : start + size]
            scanned = self._rows.scan(
                column, hamming_kernel(variants.shape[1], size), some, positions
            )
            if nearest is None:
                nearest = scanned.copy() if size < len(variants) else scanned
            else:
                np.minimum(nearest, scanned, out=nearest)
            start += size
        assert nearest is not None
        return nearest

    def _limit(self, distances: npt.NDArray[np.uint16], params: SearchParams) -> int:
        """The largest distance that a hit can have."""
        limit = self.options.bits
        if params.distance_threshold is not None:
            limit = min(limit, math.ceil(params.distance_threshold) - 1)
        if params.k is not None:
            limit = min(limit, kth_smallest(distances, params.k, self.options.bits))
        return limit

    def _hits(
        self,
        positions: Positions,
        distances: npt.NDArray[np.uint16],
        variants: Words,
        masks: Words | None,
        mirrors: bool,
    ) -> list[Hit]:
        image_ids = self._rows.ids[positions].tolist()
        mirrored: list[bool | None] = [None] * len(positions)
        if mirrors:
            mirrored = self._mirrored(positions, distances, variants, masks)
        found = zip(image_ids, distances.tolist(), mirrored, strict=True)
        return [Hit(key, distance=gap, mirrored=flipped) for key, gap, flipped in found]

    def _mirrored(
        self,
        positions: Positions,
        distances: npt.NDArray[np.uint16],
        variants: Words,
        masks: Words | None,
    ) -> list[bool | None]:
        """For each distance, whether the first variant that reaches it is a mirrored one (an odd
        one)."""
        order = np.argsort(positions)
        codes = np.empty((len(positions), self._words), np.uint64)
        codes[order] = self._rows.take("code", positions[order])
        winner = np.full(len(positions), -1)
        for number in reversed(range(len(variants))):
            mask = ~np.uint64(0) if masks is None else masks[number]
            gaps = np.bitwise_count((codes ^ variants[number]) & mask).sum(axis=1)
            if masks is not None:
                gaps = gaps * self.options.bits // int(np.bitwise_count(mask).sum())
            winner[gaps == distances] = number
        return [bool(number % 2) for number in winner]

    def _stack(self, codes: Any) -> Words:
        """Codes, each uint8 (bits / 8,), as one writable uint64 array (n, words)."""
        size = self.options.bits // 8
        for code in codes:
            if code.shape != (size,) or code.dtype != np.uint8:
                raise InvalidInput(f"a code is uint8 ({size},), not {code.dtype} {code.shape}")
        return np.array(codes, np.uint8).reshape(-1, size).view(np.uint64)

    def _warm_up(self) -> None:
        """Compile all kernels, or load them from the cache, before the first query."""
        blank = np.zeros(self.options.bits // 8, np.uint8)
        self.apply({0: blank})
        for count in TOGETHER:
            variants = [blank] * count
            for given in ({"k": 1}, {"distance_threshold": 1}):
                self.search(Query(variants, np.zeros(1, np.int64)), self.Params.parse(given))
        masked = Query([np.concatenate([blank, ~blank])])
        self.search(masked, self.Params.parse({"k": 1}))
        self.apply({0: None})


INDEX = BinaryIndex
