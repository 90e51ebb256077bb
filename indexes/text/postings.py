"""Posting lists: which images hold which words, with a small unsorted tail for new images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from indexes.arrays.frozen import FrozenArray, Saved
from indexes.arrays.rows import Column, RowArrays
from indexes.arrays.stack import Stack
from indexes.text.kernels import best_grouped, best_paired, group_by_word
from indexes.text.vocabulary import Candidates

SMALLEST_TAIL = 1 << 16
"""Number of pairs up to which the tail is never merged; above it, a merge is due at a quarter of
the lists."""


class Postings:
    """Every put takes a fresh slot, so that a removed image and a new one under its id never mix.

    New pairs (word, slot) go to the tail, which each search scans whole. They are sorted into the
    lists when the tail has grown in proportion, so that a pair is moved about five times in all.
    Slots of removed images are dead; their pairs go with the next merge.
    """

    def __init__(self) -> None:
        self._rows = RowArrays({"slot": Column(np.int32, 1)})
        self._image_ids = Stack(np.int64)
        self._alive = Stack(np.bool_)
        self._starts = np.zeros(1, np.int64)
        self._lists = np.empty(0, np.int32)
        self._tail_words = Stack(np.int32)
        self._tail_slots = Stack(np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        stacks = (self._image_ids, self._alive, self._tail_words, self._tail_slots)
        arrays = self._rows.nbytes + self._starts.nbytes + self._lists.nbytes
        return arrays + sum(stack.nbytes for stack in stacks)

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """Image id by slot, dead slots included."""
        return self._image_ids.array

    @property
    def full(self) -> bool:
        """Whether `merge` is due."""
        return len(self._tail_words) > max(SMALLEST_TAIL, len(self._lists) // 4)

    def freeze(self) -> dict[str, FrozenArray]:
        """See Index.freeze. Only `alive` is ever overwritten; all other arrays are appended to or
        replaced."""
        return {
            "image_ids": FrozenArray.of(self._image_ids.array),
            "alive": FrozenArray.of(self._alive.array.copy()),
            "starts": FrozenArray.of(self._starts),
            "lists": FrozenArray.of(self._lists),
            "tail_words": FrozenArray.of(self._tail_words.array),
            "tail_slots": FrozenArray.of(self._tail_slots.array),
        }

    @classmethod
    def restored(cls, saved: Saved) -> Postings:
        made = cls()
        made._starts, made._lists = saved.array("starts"), saved.array("lists")
        for name in ("image_ids", "alive", "tail_words", "tail_slots"):
            getattr(made, f"_{name}").extend(saved.array(name))
        slots = np.flatnonzero(made._alive.array).astype(np.int32)
        made._rows.put(made.image_ids[slots], {"slot": slots[:, None]})
        return made

    def put(self, images: Mapping[int, Sequence[int]]) -> None:
        """Set images (id → their distinct words), replacing their old words."""
        self.remove(list(images))
        first = len(self._image_ids)
        ids = np.array(list(images), np.int64)
        slots = np.arange(first, first + len(ids), dtype=np.int32)
        self._rows.put(ids, {"slot": slots[:, None]})
        self._image_ids.extend(ids)
        self._alive.extend(np.ones(len(ids), np.bool_))
        self._tail_slots.extend(np.repeat(slots, [len(words) for words in images.values()]))
        self._tail_words.extend([word for words in images.values() for word in words])

    def remove(self, image_ids: Sequence[int]) -> None:
        """Remove images; unknown ids are ignored."""
        ids = np.array(image_ids, np.int64)
        positions = self._rows.positions(ids)
        self._alive.array[self._rows.take("slot", positions)[:, 0]] = False
        self._rows.remove(ids)

    def best(self, candidates: Candidates) -> npt.NDArray[np.float32]:
        """By slot, the best quality of the candidates that it holds; 0 for dead slots."""
        best = np.zeros(len(self._image_ids), np.float32)
        alive, quality = self._alive.array, candidates.quality
        best_grouped(self._starts, self._lists, candidates.words, quality, alive, best)
        best_paired(self._tail_words.array, self._tail_slots.array, quality, alive, best)
        return best

    def merge(self, words: int) -> npt.NDArray[np.bool_]:
        """Sort the tail into the lists of so many words. Returns which words (words,) are in
        use."""
        known = np.arange(len(self._starts) - 1, dtype=np.int32)
        all_words = np.concatenate(
            [np.repeat(known, np.diff(self._starts)), self._tail_words.array]
        )
        all_slots = np.concatenate([self._lists, self._tail_slots.array])
        if len(self._rows) < len(self._image_ids):
            living = self._alive.array[all_slots]
            all_words, all_slots = all_words[living], all_slots[living]
            all_slots = self._renumbered()[all_slots]
        self._starts = np.zeros(words + 1, np.int64)
        self._lists = np.empty(len(all_slots), np.int32)
        group_by_word(all_words, all_slots, self._starts, self._lists)
        self._tail_words, self._tail_slots = Stack(np.int32), Stack(np.int32)
        return np.diff(self._starts) > 0

    def keep_words(self, used: npt.NDArray[np.bool_]) -> None:
        """Renumber the words of this mask in order; the other words' lists must be empty."""
        self._starts = np.concatenate([self._starts[:1], self._starts[1:][used]])

    def _renumbered(self) -> npt.NDArray[np.int32]:
        """Remove all dead slots. Returns the new slot by old slot."""
        alive = self._alive.array
        renumbered = (np.cumsum(alive) - 1).astype(np.int32)
        ids = self._image_ids.array[alive]
        self._image_ids, self._alive = Stack(np.int64), Stack(np.bool_)
        self._image_ids.extend(ids)
        self._alive.extend(np.ones(len(ids), np.bool_))
        self._rows.put(ids, {"slot": np.arange(len(ids), dtype=np.int32)[:, None]})
        return renumbered
