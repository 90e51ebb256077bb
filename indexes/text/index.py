"""Search in annotations: same words, parts of words, misspelt words, and words of any script that
sound alike.

Query words are matched with the vocabulary of all texts, and only the posting lists of matching
words are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from indexes.arrays.frozen import Frozen, Saved
from indexes.base import DistanceParams, Hit, Index, Query, Rows, SearchParams
from indexes.text.kernels import MICRO, add_weighted, count_best, finish_scores
from indexes.text.postings import Postings
from indexes.text.vocabulary import KINDS, Candidates, Kind, Vocabulary
from indexes.text.words import passages_of, words_of
from models.errors import InvalidInput
from models.types import Features, Options

MAX_WORDS = 32
"""Number of different query words that count; further words are ignored."""


class TextParams(DistanceParams):
    """Parameters. A distance is 1 - score: 0 when every word matches exactly."""

    match: tuple[Kind, ...] = Field(
        KINDS, min_length=1, description="Kinds of matches to accept; default: all."
    )


@dataclass(frozen=True, slots=True)
class QueryWord:
    """One query word as written, and the vocabulary words that match it."""

    written: str
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class WordStatistics:
    """Statistics of the query words in one shard."""

    count: int
    """Number of images in the shard."""
    words: list[tuple[float, int]]
    """For each word, its best quality in the shard and the number of images that have it."""


class TextIndex(Index):
    """Index of annotations: a JSON object in UTF-8, (n,) uint8. A query is text in UTF-8, (n,)
    uint8.

    A query word that is found in an image has a quality there, that of its best match (see
    `Vocabulary.match`), and a weight: Robertson and Spärck Jones' idf, log(1 + (N - n + 0.5) / (n +
    0.5)), where n of the N images have the best match of the word. An image's score is the weighted
    mean of its qualities, 0 for missing words, times (1 + m / q) / 2 where m of the query's q words
    are found. Scores lie in [0, 1], in whole millionths. Neither the order of words nor their
    number of occurrences matters.
    """

    Params: ClassVar[type[SearchParams]] = TextParams
    fused: ClassVar[Mapping[str, Any]] = {"k": 200}

    def __init__(self, options: Options, rows: Rows) -> None:
        super().__init__(options, rows)
        self._vocabulary, self._postings = Vocabulary(), Postings()
        self._warm_up()
        self._vocabulary, self._postings = Vocabulary(), Postings()

    def __len__(self) -> int:
        return len(self._postings)

    @property
    def nbytes(self) -> int:
        return self._vocabulary.nbytes + self._postings.nbytes

    @property
    def kind(self) -> str:
        return "inverted-lists"

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        """See Index.apply. Raises InvalidInput, and applies nothing, for a row that is no JSON."""
        words = {key: _words_in(row) for key, row in changes.items() if row is not None}
        self._postings.remove([key for key, row in changes.items() if row is None])
        self._postings.put({key: self._vocabulary.numbers(some) for key, some in words.items()})
        if self._postings.full:
            self._merge()

    def freeze(self) -> Frozen:
        return Frozen({}, self._vocabulary.freeze() | self._postings.freeze())

    def restore(self, saved: Saved) -> None:
        vocabulary, postings = Vocabulary.restored(saved), Postings.restored(saved)
        self._vocabulary, self._postings = vocabulary, postings

    def _merge(self) -> None:
        used = self._postings.merge(len(self._vocabulary))
        if 2 * used.sum() < len(used):
            self._postings.keep_words(used)
            self._vocabulary = self._vocabulary.only(used)

    def _candidates(self, query: Query, params: SearchParams) -> WordStatistics:
        assert isinstance(params, TextParams)
        asked = self._matched_words(query, params)
        bests = [self._postings.best(one.candidates) for one in asked]
        return WordStatistics(len(self), [_word_statistics(best) for best in bests])

    @classmethod
    def merge_candidates(
        cls, said: Sequence[WordStatistics], _: Query, __: SearchParams
    ) -> list[float]:
        """The weight of each query word over all shards."""
        count = sum(one.count for one in said)
        return [_weight(count, parts) for parts in zip(*(one.words for one in said), strict=True)]

    def _matched_words(self, query: Query, params: TextParams) -> list[QueryWord]:
        return [
            QueryWord(written, self._vocabulary.match(word, params.match))
            for word, written in _query_words(query).items()
        ]

    def _search(self, query: Query, params: SearchParams) -> list[Hit]:
        assert isinstance(params, TextParams)
        asked = self._matched_words(query, params)
        if not asked:
            return []
        scores = self._scores([one.candidates for one in asked], query.candidates)
        slots = self._chosen(scores, query.allowed, params)
        ids, found = self._postings.image_ids[slots].tolist(), scores[slots].tolist()
        rows = self.rows(ids)
        return [
            Hit(
                image_id,
                distance=(MICRO - score) / MICRO,
                score=score / MICRO,
                matched=self._matched(asked, rows[image_id]) if image_id in rows else None,
            )
            for image_id, score in zip(ids, found, strict=True)
        ]

    def _scores(
        self, asked: Sequence[Candidates], global_weights: Sequence[float] | None
    ) -> npt.NDArray[np.int32]:
        """Scores by slot in millionths; 0 where nothing is found. Each word is weighted by this
        index alone, unless the weights of all shards are given."""
        size = len(self._postings.image_ids)
        totals, matched = np.zeros(size, np.float32), np.zeros(size, np.uint8)
        weights = 0.0
        for number, candidates in enumerate(asked):
            best = self._postings.best(candidates)
            weight = (
                _weight(len(self), [_word_statistics(best)])
                if global_weights is None
                else global_weights[number]
            )
            add_weighted(best, weight, totals, matched)
            weights += weight
        scores = np.empty(size, np.int32)
        finish_scores(totals, matched, weights, len(asked), scores)
        return scores

    def _chosen(
        self,
        scores: npt.NDArray[np.int32],
        allowed: npt.NDArray[np.int64] | None,
        params: SearchParams,
    ) -> npt.NDArray[np.int64]:
        """Slots of the hits, best first, ties by image id."""
        slots = np.flatnonzero(scores)
        if allowed is not None:
            slots = slots[_allowed_mask(self._postings.image_ids[slots], allowed)]
        if params.distance_threshold is not None:
            slots = slots[(MICRO - scores[slots]) / MICRO < params.distance_threshold]
        ids, found = self._postings.image_ids[slots], scores[slots]
        if params.k is not None and len(slots) > params.k:
            # The worst score among the hits; of the slots that share it, those with
            # the smallest ids.
            worst = np.partition(found, -params.k)[-params.k]
            better, tied = np.flatnonzero(found > worst), np.flatnonzero(found == worst)
            room = params.k - len(better)
            tied = tied[np.argpartition(ids[tied], room - 1)[:room]]
            kept = np.concatenate([better, tied])
            slots, ids, found = slots[kept], ids[kept], found[kept]
        return slots[np.lexsort((ids, -found))]

    def _matched(self, asked: Sequence[QueryWord], row: Features) -> list[dict[str, Any]]:
        """For each query word that the row holds, its best match, the first of several."""
        best: dict[int, tuple[float, dict[str, Any]]] = {}
        for number, word, place in self._places(row):
            for which, one in enumerate(asked):
                quality = float(one.candidates.quality[number])
                if quality > best.get(which, (0.0,))[0]:
                    how = KINDS[one.candidates.kind[number]]
                    said = {"word": one.written, "as": how, "found": word, **place}
                    best[which] = quality, said
        return [best[which][1] for which in sorted(best)]

    def _places(self, row: Features) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Each word of a row that is in the vocabulary: its number, its text, and its position."""
        for source, text, is_tag in passages_of(row):
            for folded, start, end in words_of(text):
                number = self._vocabulary.number(folded)
                if number is not None:
                    tag = {"tag": text} if is_tag else {}
                    yield number, text[start:end], {"in": source, "at": [start, end], **tag}

    def _warm_up(self) -> None:
        """Compile all kernels, or load them from the cache, before the first query."""
        row = np.frombuffer(b'{"warm":{"text":"warmth"}}', np.uint8)
        self.apply({0: row})
        query = np.frombuffer(b"warmht", np.uint8)
        for _ in range(2):
            self.search(Query([query]), TextParams(k=1))
            self._merge()


def _word_statistics(best: npt.NDArray[np.float32]) -> tuple[float, int]:
    """The best quality (by slot) of a word, and the number of slots that have it."""
    return float(best.max(initial=0)), int(count_best(best))


def _weight(count: int, standings: Sequence[tuple[float, int]]) -> float:
    """The idf of a word with these statistics in shards of so many images."""
    top = max(quality for quality, _ in standings)
    having = sum(number for quality, number in standings if quality == top)
    return math.log1p((count - having + 0.5) / (having + 0.5))


def _words_in(row: Features) -> list[str]:
    return [word.folded for passage in passages_of(row) for word in words_of(passage.text)]


def _query_words(query: Query) -> dict[str, str]:
    """The query's first MAX_WORDS different words, normalised → as written.

    A stored row can be a query: then the words are those of its annotations.
    """
    features = query.variants[0]
    try:
        texts = [passage.text for passage in passages_of(features)]
    except InvalidInput:
        texts = [features.tobytes().decode(errors="replace")]
    asked: dict[str, str] = {}
    for text in texts:
        for folded, start, end in words_of(text):
            asked.setdefault(folded, text[start:end])
    return dict(islice(asked.items(), MAX_WORDS))


def _allowed_mask(
    ids: npt.NDArray[np.int64], allowed: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which ids are in `allowed`, which is ascending and not empty."""
    places = np.minimum(np.searchsorted(allowed, ids), len(allowed) - 1)
    return np.asarray(allowed[places] == ids)


INDEX = TextIndex
