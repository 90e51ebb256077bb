"""The rows of a FAISS inverted file, list by list, as they were at one moment, while rows are
added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import PIECE_BYTES, FrozenArray, Saved

Sizes = npt.NDArray[np.int64]


class ListRows:
    """Reads and writes codes and ids of an `IndexIVF` to which rows are only ever added.

    4-bit codes lie in blocks of several rows. Codes that were added to the last block later are set
    to zero, because FAISS expects zeros where it adds the next row.
    """

    def __init__(self, ivf: Any, faiss: Any) -> None:
        """Untyped, because the FAISS module has no types for it."""
        self._faiss = faiss
        self._ivf = ivf
        self._lists = faiss.downcast_InvertedLists(ivf.invlists)
        self._block_rows, self._block_bytes = 1, int(ivf.code_size)
        self._masks = np.full((1, self._block_bytes), 255, np.uint8)
        if isinstance(self._lists, faiss.BlockInvertedLists):
            self._block_rows = int(self._lists.n_per_block)
            self._block_bytes = int(self._lists.block_size)
            self._masks = self._masks_of_blocks()

    def freeze(self) -> dict[str, FrozenArray]:
        """The arrays `list_sizes` (lists,), `list_ids` (rows,) int64 and `list_codes` (bytes,)."""
        numbers = range(self._ivf.nlist)
        sizes = np.array([self._lists.list_size(number) for number in numbers], np.int64)
        steps = self._steps(sizes)
        shapes = {
            "list_ids": (int(sizes.sum()),),
            "list_codes": (int(self._code_bytes(sizes).sum()),),
        }
        return {
            "list_sizes": FrozenArray.of(sizes),
            "list_ids": FrozenArray(
                np.dtype(np.int64), shapes["list_ids"], self._pieces(steps, sizes, self._ids)
            ),
            "list_codes": FrozenArray(
                np.dtype(np.uint8), shapes["list_codes"], self._pieces(steps, sizes, self._codes)
            ),
        }

    def restore(self, saved: Saved) -> None:
        """Fill the empty lists."""
        sizes: Sizes = saved.array("list_sizes")
        ids, codes = saved.array("list_ids"), saved.array("list_codes")
        row = byte = 0
        pairs = zip(sizes.tolist(), self._code_bytes(sizes).tolist(), strict=True)
        for number, (rows, bytes_) in enumerate(pairs):
            if rows:
                some = self._faiss.swig_ptr(ids[row : row + rows])
                packed = self._faiss.swig_ptr(codes[byte : byte + bytes_])
                self._lists.add_entries(number, rows, some, packed)
            row, byte = row + rows, byte + bytes_
        self._ivf.ntotal = row

    def _steps(self, sizes: Sizes) -> list[range]:
        """List numbers, in groups of about PIECE_BYTES."""
        groups = np.cumsum(self._code_bytes(sizes) + 8 * sizes) // PIECE_BYTES
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(sizes)]
        return [range(start, stop) for start, stop in pairwise(edges)]

    def _pieces(
        self,
        steps: list[range],
        sizes: Sizes,
        read: Callable[[int, int], npt.NDArray[Any]],
    ) -> Iterator[npt.NDArray[Any]]:
        for step in steps:
            parts = [read(number, size) for number in step if (size := int(sizes[number]))]
            if parts:
                yield np.concatenate(parts)

    def _ids(self, number: int, rows: int) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = self._faiss.rev_swig_ptr(self._lists.get_ids(number), rows)
        return found.copy()

    def _codes(self, number: int, rows: int) -> npt.NDArray[np.uint8]:
        size = int(self._code_bytes(np.array(rows)))
        codes: npt.NDArray[np.uint8] = self._faiss.rev_swig_ptr(
            self._lists.get_codes(number), size
        ).copy()
        codes[-self._block_bytes :] &= self._masks[rows % self._block_rows]
        return codes

    def _code_bytes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.asarray(-(-rows // self._block_rows) * self._block_bytes)

    def _masks_of_blocks(self) -> npt.NDArray[np.uint8]:
        """Mask (block rows, block bytes) of the bits of the first n rows; for n = 0, of all
        rows."""
        masks = np.zeros((self._block_rows, self._block_bytes), np.uint8)
        row = np.full(self._lists.packer.code_size, 255, np.uint8)
        for count in range(1, self._block_rows):
            masks[count] = masks[count - 1]
            self._lists.packer.pack_1(row, count - 1, masks[count : count + 1])
        masks[0] = 255
        return masks
