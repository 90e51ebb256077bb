"""An array that grows at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Stack:
    """Values of one dtype; the capacity grows by half whenever it is full."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._room = np.empty(256, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._room.nbytes

    @property
    def array(self) -> npt.NDArray[Any]:
        """A writable view (n,); valid until the next `extend`."""
        return self._room[: self._count]

    def extend(self, values: npt.ArrayLike) -> None:
        """Append values (m,)."""
        added = np.asarray(values, self._room.dtype)
        end = self._count + len(added)
        if end > len(self._room):
            room = np.empty(max(end, len(self._room) * 3 // 2), self._room.dtype)
            room[: self._count] = self.array
            self._room = room
        self._room[self._count : end] = added
        self._count = end
