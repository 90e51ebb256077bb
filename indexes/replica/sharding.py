"""A retriever that is split by image id: which ids a shard has, and how the shards' parts are
merged.

A search takes one round, or two where a shard must know what the others found. In the first of two
rounds each shard answers with its `Index._candidates`. `Index.merge_candidates` merges them, and
the second round sends the result to every shard. The answer equals that of one index over all
images, except that approximate (trained) indexes approximate each shard by itself.
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
    """Shard number `number` (from 0) of `of` shards. It holds the image ids with this remainder
    modulo `of`."""

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
    """The merged candidates for the second round; None when the first round was the last."""
    said = [part.candidates for part in parts if part.candidates is not None]
    return kind.merge_candidates(said, query, params) if said else None


def merge_hits(kind: type[Index], parts: Sequence[Part], params: SearchParams) -> list[Hit]:
    """The hits of a search, merged from the shards' parts of its last round.

    Confidence is computed over all images together, by the confidence model of the first shard that
    has one.
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
    return kind.with_confidence(hits, known, count, confidence_model)[params.offset :]


def stored_ids(store: Store, space: Space) -> npt.NDArray[np.int64]:
    """Ids over all shards, which share one background."""
    with store.scan(space, BATCH) as scan:
        return np.array([at for batch in scan.batches for at, _ in batch], np.int64)


def sample_ids(image_ids: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """At most `count` of these ids, ascending: a pseudo-random choice that is always the same for
    the same ids."""
    mixed = image_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.sort(image_ids[np.argsort(mixed)[:count]])
