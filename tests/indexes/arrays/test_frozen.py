"""An index restored from a frozen state answers as the frozen index did."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.arrays import frozen_rows, rows
from indexes.base import Query
from indexes.local.descriptors import (
    DescriptorSearch,
    FlatSearch,
    IvfPqSearch,
    descriptor_ids,
    unit,
)
from indexes.local.index import LocalIndex, LocalParams
from indexes.registry import index_names
from indexes.replica.snapshot_file import opened, write
from indexes.text import postings as text_postings
from indexes.vectors.index import VectorIndex
from indexes.vectors.whitening import fit, save
from models.errors import SnapshotRejected
from models.types import Features
from tests.indexes.local.scenes import jittered, random_features
from tests.indexes.replica.index_with_rows import Changes, IndexWithRows, pool

CHANGE = st.dictionaries(st.integers(0, 20), st.none() | st.integers(0, 5), max_size=12)
HISTORY = st.lists(CHANGE, max_size=5)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few images take several segments, pieces and merges."""
    monkeypatch.setattr(rows, "SEGMENT", 8)
    monkeypatch.setattr(rows, "SMALLEST", 2)
    monkeypatch.setattr(rows, "AHEAD_SHARE", 1)
    monkeypatch.setattr(frozen_rows, "PIECE_BYTES", 200)
    monkeypatch.setattr(text_postings, "SMALLEST_TAIL", 8)


def changes_of(kind: str, history: list[dict[int, int | None]]) -> list[Changes]:
    some = pool(kind)
    return [
        {at: None if which is None else some[which] for at, which in step.items()}
        for step in history
    ]


def applied(kind: str, history: list[Changes]) -> IndexWithRows:
    kept = IndexWithRows(kind)
    for changes in history:
        kept.apply(changes)
    return kept


@pytest.mark.parametrize("kind", index_names())
def test_it_answers_and_goes_on_as_the_index_that_was_frozen(kind: str) -> None:
    @given(HISTORY, HISTORY, HISTORY)
    @settings(max_examples=8 if kind == "local" else 30, deadline=None)
    def check(
        before: list[dict[int, int | None]],
        meanwhile: list[dict[int, int | None]],
        after: list[dict[int, int | None]],
    ) -> None:
        as_frozen = applied(kind, changes_of(kind, before))
        live = applied(kind, changes_of(kind, before))
        todo = iter(changes_of(kind, meanwhile))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state"
            live.save(path, between=lambda: live.apply(next(todo, {})))
            restored = live.load(path, as_frozen.rows)
        assert len(restored.index) == len(as_frozen.index)
        assert restored.index.kind == as_frozen.index.kind
        assert restored.answers() == as_frozen.answers()
        for changes in changes_of(kind, meanwhile + after):
            restored.apply(changes)
            as_frozen.apply(changes)
        assert restored.answers() == as_frozen.answers()

    check()


def test_an_index_that_is_written_to_while_it_is_read_stays_as_it_was_frozen(
    tmp_path: Path,
) -> None:
    """Rows are removed, added and replaced between any two pieces."""
    codes = pool("binary")
    kept = IndexWithRows("binary")
    kept.apply({at: codes[at % 6] for at in range(100)})
    expected = kept.answers()
    before = dict(kept.rows)
    steps = iter(range(100))

    def change() -> None:
        step = next(steps, None)
        if step is not None:
            kept.apply({step: None, 200 + step: codes[step % 6], 30 + step: codes[(step + 1) % 6]})

    kept.save(tmp_path / "state", change)
    assert next(steps, None) is not None, "not all rows were still to be read"
    assert kept.load(tmp_path / "state", before).answers() == expected


def test_rows_given_up_and_written_anew_meanwhile_are_kept(tmp_path: Path) -> None:
    codes = pool("binary")
    kept = IndexWithRows("binary")
    kept.apply({at: codes[at % 6] for at in range(60)})
    expected, before = kept.answers(), dict(kept.rows)
    steps: Iterator[Changes] = iter(
        [dict.fromkeys(range(60)), dict.fromkeys(range(100, 160), codes[0])]
    )
    kept.save(tmp_path / "state", lambda: kept.apply(next(steps, {})))
    assert next(steps, None) is None
    assert kept.load(tmp_path / "state", before).answers() == expected


# --- trained descriptors --------------------------------------------------------------------------

PICTURES, EACH = 60, 40
DESCRIPTORS = unit(random_features(5, 2 * PICTURES * EACH)["descriptor"])
QUERIES = unit(random_features(6, 40)["descriptor"])


def add(search: DescriptorSearch, slots: range) -> None:
    for slot in slots:
        search.add(descriptor_ids(slot, EACH), DESCRIPTORS[slot * EACH : (slot + 1) * EACH])


@pytest.mark.parametrize("factory", ["", "IVF16,PQ64x4fs", "PCA96,IVF16,PQ48x4fs", "IVF16,SQ8"])
def test_descriptors_added_meanwhile_leave_no_trace(factory: str, tmp_path: Path) -> None:
    search: DescriptorSearch = (
        IvfPqSearch.train(factory, 16, DESCRIPTORS, 16) if factory else FlatSearch()
    )
    add(search, range(PICTURES))
    before, every = np.arange(PICTURES), np.arange(2 * PICTURES)
    distances, ids = search.search(QUERIES, 5, before)
    frozen = search.freeze()
    add(search, range(PICTURES, 2 * PICTURES))
    write(tmp_path / "state", {}, frozen, lambda pieces: next(pieces, None))
    with opened(tmp_path / "state") as saved:
        restored = IvfPqSearch.restored(saved, 16) if factory else FlatSearch.restored(saved)
    for found, expected in zip(restored.search(QUERIES, 5, before), (distances, ids), strict=True):
        np.testing.assert_array_equal(found, expected)
    add(restored, range(PICTURES, 2 * PICTURES))
    for found, expected in zip(
        restored.search(QUERIES, 5, every), search.search(QUERIES, 5, every), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert restored.nbytes == search.nbytes


def test_what_another_version_of_faiss_has_laid_out_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = IvfPqSearch.train("IVF16,PQ64x4fs", 16, DESCRIPTORS, 16)
    write(tmp_path / "state", {}, search.freeze(), lambda pieces: next(pieces, None))
    monkeypatch.setattr("faiss.__version__", "0.1")
    with (
        opened(tmp_path / "state") as saved,
        pytest.raises(SnapshotRejected, match="made with FAISS"),
    ):
        IvfPqSearch.restored(saved, 16)


def trained() -> IndexWithRows:
    kept = IndexWithRows("local", {"train_above": 1000})
    kept.apply({at: random_features(at, 30) for at in range(60)})
    assert isinstance(kept.index, LocalIndex)
    kept.index.wait_for_training()
    kept.apply({3: None, 7: random_features(99, 30), 61: random_features(61, 30)})
    return kept


def found(kept: IndexWithRows) -> list[object]:
    params = LocalParams(k=5, use_ransac=False)
    queries: list[list[Features]] = [
        [jittered(random_features(at, 30), at)] for at in range(0, 62, 7)
    ]
    return [kept.index.search(Query(query), params) for query in queries]


def test_a_trained_local_index_is_restored_as_it_was_trained(tmp_path: Path) -> None:
    kept = trained()
    assert kept.index.kind == "local-ivfpq"
    kept.save(tmp_path / "state")
    restored = kept.load(tmp_path / "state", kept.rows)
    assert restored.index.kind == "local-ivfpq"
    assert found(restored) == found(kept)
    for one in (kept, restored):
        one.apply({61: None, 70: random_features(70, 30), 7: random_features(7, 30)})
    assert found(restored) == found(kept)
    assert len(restored.index) == len(kept.index) == len(kept.rows)


def test_a_training_that_was_under_way_begins_anew(tmp_path: Path) -> None:
    kept = IndexWithRows("local", {"train_above": 1000})
    kept.apply({at: random_features(at, 30) for at in range(60)})
    kept.save(tmp_path / "state")
    restored = kept.load(tmp_path / "state", kept.rows)
    assert isinstance(restored.index, LocalIndex)
    restored.index.wait_for_training()
    assert restored.index.kind == "local-ivfpq"
    assert len(restored.index) == 60
    assert isinstance(kept.index, LocalIndex)
    kept.index.wait_for_training()


# --- whitening ------------------------------------------------------------------------------------


def test_a_whitened_index_says_what_it_was_whitened_with(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    seen = []
    for version in (1, 2):
        save(tmp_path / "whitening.npz", fit([vectors], version))
        options = VectorIndex.Config(whitening=str(tmp_path / "whitening.npz"))
        seen.append(VectorIndex(options, lambda _: {}).depends_on)
    assert seen[0] != seen[1]
    assert VectorIndex(VectorIndex.Config(), lambda _: {}).depends_on == {
        "whitening": None,
        "trained": None,
    }
