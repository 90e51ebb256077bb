"""Selection of the nearest of many integer distances, and the order of hits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.arrays.kernels import count_nearest
from indexes.arrays.rows import Positions


def kth_smallest(distances: npt.NDArray[np.uint16], k: int, largest: int) -> int:
    """The k-th smallest (k from 1) of uint16 distances (n,), none above `largest`.

    Returns `largest` when there are fewer than k.
    """
    return int(count_nearest(distances, k, np.zeros(largest + 1, np.int64)))


def best_first(
    distances: npt.NDArray[Any], image_ids: npt.NDArray[np.int64], k: int | None
) -> npt.NDArray[np.intp]:
    """Indices of the k nearest (all when None), ascending by distance, ties by image id."""
    return np.lexsort((image_ids, distances))[:k]


def at_places(places: npt.NDArray[np.intp], positions: Positions | None) -> Positions:
    """Row positions of indices in a scan of `positions` (None: of all rows)."""
    return places.astype(np.int32) if positions is None else positions[places]
