"""Training of the local index's IVF-PQ, in a thread that shares nothing with the searches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from indexes.base import Rows
from indexes.inverted.file import POINTS_PER_LIST
from indexes.local.descriptors import (
    Descriptors,
    DescriptorSearch,
    IvfPqSearch,
    descriptor_ids,
    unit,
)

BATCH = 256
"""Images read from the store at a time."""


class Training(threading.Thread):
    """Reads the live images' rows, trains on a sample, adds all rows, then those that came
    meanwhile.

    A row may be newer than its slot. Then the slot is dead or about to be, and the owner's later
    change has its own slot in `late`. Missing rows are left out.
    """

    def __init__(
        self, factory: str, probes: int, rows: Rows, image_ids: npt.NDArray[np.int64], lists: int
    ) -> None:
        """`image_ids` (slots,) are the image id of each slot, -1 for dead slots.

        `factory` is a FAISS factory string with a placeholder for the number of `{lists}`.
        """
        super().__init__(name="local-training", daemon=True)
        self.late: deque[tuple[int, int]] = deque()
        """Slot and image id of each image that was applied since; the owner appends to it."""
        self.result: DescriptorSearch | None = None
        """The trained index; None until the end, and for ever if the thread died of an error, which
        it printed."""
        self._factory = factory
        self._lists = lists
        self._probes = probes
        self._rows = rows
        live = np.flatnonzero(image_ids >= 0)
        self._pictures = list(zip(live.tolist(), image_ids[live].tolist(), strict=True))

    def run(self) -> None:
        trained = IvfPqSearch.train(self._factory, self._probes, self._sample(), self._lists)
        for start in range(0, len(self._pictures), BATCH):
            self._add(trained, self._pictures[start : start + BATCH])
        self.add_late(trained)
        self.result = trained

    def add_late(self, index: DescriptorSearch) -> None:
        while self.late:
            self._add(index, [self.late.popleft() for _ in range(min(BATCH, len(self.late)))])

    def _add(self, index: DescriptorSearch, pictures: Sequence[tuple[int, int]]) -> None:
        rows = self._rows([image_id for _, image_id in pictures])
        there = [(slot, rows[image_id]) for slot, image_id in pictures if image_id in rows]
        if there:
            ids = np.concatenate([descriptor_ids(slot, len(row)) for slot, row in there])
            index.add(ids, unit(np.concatenate([row["descriptor"] for _, row in there])))

    def _sample(self) -> Descriptors:
        """Descriptors of randomly drawn images, as many as the lists need."""
        order = np.random.default_rng(0).permutation(len(self._pictures))
        parts: list[npt.NDArray[np.uint8]] = []
        size = 0
        for start in range(0, len(order), BATCH):
            ids = [self._pictures[place][1] for place in order[start : start + BATCH]]
            parts.extend(row["descriptor"] for row in self._rows(ids).values())
            size = sum(map(len, parts))
            if size >= self._lists * POINTS_PER_LIST:
                break
        return unit(np.concatenate(parts)[: self._lists * POINTS_PER_LIST])
