"""Rows of fixed width by image id, in arrays that the exact indexes scan.

Rows are contiguous by position; a removal moves the last row into the hole. Columns grow by
segments, so that growth copies no row. An id costs 12 to 24 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.arrays.buffers import ThreadBuffer
from indexes.arrays.frozen import FrozenArray, Saved
from indexes.arrays.frozen_rows import FrozenRows
from indexes.arrays.kernels import EMPTY, Kernel, drop_ids, find_ids, put_ids

Ids = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int32]

SEGMENT = 1 << 16
SMALLEST = 1 << 10
AHEAD, AHEAD_SHARE = 1 << 14, 8
"""Rows for which memory is preallocated: a fixed number, but at most a share of the existing
rows."""
PIECE = 1 << 20
"""Bytes that are preallocated at a time, beside searches."""
GATHER_BELOW = 8
"""Rows are gathered when fewer than 1 in 8 are allowed; otherwise scanning all rows is faster."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `width` values of `dtype` for each row."""

    dtype: npt.DTypeLike
    width: int


class RowArrays:
    """The rows and their ids. Threads may read them at once, while none changes them."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = dict(columns)
        self._segments: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in columns}
        self._ids = np.empty(SMALLEST, np.int64)
        self._table = np.full(2 * SMALLEST, EMPTY, np.int32)
        self._distances = ThreadBuffer(np.uint16)
        self._count = 0
        self._touched = 0
        self._frozen: FrozenRows | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of the arrays that find them.

        Pages of a segment that were never written take no memory yet: the kernel allocates page by
        page.
        """
        arrays = (self._ids, self._table)
        return self._touched * self._row_bytes + sum(array.nbytes for array in arrays)

    @property
    def _row_bytes(self) -> int:
        return sum(
            column.width * np.dtype(column.dtype).itemsize for column in self._columns.values()
        )

    @property
    def ids(self) -> Ids:
        """Image ids (n,) by position."""
        return self._ids[: self._count]

    def positions(self, image_ids: Ids) -> Positions:
        """Positions of those ids that have a row, ascending."""
        found = np.empty(len(image_ids), np.int32)
        # A copy, because numba would compile another kernel for a read-only array such as
        # Ray passes.
        find_ids(self._table, self._ids, np.array(image_ids, np.int64), found)
        return np.sort(found[found != EMPTY])

    def put(self, image_ids: Ids, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write rows (m, width) of every column for these unique ids; new ids go to the end."""
        if self._frozen is not None:
            self._frozen.keep(self.positions(image_ids))
            self._frozen.keep(np.arange(self._count, self._count + len(image_ids)))
        self._reserve(self._count + len(image_ids))
        positions = np.empty(len(image_ids), np.int32)
        self._count = put_ids(self._table, self._ids, self._count, image_ids, positions)
        self._touched = max(self._touched, self._count)
        numbers = positions // SEGMENT
        among = np.unique(numbers)
        for number in among:
            # Usually all rows lie in one segment, and no row is copied twice.
            here = slice(None) if len(among) == 1 else numbers == number
            for name, rows in values.items():
                self._segments[name][number][positions[here] % SEGMENT] = rows[here]

    def preallocate(self) -> bool:
        """Touch up to one PIECE of the memory that the next rows will use. Returns whether there is
        more to do.

        The first touch of a page can cost several times as much as the write itself. Positions that
        ever held a row are not touched, because a frozen array may still read them.
        """
        goal = self._count + min(AHEAD, self._count // AHEAD_SHARE)
        if self._touched >= goal:
            return False
        number, start = divmod(self._touched, SEGMENT)
        rows = min(goal - self._touched, SEGMENT - start, max(1, PIECE // self._row_bytes))
        self._reserve_segments(self._touched + rows)
        for segments in self._segments.values():
            segments[number][start : start + rows] = 0
        self._touched += rows
        return self._touched < goal

    def remove(self, image_ids: Ids) -> None:
        """Remove the rows of these ids; unknown ids are ignored."""
        if self._frozen is not None:
            # A row that moves into a hole overwrites a removed row.
            self._frozen.keep(self.positions(image_ids))
        holes = np.empty(len(image_ids), np.int32)
        last = self._count
        self._count = drop_ids(self._table, self._ids, last, image_ids, holes)
        for hole in holes[holes != EMPTY].tolist():
            last -= 1
            for segments in self._segments.values():
                moved = segments[last // SEGMENT][last % SEGMENT]
                segments[hole // SEGMENT][hole % SEGMENT] = moved
        self._release()

    def take(self, name: str, positions: Positions) -> npt.NDArray[Any]:
        """A copy of a column's rows (m, width) at ascending positions."""
        column = self._columns[name]
        taken = np.empty((len(positions), column.width), column.dtype)
        edges = np.arange(len(self._segments[name]) + 1, dtype=np.int64) * SEGMENT
        bounds = np.searchsorted(positions, edges)
        for number, segment in enumerate(self._segments[name]):
            here = slice(bounds[number], bounds[number + 1])
            local = positions[here] - number * SEGMENT
            # Every mode but "raise" writes directly into `out`.
            np.take(segment, local, axis=0, out=taken[here], mode="clip")
        return taken

    def scan(
        self, name: str, kernel: Kernel, query: npt.NDArray[Any], positions: Positions | None
    ) -> npt.NDArray[np.uint16]:
        """Distances (uint16) by the kernel to all rows, or to rows at ascending positions.

        The calling thread's next scan may overwrite the returned array.
        """
        if positions is not None and len(positions) * GATHER_BELOW < self._count:
            distances = np.empty(len(positions), np.uint16)
            kernel(self.take(name, positions), query, distances)
            return distances
        scanned = self._distances.of(self._count)
        for start, rows in self.used(name):
            kernel(rows, query, scanned[start : start + len(rows)])
        return scanned if positions is None else scanned[positions]

    def used(self, name: str) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """A column's rows in use, by segment, each with its first position."""
        for number, segment in enumerate(self._segments[name]):
            start = number * SEGMENT
            yield start, segment[: max(0, self._count - start)]

    def freeze(self) -> tuple[dict[str, FrozenArray], Callable[[], None]]:
        """`ids` and all columns as they are now, and a function to call when they have been
        read."""
        segments = {
            name: self._segments[name] or [np.empty((0, column.width), column.dtype)]
            for name, column in self._columns.items()
        }
        edges = range(0, len(self._ids), SEGMENT)
        segments["ids"] = [self._ids[start : start + SEGMENT] for start in edges]
        self._frozen = FrozenRows(segments, SEGMENT, self._count)
        return self._frozen.arrays(), self._thaw

    @classmethod
    def restored(cls, columns: Mapping[str, Column], saved: Saved) -> RowArrays:
        """Restore rows at the positions that they had."""
        rows = cls(columns)
        ids: Ids = saved.array("ids")
        rows._reserve(len(ids))
        rows._count = put_ids(rows._table, rows._ids, 0, ids, np.empty(len(ids), np.int32))
        rows._touched = rows._count
        for name in columns:
            saved.fill(name, [segment for _, segment in rows.used(name)])
        return rows

    def _thaw(self) -> None:
        self._frozen = None

    def _reserve(self, count: int) -> None:
        if count > len(self._ids):
            room = 1 << (count - 1).bit_length()
            self._ids = np.concatenate([self.ids, np.empty(room - self._count, np.int64)])
            self._table = np.full(2 * room, EMPTY, np.int32)
            put_ids(self._table, self._ids, 0, self.ids.copy(), np.empty(self._count, np.int32))
        self._reserve_segments(count)

    def _reserve_segments(self, count: int) -> None:
        for name, column in self._columns.items():
            segments = self._segments[name]
            while len(segments) * SEGMENT < count:
                segments.append(np.empty((SEGMENT, column.width), column.dtype))

    def _release(self) -> None:
        """Free all segments after the one that follows the last used segment."""
        keep = -(-self._count // SEGMENT) + 1
        for segments in self._segments.values():
            del segments[keep:]
        self._touched = min(self._touched, keep * SEGMENT)
