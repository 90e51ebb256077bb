"""Storage of a vector index's rows, and the selection of rows that can be hits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from indexes.arrays.buffers import ThreadBuffer
from indexes.arrays.frozen import Frozen, Saved
from indexes.arrays.rows import GATHER_BELOW, Column, RowArrays
from indexes.arrays.selection import at_places
from indexes.base import SearchParams
from indexes.vectors.codes import CodedQuery, code_columns, encode, kth_largest, scale_rows

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

COSINE_ERROR = np.float32(1e-4)
"""Maximum error of cosines in float32, up to 1,600 dimensions."""
BATCH = 1 << 12
"""Rows that are taken at a time."""


class VectorRows(ABC):
    """Unit vectors (d,) by image id. Threads may read them at once, while none changes them."""

    kind: ClassVar[str]

    @abstractmethod
    def put(self, image_ids: Ids, vectors: Vectors) -> None:
        """Write float32 rows (n, d) for these unique ids."""

    @abstractmethod
    def remove(self, image_ids: Ids) -> None:
        """Remove rows; unknown ids are ignored."""

    @abstractmethod
    def near(self, variants: Vectors, allowed: Ids | None, params: SearchParams) -> Ids:
        """Ids (m,), in any order, that can be hits of the query's variants (v, d).

        `params` bound them by `k`, by `distance_threshold` or both; `allowed` (sorted) limits them.
        """

    @abstractmethod
    def take(self, image_ids: Ids) -> tuple[Ids, Vectors]:
        """Those of these ids (at most BATCH) that have a row, in any order, and their rows."""

    @abstractmethod
    def image_ids(self) -> Ids:
        """All ids (n,), in any order."""

    @abstractmethod
    def freeze(self) -> Frozen:
        """See Index.freeze."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def nbytes(self) -> int: ...

    def preallocate(self) -> bool:
        """See Index.maintain."""
        return False

    @property
    def needs_compaction(self) -> bool:
        """See Index.needs_compaction."""
        return False


class CodedRows(VectorRows):
    """Rows in memory as float32, beside codes of a quarter of their size that are scanned first."""

    kind = "cosine-flat"

    def __init__(self, width: int, rows: RowArrays | None = None) -> None:
        self._rows = RowArrays(_columns(width)) if rows is None else rows
        self._bounds = ThreadBuffer(np.float32)

    @classmethod
    def restored(cls, width: int, saved: Saved) -> CodedRows:
        return cls(width, RowArrays.restored(_columns(width), saved))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def put(self, image_ids: Ids, vectors: Vectors) -> None:
        self._rows.put(image_ids, {"vector": vectors, **encode(vectors)})

    def remove(self, image_ids: Ids) -> None:
        self._rows.remove(image_ids)

    def image_ids(self) -> Ids:
        return self._rows.ids.copy()

    def preallocate(self) -> bool:
        return self._rows.preallocate()

    def freeze(self) -> Frozen:
        return Frozen({}, *self._rows.freeze())

    def take(self, image_ids: Ids) -> tuple[Ids, Vectors]:
        positions = self._rows.positions(image_ids)
        return self._rows.ids[positions], self._rows.take("vector", positions)

    def near(self, variants: Vectors, allowed: Ids | None, params: SearchParams) -> Ids:
        """See VectorRows.near; no hit is missed."""
        positions = None if allowed is None else self._rows.positions(allowed)
        if positions is None or len(positions) * GATHER_BELOW >= len(self):
            lower, upper = self._scan(variants)
            if positions is not None:
                lower, upper = lower[positions], upper[positions]
            positions = at_places(_possible(lower, upper, params), positions)
        cosines = np.empty(len(positions), np.float32)
        for start in range(0, len(positions), BATCH):
            here = slice(start, start + BATCH)
            cosines[here] = (self._rows.take("vector", positions[here]) @ variants.T).max(axis=1)
        near = _possible(cosines - COSINE_ERROR, cosines + COSINE_ERROR, params)
        return self._rows.ids[positions[near]]

    def _scan(self, variants: Vectors) -> tuple[Vectors, Vectors]:
        """Bounds of the cosine (n,) between each row and its nearest variant.

        The calling thread's next scan overwrites them.
        """
        lower, upper = self._bounds.of(2 * len(self)).reshape(2, -1)
        query = CodedQuery(variants)
        both = zip(self._rows.used("code"), self._rows.used("scale"), strict=True)
        for (start, code), (_, scale) in both:
            here = slice(start, start + len(code))
            query.bound(code, scale, lower[here], upper[here])
        return lower, upper


def warm_up() -> None:
    """Compile all kernels, or load them from the cache, before the first query."""
    rows, blank = CodedRows(1), np.zeros((1, 1), np.float32)
    scale_rows(blank, blank.copy(), np.empty(1))
    rows.put(np.zeros(1, np.int64), blank)
    rows.near(blank, None, SearchParams())
    rows.near(blank, np.zeros(1, np.int64), SearchParams())
    kth_largest(blank[0], np.empty(1, np.float32))


def _possible(lower: Vectors, upper: Vectors, params: SearchParams) -> npt.NDArray[np.intp]:
    """Positions, ascending, of rows that can be hits by the bounds of their cosines."""
    least = np.float32(-np.inf)
    if params.distance_threshold is not None:
        least = np.float32(1 - params.distance_threshold)
    if params.k is not None and params.k < len(lower):
        least = max(least, kth_largest(lower, np.empty(params.k, np.float32)))
    return np.flatnonzero(upper >= least)


def _columns(width: int) -> dict[str, Column]:
    return {"vector": Column(np.float32, width), **code_columns(width)}
