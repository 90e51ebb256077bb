"""The state of an index at one moment, as named arrays and some JSON, to be written and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 4 << 20
"""Bytes of a changing array that are copied at once; the index's thread is held for 1 or 2 ms."""


@dataclass(frozen=True, slots=True)
class FrozenArray:
    """An array as it was at one moment, whatever is written to the index later."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Iterator[npt.NDArray[Any]]
    """Yield its rows in order. Each piece is taken on the index's thread and is valid until the
    next is taken."""

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> FrozenArray:
        """An array that nothing writes to any more."""
        return cls(array.dtype, array.shape, iter([array]))


@dataclass(frozen=True, slots=True)
class Frozen:
    """Everything that is needed to restore an index to its state at one moment."""

    scalars: Mapping[str, Any]
    """Further state, as JSON."""
    arrays: Mapping[str, FrozenArray]
    release: Callable[[], None] = lambda: None
    """Release what the frozen arrays hold. Call it on the index's thread after the last piece, or
    when no more pieces are wanted."""


class Saved(ABC):
    """A frozen state that was saved and verified."""

    scalars: Mapping[str, Any]

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]: ...

    @abstractmethod
    def array(self, name: str) -> npt.NDArray[Any]:
        """A new, writable array."""

    @abstractmethod
    def fill(self, name: str, parts: Iterable[npt.NDArray[Any]]) -> None:
        """Write the array's rows in order into these contiguous parts."""
