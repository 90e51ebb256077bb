"""Nearest descriptors: exact for small collections, IVF-PQ for large ones.

The id of a descriptor is slot << 8 | keypoint, so a found id names its image without a look-up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import Frozen, FrozenArray, Saved
from indexes.inverted.file import InvertedFile, Method, train
from indexes.local.kernels import keep_nearest
from models.errors import InvalidInput

Descriptors = npt.NDArray[np.float32]
"""Unit descriptors (n, d) float32."""
Wanted = npt.NDArray[np.int64]
"""Image id of each slot (slots,) that may be found, -1 for other slots."""
Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Squared L2 distances (n, k), ascending, and ids (n, k), -1 where there are fewer."""

BLOCK = 8192


def unit(quantised: npt.NDArray[np.uint8] | npt.NDArray[np.int8]) -> Descriptors:
    """Quantised descriptors (n, d) as float32 of unit length; a descriptor of zeros stays
    zero."""
    rows = quantised.astype(np.float32)
    rows /= lengths(rows)[:, None]
    return rows


def lengths(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """L2 norms (n,) of float32 rows (n, d), at least 1e-9, so that a row of zeros can be divided by
    its norm."""
    norms: npt.NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.maximum(norms, np.float32(1e-9))


def descriptor_ids(slot: int, count: int) -> npt.NDArray[np.int64]:
    return (np.int64(slot) << 8) + np.arange(count, dtype=np.int64)


class DescriptorSearch(ABC):
    """Rows of removed images stay; every search says which slots it wants."""

    kind: str

    def check_width(self, width: int) -> None:  # noqa: B027 (untrained, it takes any)
        """Raises InvalidInput where it was trained on descriptors of another width."""

    @abstractmethod
    def add(self, ids: npt.NDArray[np.int64], descriptors: Descriptors) -> None: ...

    @abstractmethod
    def search(self, queries: Descriptors, k: int, wanted: Wanted) -> Found:
        """The k nearest of each query among wanted slots. An exact search breaks ties by image
        id."""

    @abstractmethod
    def renumber(self, slots: npt.NDArray[np.int64]) -> None:
        """Renumber slots, given the new number by old slot; rows of slots that become -1 are
        dead."""

    @abstractmethod
    def freeze(self) -> Frozen:
        """See Index.freeze. It stays valid while rows are added, until they are renumbered."""

    @property
    @abstractmethod
    def nbytes(self) -> int: ...


class FlatSearch(DescriptorSearch):
    """Exact search by one matrix product per block. Blocks are allocated whole, so growth copies
    nothing."""

    kind = "local-flat"

    def __init__(self) -> None:
        self._blocks: list[Descriptors] = []
        self._ids: list[npt.NDArray[np.int64]] = []
        self._count = 0

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._blocks) + sum(ids.nbytes for ids in self._ids)

    def add(self, ids: npt.NDArray[np.int64], descriptors: Descriptors) -> None:
        done = 0
        while done < len(ids):
            place = self._count % BLOCK
            if place == 0:
                self._blocks.append(np.empty((BLOCK, descriptors.shape[1]), np.float32))
                self._ids.append(np.empty(BLOCK, np.int64))
            step = min(BLOCK - place, len(ids) - done)
            self._blocks[-1][place : place + step] = descriptors[done : done + step]
            self._ids[-1][place : place + step] = ids[done : done + step]
            self._count += step
            done += step

    def search(self, queries: Descriptors, k: int, wanted: Wanted) -> Found:
        best = np.full((len(queries), k), -2, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        for number, (block, block_ids) in enumerate(zip(self._blocks, self._ids, strict=True)):
            size = min(BLOCK, self._count - number * BLOCK)
            near = queries @ block[:size].T
            keep_nearest(near, queries, block[:size], block_ids[:size], wanted, best, ids)
        # Unit vectors: |a - b|² = 2 - 2 a·b; rounding may make it slightly negative.
        return np.maximum(2 - 2 * best, 0), ids

    def renumber(self, slots: npt.NDArray[np.int64]) -> None:
        blocks, ids, count = self._blocks, self._ids, self._count
        self._blocks, self._ids, self._count = [], [], 0
        for number, (block, block_ids) in enumerate(zip(blocks, ids, strict=True)):
            size = min(BLOCK, count - number * BLOCK)
            new = slots[block_ids[:size] >> 8]
            kept = np.flatnonzero(new >= 0)
            self.add(new[kept] << 8 | block_ids[kept] & 255, block[kept])

    def freeze(self) -> Frozen:
        sizes = [min(BLOCK, self._count - number * BLOCK) for number in range(len(self._blocks))]
        blocks = [block[:size] for block, size in zip(self._blocks, sizes, strict=True)]
        ids = [block_ids[:size] for block_ids, size in zip(self._ids, sizes, strict=True)]
        width = blocks[0].shape[1] if blocks else 0
        return Frozen(
            {"search": self.kind},
            {
                "descriptors": FrozenArray(
                    np.dtype(np.float32), (self._count, width), iter(blocks)
                ),
                "descriptor_ids": FrozenArray(np.dtype(np.int64), (self._count,), iter(ids)),
            },
        )

    @classmethod
    def restored(cls, saved: Saved) -> FlatSearch:
        made = cls()
        made.add(saved.array("descriptor_ids"), saved.array("descriptors"))
        return made


class IvfPqSearch(DescriptorSearch):
    """Approximate search in an inverted file; rows of dead slots stay in it."""

    kind = "local-ivfpq"

    def __init__(self, rows: InvertedFile) -> None:
        self._rows = rows
        self._dead_rows = False

    @classmethod
    def train(cls, factory: str, probes: int, sample: Descriptors, lists: int) -> IvfPqSearch:
        """Train on a sample; see `indexes.inverted.file.train`."""
        return cls(InvertedFile(train(sample, lists, method(factory)), probes))

    def check_width(self, width: int) -> None:
        if width != self._rows.width:
            raise InvalidInput(
                f"the file of `trained` is of descriptors of {self._rows.width} values, not "
                f"{width}: train again"
            )

    @classmethod
    def restored(cls, saved: Saved, probes: int) -> IvfPqSearch:
        """Raises SnapshotRejected for a layout of another FAISS version."""
        made = cls(InvertedFile.restored(saved, probes))
        made._dead_rows = saved.scalars["dead_rows"]
        return made

    def freeze(self) -> Frozen:
        rows = self._rows.freeze()
        here = {"search": self.kind, "dead_rows": self._dead_rows}
        return Frozen({**rows.scalars, **here}, rows.arrays)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def add(self, ids: npt.NDArray[np.int64], descriptors: Descriptors) -> None:
        self._rows.add(ids, descriptors)

    def search(self, queries: Descriptors, k: int, wanted: Wanted) -> Found:
        whole = bool((wanted >= 0).all()) and not self._dead_rows
        return self._rows.search(queries, k, None if whole else _bitmap(wanted >= 0))

    def renumber(self, slots: npt.NDArray[np.int64]) -> None:
        def moved(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            new = np.where(ids < 0, -1, slots[ids >> 8])
            return np.where(new < 0, -1, new << 8 | ids & 255)

        self._dead_rows |= self._rows.renumber(moved)


def method(factory: str) -> Method:
    """The training method for descriptors."""
    return Method(factory, inner_product=False, residual=False)


def _bitmap(slots: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The bitmap of wanted ids: one bit for each of a slot's 256 ids."""
    return np.repeat(np.where(slots, np.uint8(255), np.uint8(0)), 32)
