"""The state of an index as of one moment: named arrays and a little JSON, to be written or read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 4 << 20
"""What is copied of a changing array in one go: the index's thread is held for 1 or 2 ms."""


@dataclass(frozen=True, slots=True)
class FrozenArray:
    """An array as it was, whatever has been written to the index since."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Iterator[npt.NDArray[Any]]
    """Its rows in order. Each is taken on the index's thread and holds until the next is taken."""

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> FrozenArray:
        """Of an array that nothing writes to any more."""
        return cls(array.dtype, array.shape, iter([array]))


@dataclass(frozen=True, slots=True)
class Frozen:
    """What an index would have to be given to be again as it was."""

    scalars: Mapping[str, Any]
    """JSON."""
    arrays: Mapping[str, FrozenArray]
    release: Callable[[], None] = lambda: None
    """Call it on the index's thread when all pieces are taken, or none is wanted any more."""


class Saved(ABC):
    """A frozen state that was kept and checked."""

    scalars: Mapping[str, Any]

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]: ...

    @abstractmethod
    def array(self, name: str) -> npt.NDArray[Any]:
        """A new, writable array."""

    @abstractmethod
    def fill(self, name: str, parts: Iterable[npt.NDArray[Any]]) -> None:
        """Write the array's rows in order into these parts, which are contiguous."""
