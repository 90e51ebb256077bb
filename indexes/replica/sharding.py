"""Sharding of a retriever by image id, and the merging of the shards' parts of an answer.

A search takes one round, or two if a shard needs the candidates of the others. In the first of two
rounds each shard answers with its `Index._candidates`. `Index.merge_candidates` merges them, and
the second round sends the result to every shard. The answer equals that of one index over all
images, except for approximate (trained) indexes, which approximate each shard separately.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice, repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from indexes.base import Hit, Index, Part, Query, SearchParams
from indexes.store.base import Space, Store

BATCH = 4096
"""Rows read at a time."""


class Shard(NamedTuple):
    """Shard `number` (from 0) of `of` shards. It holds the image ids that leave the remainder
    `number` modulo `of`."""

    number: int = 0
    of: int = 1

    def holds(self, image_id: int) -> bool:
        return image_id % self.of == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE = Shard()
"""The only shard of a retriever that is not split."""


def merge_candidates(
    kind: type[Index], parts: Sequence[Part], query: Query, params: SearchParams
) -> Any:
    """Merge the candidates for the second round; None if the first round was the last."""
    said = [part.candidates for part in parts if part.candidates is not None]
    return kind.merge_candidates(said, query, params) if said else None


def merge_hits(kind: type[Index], parts: Sequence[Part], params: SearchParams) -> list[Hit]:
    """Merge the shards' parts of the last round of a search into its hits.

    Confidence is computed over the images of all shards, with the confidence model of the first
    shard that has one.
    """
    count = sum(part.count for part in parts)
    confidence_model = next(
        (part.confidence_model for part in parts if part.confidence_model), None
    )
    lists = (
        zip(part.hits, repeat(None) if part.evidence is None else part.evidence, strict=False)
        for part in parts
    )
    rows = islice(heapq.merge(*lists, key=lambda row: kind.sort_key(row[0])), kind.max_hits(params))
    hits, evidence = [], []
    for hit, one in rows:
        hits.append(hit)
        evidence.append(one)
    known = None if any(one is None for one in evidence) else np.array(evidence, np.float64)
    hits = kind.with_confidence(hits, known, count, confidence_model)
    return kind.finished(hits, params)[params.offset :]


def stored_ids(store: Store, space: Space) -> npt.NDArray[np.int64]:
    """Ids (n,) of all rows of a space; all shards share one background model of them."""
    with store.scan(space, BATCH) as scan:
        return np.array([at for batch in scan.batches for at, _ in batch], np.int64)


def sample_ids(image_ids: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Sample at most `count` of these ids (n,), ascending; the same ids always give the same
    pseudo-random sample."""
    mixed = image_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.sort(image_ids[np.argsort(mixed)[:count]])
