"""The distinct words of all texts, and the words that match a query word."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import OSA, Levenshtein

from indexes.arrays.frozen import FrozenArray, Saved
from indexes.arrays.stack import Stack
from indexes.text.kernels import find_similar, find_substring
from indexes.text.words import in_latin, signature_of, sound_of, without_case

Kind = Literal["exact", "substring", "fuzzy", "sound"]
KINDS: tuple[Kind, ...] = ("exact", "substring", "fuzzy", "sound")
"""Kinds of matches, best first."""

LEAST_SUBSTRING = 3
"""Minimum length of a word that is sought inside other words, unless its script has no case."""
STRING_BYTES = 49
"""Bytes of an ASCII str object beside its characters."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """How well each vocabulary word matches one query word."""

    quality: npt.NDArray[np.float32]
    """Quality by word: 1 for the same word, 0 for none."""
    kind: npt.NDArray[np.uint8]
    """Kind by word, as an index into KINDS, where there is a quality."""

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """Words with a quality, ascending."""
        return np.flatnonzero(self.quality)


class Vocabulary:
    """Words by number, in order of their first use. All searches scan flat arrays."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []
        self._blob = Stack(np.uint8)
        self._starts = Stack(np.int64)
        self._starts.extend([0])
        self._lengths = Stack(np.int32)
        self._signatures = Stack(np.uint64)
        self._sounds = Stack(np.uint64)

    def __len__(self) -> int:
        return len(self._words)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and, roughly, of the words as Python strings in a list and a dict."""
        strings = len(self._blob) + len(self) * (STRING_BYTES + 8 + 100)
        return strings + sum(stack.nbytes for stack in self._stacks().values())

    def number(self, word: str) -> int | None:
        return self._numbers.get(word)

    def numbers(self, words: Iterable[str]) -> list[int]:
        """Numbers of distinct words; new words are added."""
        found = []
        added = []
        for word in dict.fromkeys(words):
            number = self._numbers.setdefault(word, len(self._numbers))
            if number >= len(self._words):
                self._words.append(word)
                added.append(word)
            found.append(number)
        if added:
            self._extend(added)
        return found

    def only(self, kept: npt.NDArray[np.bool_]) -> Vocabulary:
        """A vocabulary of only the words of this mask (n,), in their order."""
        smaller = Vocabulary()
        smaller.numbers(self._words[number] for number in np.flatnonzero(kept))
        return smaller

    def freeze(self) -> dict[str, FrozenArray]:
        """See Index.freeze. Words are only ever appended."""
        return {name: FrozenArray.of(stack.array) for name, stack in self._stacks().items()}

    @classmethod
    def restored(cls, saved: Saved) -> Vocabulary:
        made = cls()
        made._starts = Stack(np.int64)
        for name, stack in made._stacks().items():
            stack.extend(saved.array(name))
        blob, starts = made._blob.array.tobytes(), made._starts.array.tolist()
        made._words = [blob[start:end].decode() for start, end in pairwise(starts)]
        made._numbers = {word: number for number, word in enumerate(made._words)}
        return made

    def _stacks(self) -> dict[str, Stack]:
        return {
            "word_bytes": self._blob,
            "word_starts": self._starts,
            "word_lengths": self._lengths,
            "word_signatures": self._signatures,
            "word_sounds": self._sounds,
        }

    def match(self, word: str, kinds: Collection[Kind]) -> Candidates:
        """All words that match, each with its best kind of match.

        Quality: exact 1; substring 0.7 + 0.2 × the share of the found word that the query word
        covers; fuzzy 0.4 + 0.3 × (1 - edits / length of the longer), where a transposition is one
        edit; sound 0.3 + 0.3 × the similarity (1 - edits / length) of both in Latin letters. So the
        kinds keep their order.
        """
        found = Candidates(np.zeros(len(self), np.float32), np.zeros(len(self), np.uint8))
        # From the worst kind to the best, so that the best one remains.
        if "sound" in kinds:
            self._set(found, "sound", *self._sounding(word))
        if "fuzzy" in kinds:
            self._set(found, "fuzzy", *self._fuzzy(word))
        if "substring" in kinds:
            self._set(found, "substring", *self._holding(word))
        number = self.number(word)
        if "exact" in kinds and number is not None:
            self._set(found, "exact", np.array([number]), np.ones(1))
        return found

    def _set(
        self,
        found: Candidates,
        kind: Kind,
        words: npt.NDArray[np.integer],
        quality: npt.NDArray[np.floating],
    ) -> None:
        found.quality[words] = quality
        found.kind[words] = KINDS.index(kind)

    def _sounding(self, word: str) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]:
        sound = sound_of(word)
        if sound == 0:
            return np.empty(0, np.int64), np.empty(0)
        alike = np.flatnonzero(self._sounds.array == np.uint64(sound))
        latin = [in_latin(self._words[number]) for number in alike]
        likeness = process.cdist(
            [in_latin(word)], latin, scorer=Levenshtein.normalized_similarity, dtype=np.float64
        )
        return alike, 0.3 + 0.3 * likeness[0]

    def _fuzzy(self, word: str) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]:
        edits = edits_allowed(word)
        found = np.empty(len(self), np.int32)
        count = 0
        if edits:
            count = find_similar(
                self._signatures.array,
                self._lengths.array,
                np.uint64(signature_of(word)),
                len(word),
                edits,
                found,
            )
        near = found[:count]
        words = [self._words[number] for number in near]
        gaps = process.cdist(
            [word], words, scorer=OSA.distance, score_cutoff=edits, dtype=np.int32
        )[0]
        near, gaps = near[gaps <= edits], gaps[gaps <= edits]
        longer = np.maximum(self._lengths.array[near], len(word))
        return near, 0.4 + 0.3 * (1 - gaps / longer)

    def _holding(self, word: str) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]:
        found = np.empty(len(self), np.int32)
        count = 0
        if len(word) >= LEAST_SUBSTRING or without_case(word):
            needle = np.array(bytearray(word.encode()), np.uint8)
            count = find_substring(self._blob.array, self._starts.array, needle, found)
        holding = found[:count]
        return holding, 0.7 + 0.2 * len(word) / self._lengths.array[holding]

    def _extend(self, added: list[str]) -> None:
        encoded = [word.encode() for word in added]
        ends = np.cumsum([len(one) for one in encoded])
        self._starts.extend(ends + len(self._blob))
        self._blob.extend(np.frombuffer(b"".join(encoded), np.uint8))
        self._lengths.extend([len(word) for word in added])
        self._signatures.extend(np.array([signature_of(word) for word in added], np.uint64))
        self._sounds.extend(np.array([sound_of(word) for word in added], np.uint64))


def edits_allowed(word: str) -> int:
    """Maximum number of insertions, deletions, substitutions and transpositions of a recognisable
    word."""
    return 0 if len(word) < 3 else 1 if len(word) < 6 else 2
