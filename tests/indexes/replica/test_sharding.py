"""Sharded answers equal unsharded ones, with ties and confidence, for every kind of index."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.base import Hit, Index, Query, SearchParams
from indexes.registry import make_index
from indexes.replica.sharding import WHOLE, Shard, merge_candidates, merge_hits, sample_ids
from indexes.replica.snapshot_file import opened, write
from models.types import Features
from tests.indexes.local.scenes import jittered, random_features

Make = Callable[[int], Features]
"""Makes features from a seed; there are few seeds, so that many images tie."""
WORDS = ["dog", "dogs", "sea", "seaside", "Rex", "racks", "the", "собака"]


def code(seed: int) -> Features:
    return np.random.default_rng(seed // 2).integers(0, 4, 72, np.uint8) ^ np.uint8(seed % 2)


def histogram(seed: int) -> Features:
    raw = np.random.default_rng(seed).gamma(0.2, size=512)
    return (raw / raw.sum() * 1e7).astype(np.float32)


def vector(seed: int) -> Features:
    raw = np.random.default_rng(seed).normal(size=24) + 0.8
    return (raw / np.linalg.norm(raw)).astype(np.float32)


def keypoints(seed: int) -> Features:
    """Return keypoints; of three seeds, the last two give changed copies of the first."""
    whole = random_features(seed // 3, 40)
    return jittered(whole, seed)[: 40 - seed % 5] if seed % 3 else whole


def annotations(seed: int) -> Features:
    rng = np.random.default_rng(seed)
    said = {"caption": {"text": " ".join(rng.choice(WORDS, 3))}}
    return np.frombuffer(json.dumps(said).encode(), np.uint8)


def words(seed: int) -> Features:
    rng = np.random.default_rng(seed + 99)
    return np.frombuffer(" ".join(rng.choice([*WORDS, "dgo", "nowhere"], 3)).encode(), np.uint8)


@dataclass(frozen=True)
class Case:
    """A kind of index with its features, its queries and its search parameters."""

    kind: str
    make: Make
    params: Sequence[Mapping[str, Any]]
    ask: Make | None = None
    options: Mapping[str, Any] | None = None
    variants: bool = True


DISTANCES = [{"k": 1}, {"k": 7}, {"k": 10_000, "offset": 3}, {"k": 4, "offset": 5}]
LOCAL: list[dict[str, Any]] = [
    {},
    {"k": 3},
    {"k": 2, "offset": 2, "explain": True},
    {"aligned": True, "min_inliers": 5, "k": 200},
    {"aligned": True, "min_inliers": 40, "k": 200, "explain": True},
    {"use_ransac": False, "k_clusters": 2},
    {"use_ransac": False, "use_smnn_matching": False, "knn_min_matches": 3},
    {"use_smnn_matching": False, "k": 5, "k_clusters": 1},
]
CASES = {
    "binary": Case("binary", code, [*DISTANCES, {"distance_threshold": 170}]),
    "histogram": Case("histogram", histogram, [*DISTANCES, {"distance_threshold": 1.3e7, "k": 9}]),
    "vectors": Case(
        "vectors",
        vector,
        [
            *DISTANCES,
            {"distance_threshold": 0.5, "offset": 1},
            {"k": 6, "aqe_n": 3, "aqe_alpha": 3},
            {"distance_threshold": 0.4, "aqe_n": 50, "aqe_alpha": 0, "offset": 2},
        ],
    ),
    "normalised": Case("vectors", vector, [{"k": 7}], options={"score_norm": 1.0}),
    "local": Case("local", keypoints, LOCAL),
    "text": Case(
        "text",
        annotations,
        [*DISTANCES, {"distance_threshold": 0.4}, {"k": 5, "match": ["fuzzy"]}],
        ask=words,
        variants=False,
    ),
}


class Library:
    """The same images in one index and in shards."""

    def __init__(self, case: Case, of: int) -> None:
        self.rows: dict[int, Features] = {}
        self.whole = make_index(case.kind, case.options or {}, self._read)
        self.shards = {
            Shard(number, of): make_index(case.kind, case.options or {}, self._read)
            for number in range(of)
        }

    def _read(self, image_ids: Sequence[int]) -> Mapping[int, Features]:
        return {at: self.rows[at] for at in image_ids if at in self.rows}

    def apply(self, changes: Mapping[int, Features | None]) -> None:
        for at, row in changes.items():
            if row is None:
                self.rows.pop(at, None)
            else:
                self.rows[at] = row
        self.whole.apply(changes)
        for shard, index in self.shards.items():
            index.apply({at: row for at, row in changes.items() if shard.holds(at)})

    def restart(self) -> None:
        """Restore every shard from its own snapshot; the unsharded index stays as it is."""
        for shard, index in self.shards.items():
            fresh = type(index)(index.options, self._read)
            with tempfile.TemporaryDirectory() as folder:
                path, frozen = Path(folder) / "state", index.freeze()
                write(path, {}, frozen, lambda pieces: next(pieces, None))
                frozen.release()
                with opened(path) as saved:
                    fresh.restore(saved)
            self.shards[shard] = fresh

    def fit(self, make: Make) -> None:
        """Fit one background model for all indexes, as followers of one store do."""
        sample = np.stack([make(seed) for seed in range(100, 160)])
        for index in (self.whole, *self.shards.values()):
            if index.image_ids().size:
                index.background = index.background_of(sample)

    def at_once(self, query: Query, params: SearchParams) -> list[Hit]:
        return self.whole.answer(query, params)

    def sharded(self, query: Query, params: SearchParams) -> list[Hit]:
        query = replace(query, sharded=True)
        parts = self._round(query, params)
        common = merge_candidates(type(self.whole), parts, query, params)
        if common is not None:
            common = pickle.loads(pickle.dumps(common))
            parts = self._round(replace(query, candidates=common), params)
        return merge_hits(type(self.whole), parts, params)

    def _round(self, query: Query, params: SearchParams) -> list[Any]:
        parts = [index.part(query, params) for index in self.shards.values()]
        return list(pickle.loads(pickle.dumps(parts)))


IDS = st.integers(0, 60)
SEEDS = st.integers(0, 12)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_shards_together_answer_as_one_index_does(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    library = Library(case, data.draw(st.integers(1, 4), "shards"))
    library.apply(
        {at: case.make(seed) for at, seed in data.draw(st.dictionaries(IDS, SEEDS)).items()}
    )
    if data.draw(st.booleans(), "from snapshots"):
        library.restart()
    changes = data.draw(st.dictionaries(IDS, st.none() | SEEDS, max_size=8), "changes")
    library.apply({at: None if seed is None else case.make(seed) for at, seed in changes.items()})
    if case.kind not in ("local", "text"):
        library.fit(case.make)
    for _ in range(4):
        made = case.ask or case.make
        seeds = data.draw(st.lists(SEEDS, min_size=1, max_size=1 + case.variants), "query")
        allowed = data.draw(st.none() | st.lists(IDS, unique=True), "allowed")
        only = None if allowed is None else np.array(sorted(allowed), np.int64)
        of_words = case.kind == "vectors" and len(seeds) == 1 and data.draw(st.booleans(), "words")
        query = Query([made(seed) for seed in seeds], only, is_one_picture=not of_words)
        params = library.whole.Params.parse(data.draw(st.sampled_from(case.params), "params"))
        assert library.sharded(query, params) == library.at_once(query, params)


def test_every_id_is_of_exactly_one_shard() -> None:
    for at in (0, 1, 6, 2**47 - 1):
        assert sum(Shard(number, 3).holds(at) for number in range(3)) == 1
        assert WHOLE.holds(at)


def test_a_sample_depends_on_the_ids_alone_and_changes_little_as_they_grow() -> None:
    ids = np.arange(0, 5000, 3)
    sample = sample_ids(ids, 100)
    assert sample.tolist() == sample_ids(ids[::-1], 100).tolist()
    assert set(sample) <= set(ids)
    grown = sample_ids(np.append(ids, np.arange(1, 100, 3)), 100)
    assert 90 <= len(set(grown) & set(sample)) < 100
    assert sample_ids(ids[:5], 100).tolist() == ids[:5].tolist()


def test_every_kind_of_index_is_among_the_cases() -> None:
    from indexes.registry import index_names

    assert {case.kind for case in CASES.values()} == set(index_names())


def test_an_index_that_needs_no_second_round_says_so() -> None:
    index: Index = make_index("binary", {}, lambda _: {})
    index.apply({4: code(1)})
    part = index.part(Query([code(1)], sharded=True), index.Params.parse({"k": 1}))
    assert part.candidates is None
    assert [hit.image_id for hit in part.hits] == [4]
