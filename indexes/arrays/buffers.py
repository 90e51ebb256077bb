"""Memory that a thread uses again for each search."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt


class ThreadBuffer(threading.local):
    """One array for each thread, which grows as needed.

    Memory that is new to a process costs as much as the scan that fills it.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._array = np.empty(0, dtype)

    def of(self, size: int) -> npt.NDArray[Any]:
        """An array (size,) of arbitrary values, valid until this thread's next call."""
        if len(self._array) < size:
            self._array = np.empty(size + size // 8, self._array.dtype)
        return self._array[:size]
