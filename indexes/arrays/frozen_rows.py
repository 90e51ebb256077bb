"""Rows of `RowArrays` as they were at one moment, while rows are written and removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import PIECE_BYTES, FrozenArray

Arrays = Mapping[str, Sequence[npt.NDArray[Any]]]


class FrozenRows:
    """Copy-on-write: keeps a copy of rows that are about to be overwritten and reads all others in
    place.

    Every writer announces the positions that it will overwrite. An array that replaces another as
    it grows changes nothing here, because the old one is still referenced.
    """

    def __init__(self, segments: Arrays, rows: int, count: int) -> None:
        """`segments`, each of `rows` rows (a power of two), hold `count` rows of each array."""
        self._segments = {name: list(some) for name, some in segments.items()}
        self._rows = rows
        self._count = count
        self._is_kept = np.zeros(count, np.bool_)
        self._kept: list[tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]] = []

    def keep(self, positions: npt.NDArray[np.integer]) -> None:
        """Keep a copy of these rows, which are about to be overwritten."""
        within = np.unique(positions[(positions >= 0) & (positions < self._count)])
        fresh = within[~self._is_kept[within]].astype(np.int64)
        if not len(fresh):
            return
        self._is_kept[fresh] = True
        numbers = fresh // self._rows
        values = {name: [] for name in self._segments}  # type: dict[str, list[npt.NDArray[Any]]]
        for number in np.unique(numbers).tolist():
            here = fresh[numbers == number] - number * self._rows
            for name, segments in self._segments.items():
                values[name].append(segments[number][here])
        self._kept.append((fresh, {name: np.concatenate(some) for name, some in values.items()}))

    def arrays(self) -> dict[str, FrozenArray]:
        """The rows (count, …) of each array."""
        return {
            name: FrozenArray(
                segments[0].dtype,
                (self._count, *segments[0].shape[1:]),
                self._pieces(name, segments),
            )
            for name, segments in self._segments.items()
        }

    def _pieces(
        self, name: str, segments: Sequence[npt.NDArray[Any]]
    ) -> Iterator[npt.NDArray[Any]]:
        row_bytes = max(1, segments[0][:1].nbytes)
        step = min(self._rows, 1 << max(0, (PIECE_BYTES // row_bytes).bit_length() - 1))
        buffer = np.empty((min(step, self._count), *segments[0].shape[1:]), segments[0].dtype)
        for start in range(0, self._count, step):
            stop = min(start + step, self._count)
            piece = buffer[: stop - start]
            place = start % self._rows
            piece[:] = segments[start // self._rows][place : place + len(piece)]
            for positions, values in self._kept:
                here = slice(*np.searchsorted(positions, [start, stop]))
                piece[positions[here] - start] = values[name][here]
            yield piece
