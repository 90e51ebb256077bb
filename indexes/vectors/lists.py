"""Vectors in trained inverted lists: a tenth of the memory or less, at the price of some recall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from indexes.arrays.frozen import Frozen, FrozenArray, Saved
from indexes.arrays.rows import Column, RowArrays
from indexes.base import SearchParams
from indexes.inverted.file import Bitmap, InvertedFile
from indexes.inverted.trained import Trained
from indexes.vectors.rows import BATCH, Ids, VectorRows, Vectors

DEAD_AT_LEAST = 1024
FEWEST = 500
"""Minimum number of candidates of a search, so that a small k costs no recall."""
MOST = 16 * BATCH
"""Number of candidates of a search by distance alone."""
SLOT = {"slot": Column(np.int64, 1)}


class ListedRows(VectorRows):
    """The lists give candidates, which are re-ranked by features read from the store.

    A slot is the number of a row in the lists; a dead slot is never used again.
    """

    kind = "cosine-ivf"

    def __init__(
        self,
        trained: Trained,
        probes: int,
        rerank: int,
        stored: Callable[[Ids], tuple[Ids, Vectors]],
        saved: Saved | None = None,
    ) -> None:
        """`stored` reads the rows of those ids that still exist."""
        self._rerank = rerank
        self._stored = stored
        if saved is None:
            self._lists = InvertedFile(trained.learnt, probes)
            self._image_ids = np.empty(0, np.int64)
        else:
            self._lists = InvertedFile.restored(saved, probes)
            self._image_ids = saved.array("image_ids")
        self._wanted = np.packbits(self._image_ids >= 0, bitorder="little")
        self._slots = RowArrays(SLOT)
        live = np.flatnonzero(self._image_ids >= 0)
        self._slots.put(self._image_ids[live], {"slot": live[:, np.newaxis]})

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        own = self._image_ids.nbytes + self._wanted.nbytes
        return own + self._slots.nbytes + self._lists.nbytes

    @property
    def needs_compaction(self) -> bool:
        dead = len(self._lists) - len(self)
        return dead > max(DEAD_AT_LEAST, len(self))

    def put(self, image_ids: Ids, vectors: Vectors) -> None:
        self.remove(image_ids)
        first = len(self._lists)
        slots = np.arange(first, first + len(image_ids))
        self._lists.add(slots, vectors)
        self._reserve(first + len(image_ids))
        self._image_ids[slots] = image_ids
        np.bitwise_or.at(self._wanted, slots >> 3, (1 << (slots & 7)).astype(np.uint8))
        self._slots.put(image_ids, {"slot": slots[:, np.newaxis]})

    def remove(self, image_ids: Ids) -> None:
        slots = self._slots.take("slot", self._slots.positions(image_ids))[:, 0]
        self._image_ids[slots] = -1
        np.bitwise_and.at(self._wanted, slots >> 3, ~(1 << (slots & 7)).astype(np.uint8))
        self._slots.remove(image_ids)

    def image_ids(self) -> Ids:
        return self._slots.ids.copy()

    def take(self, image_ids: Ids) -> tuple[Ids, Vectors]:
        return self._stored(image_ids)

    def near(self, variants: Vectors, allowed: Ids | None, params: SearchParams) -> Ids:
        """See VectorRows.near: `rerank` times k of the nearest by their codes."""
        if allowed is not None and len(allowed) <= BATCH:
            return self._slots.ids[self._slots.positions(allowed)]
        count = min(len(self), MOST)
        if params.k is not None:
            count = min(count, max(FEWEST, self._rerank * params.k))
        _, slots = self._lists.search(variants, count, self._bitmap(allowed))
        near: Ids = np.unique(self._image_ids[slots[slots >= 0]])
        return near

    def freeze(self) -> Frozen:
        lists = self._lists.freeze()
        image_ids = FrozenArray.of(self._image_ids[: len(self._lists)].copy())
        return Frozen(lists.scalars, {**lists.arrays, "image_ids": image_ids})

    def _bitmap(self, allowed: Ids | None) -> Bitmap | None:
        if allowed is None:
            return None if len(self._lists) == len(self) else self._wanted
        slots = self._slots.take("slot", self._slots.positions(allowed))[:, 0]
        chosen = np.zeros_like(self._wanted)
        np.bitwise_or.at(chosen, slots >> 3, (1 << (slots & 7)).astype(np.uint8))
        return chosen

    def _reserve(self, count: int) -> None:
        """Room for so many slots; the capacity grows by half whenever it is full."""
        if count <= len(self._image_ids):
            return
        room = max(DEAD_AT_LEAST, count + count // 2)
        grown = np.full(room, -1, np.int64)
        grown[: len(self._image_ids)] = self._image_ids
        wanted = np.zeros(-(-room // 8), np.uint8)
        wanted[: len(self._wanted)] = self._wanted
        self._image_ids, self._wanted = grown, wanted
