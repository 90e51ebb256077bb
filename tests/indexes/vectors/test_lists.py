"""A vector index over trained inverted lists, against the exact index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexes.base import Hit, Query
from indexes.inverted import trained
from indexes.inverted.file import list_count, train
from indexes.replica.snapshot_file import opened, write
from indexes.vectors.index import VectorIndex
from indexes.vectors.lists import DEAD_AT_LEAST
from indexes.vectors.whitening import fit, save, unit
from models.errors import RetrieverUnavailable
from models.types import Features

COUNT, WIDTH = 4000, 32
Vectors = npt.NDArray[np.float32]


def members(count: int, seed: int) -> Vectors:
    """Return unit vectors that form clusters, as real features do."""
    centres = np.random.default_rng(9).normal(size=(COUNT // 20, WIDTH))
    rng = np.random.default_rng(seed)
    drawn = centres[rng.integers(0, len(centres), count)] + 0.4 * rng.normal(size=(count, WIDTH))
    return unit(drawn).astype(np.float32)


VECTORS = members(COUNT, 0)
QUERIES = members(40, 1)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "some.npz"
    method = VectorIndex(VectorIndex.Config(), lambda _: {}).training_method(WIDTH)
    learnt = train(VECTORS, list_count(COUNT), method)
    trained.save(path, trained.Trained(3, COUNT, COUNT, None, learnt))
    return path


class TrainedAndExact:
    """The trained index and the exact one, over the same rows."""

    def __init__(self, path: Path, **options: int) -> None:
        self.stored: dict[int, Features] = {}
        config = VectorIndex.Config(trained=str(path), **options)  # type: ignore[arg-type]
        self.index = VectorIndex(config, self.rows)
        self.exact = VectorIndex(VectorIndex.Config(), self.rows)

    def rows(self, image_ids: Sequence[int]) -> dict[int, Features]:
        return {at: self.stored[at] for at in image_ids if at in self.stored}

    def apply(self, changes: dict[int, Features | None]) -> None:
        for at, row in changes.items():
            self.stored.pop(at, None)
            if row is not None:
                self.stored[at] = row
        self.index.apply(changes)
        self.exact.apply(changes)

    def recall(self, k: int = 10, **given: float) -> float:
        """Return the share of the exact hits that the trained index finds at the same distances."""
        right = 0
        for query in QUERIES:
            truth = found(self.exact, query, k=k, **given)
            right += len(set(found(self.index, query, k=k, **given)) & set(truth))
        return right / (len(QUERIES) * k)


def found(
    index: VectorIndex,
    query: Vectors,
    allowed: npt.NDArray[np.int64] | None = None,
    **given: float,
) -> list[Hit]:
    return index.search(Query([query], allowed), index.Params.parse(given))


def filled(path: Path, **options: int) -> TrainedAndExact:
    pair = TrainedAndExact(path, **options)
    for start in range(0, COUNT, 500):
        some = VECTORS[start : start + 500]
        pair.apply(dict(zip(range(start, start + len(some)), some, strict=True)))
    return pair


def test_most_of_the_nearest_are_found_with_their_exact_distances(training: Path) -> None:
    pair = filled(training)
    assert pair.index.kind == "cosine-ivf, training 3"
    assert len(pair.index) == COUNT
    assert pair.index.nbytes < pair.exact.nbytes
    assert pair.recall() >= 0.97
    assert pair.recall(aqe_n=5, aqe_alpha=3) >= 0.95
    assert pair.recall(offset=10) >= 0.95


def test_a_distance_alone_bounds_a_search(training: Path) -> None:
    pair = filled(training)
    for query in QUERIES[:10]:
        truth = found(pair.exact, query, distance_threshold=0.3)
        some = found(pair.index, query, distance_threshold=0.3)
        assert len(truth) > 3
        assert set(some) <= set(truth)
        assert len(some) >= 0.9 * len(truth)


@pytest.mark.parametrize("count", [30, 3900])
def test_only_allowed_ids_are_found(training: Path, count: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("indexes.vectors.lists.BATCH", 100)
    pair = filled(training)
    allowed = np.sort(np.random.default_rng(2).permutation(COUNT + 50)[:count])
    right = total = 0
    for query in QUERIES:
        truth = found(pair.exact, query, allowed, k=10)
        some = found(pair.index, query, allowed, k=10)
        assert {hit.image_id for hit in some} <= set(allowed.tolist())
        right, total = right + len(set(some) & set(truth)), total + len(truth)
    assert right >= 0.97 * total


def test_an_id_that_was_removed_comes_back_as_the_other_picture(training: Path) -> None:
    pair = filled(training)
    pair.apply(dict.fromkeys(range(0, COUNT, 2)))
    pair.apply({0: VECTORS[6], 2: VECTORS[2], 1: VECTORS[8], 3: None})
    assert len(pair.index) == COUNT // 2 + 1
    assert pair.recall() >= 0.97
    assert [hit.image_id for hit in found(pair.index, VECTORS[6], k=1)] == [0]
    assert [hit.image_id for hit in found(pair.index, VECTORS[8], k=1)] == [1]


def test_rows_removed_from_the_store_meanwhile_are_not_hits(training: Path) -> None:
    pair = filled(training)
    del pair.stored[17]
    hits = found(pair.index, VECTORS[17], k=5)
    assert len(hits) == 5
    assert 17 not in [hit.image_id for hit in hits]


def test_an_index_needs_compaction_once_more_rows_are_dead_than_live(training: Path) -> None:
    pair = filled(training)
    assert not pair.index.needs_compaction
    pair.apply(dict.fromkeys(range(COUNT - DEAD_AT_LEAST, COUNT)))
    assert not pair.index.needs_compaction
    pair.apply(dict.fromkeys(range(COUNT - DEAD_AT_LEAST)))
    assert pair.index.needs_compaction
    assert found(pair.index, VECTORS[0], k=1) == []


def test_what_is_restored_answers_and_goes_on_as_what_was_frozen(
    training: Path, tmp_path: Path
) -> None:
    pair = filled(training)
    pair.apply(dict.fromkeys(range(100, 300)))
    frozen = pair.index.freeze()
    write(tmp_path / "state", {}, frozen, lambda pieces: next(pieces, None))
    restored = VectorIndex(pair.index.options, pair.rows)
    with opened(tmp_path / "state") as saved:
        restored.restore(saved)
    for _ in range(2):
        assert len(restored) == len(pair.index)
        for query in QUERIES:
            assert found(restored, query, k=10) == found(pair.index, query, k=10)
        changes: dict[int, Features | None] = {150: VECTORS[7], 8: None, 9: VECTORS[150]}
        pair.apply(changes)
        restored.apply(changes)


def test_a_training_of_another_whitening_is_ignored_and_shown_in_the_index_kind(
    training: Path, tmp_path: Path
) -> None:
    save(tmp_path / "white.npz", fit([VECTORS], version=2))
    options = {"trained": str(training), "whitening": str(tmp_path / "white.npz")}
    index = VectorIndex(VectorIndex.Config.model_validate(options), lambda _: {})
    index.apply({1: VECTORS[1]})
    assert index.kind == (
        "cosine-flat, whitening 2, training 3 is of another whitening: train again"
    )
    assert [hit.image_id for hit in found(index, VECTORS[1], k=1)] == [1]


def test_a_damaged_training_is_refused(training: Path, tmp_path: Path) -> None:
    damaged = bytearray(training.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(RetrieverUnavailable, match="train again"):
        TrainedAndExact(tmp_path / "damaged.npz")
    assert trained.load(tmp_path / "nothing.npz") is None
