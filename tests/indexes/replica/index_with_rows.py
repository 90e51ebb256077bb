"""Indexes of every kind over a dict of rows, saved to and restored from a snapshot file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from indexes.base import Hit, Index, Query
from indexes.registry import make_index
from indexes.replica.snapshot_file import opened, write
from models.types import Features
from tests.indexes.local.scenes import random_features

Changes = Mapping[int, Features | None]


def pool(kind: str) -> list[Features]:
    """Return a few features, so that many images tie."""
    rng = np.random.default_rng(4)
    if kind == "binary":
        return [*rng.integers(0, 256, (6, 72), np.uint8)]
    if kind == "histogram":
        shares = rng.gamma(0.05, size=(6, 512)) + 1e-9
        return [*(shares / shares.sum(axis=1, keepdims=True) * 1e7).astype(np.float32)]
    if kind == "vectors":
        return [*rng.normal(size=(6, 5)).astype(np.float32)]
    if kind == "text":
        words = ["", "dog", "a dog at the sea", "die See", "seaside doghouse", "sea sea lake"]
        rows = [orjson.dumps({"caption": {"text": text}}) for text in words]
        return [np.frombuffer(row, np.uint8) for row in rows]
    return [random_features(seed, 12) for seed in range(6)]


PARAMS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "binary": [{"k": 3}, {"distance_threshold": 300}],
    "histogram": [{"k": 3}, {"distance_threshold": 1.9e7}],
    "vectors": [{"k": 3}, {"k": 4, "aqe_n": 2, "aqe_alpha": 3}],
    "text": [{"k": 3}, {"distance_threshold": 0.9}],
    "local": [{"k": 3, "use_ransac": False}, {"use_smnn_matching": False, "use_ransac": False}],
}


class IndexWithRows:
    """An index and the rows that it reads; like the store, it changes the rows first."""

    def __init__(self, kind: str, options: Mapping[str, Any] | None = None) -> None:
        self.kind = kind
        self.options = options or {}
        self.rows: dict[int, Features] = {}
        self.index: Index = make_index(kind, self.options, self._read)

    def apply(self, changes: Changes) -> None:
        kept = {at: row for at, row in changes.items() if row is not None}
        self.rows = {at: row for at, row in self.rows.items() if at not in changes} | kept
        self.index.apply(changes)
        while self.index.maintain():
            pass

    def answers(self) -> list[list[Hit]]:
        """Search for each feature of the pool, alone and with another one as its mirror image."""
        some = pool(self.kind)
        pairs = [] if self.kind == "text" else [[one, some[0]] for one in some]
        queries = [Query(variants) for variants in [*([one] for one in some), *pairs]]
        params = [self.index.Params.parse(given) for given in PARAMS[self.kind]]
        return [self.index.search(query, one) for query in queries for one in params]

    def save(self, path: Path, between: Callable[[], None] = lambda: None) -> None:
        """Write the index's current state; `between` runs before each piece is taken."""
        frozen = self.index.freeze()

        def take(pieces: Iterator[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
            between()
            return next(pieces, None)

        write(path, {}, frozen, take)
        frozen.release()

    def load(self, path: Path, rows: Mapping[int, Features]) -> IndexWithRows:
        """Return a new index of the same kind, restored from a file over the given rows."""
        other = IndexWithRows(self.kind, self.options)
        other.rows = dict(rows)
        with opened(path) as saved:
            other.index.restore(saved)
        return other

    def _read(self, image_ids: Sequence[int]) -> dict[int, Features]:
        return {at: self.rows[at] for at in image_ids if at in self.rows}
