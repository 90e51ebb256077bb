"""Exact descriptor search against brute force, and what quantised search must still find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from indexes.local.descriptors import (
    BLOCK,
    DescriptorSearch,
    FlatSearch,
    IvfPqSearch,
    descriptor_ids,
    unit,
)
from models.errors import InvalidInput
from tests.indexes.local.scenes import random_features

PICTURES, EACH = 100, 100
ROWS = unit(random_features(5, PICTURES * EACH)["descriptor"])
QUERIES = unit(random_features(6, 40)["descriptor"])
EVERY = np.arange(PICTURES)


def filled(search: DescriptorSearch) -> DescriptorSearch:
    for slot in range(PICTURES):
        search.add(descriptor_ids(slot, EACH), ROWS[slot * EACH : (slot + 1) * EACH])
    return search


def plain(rows: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.int64]:
    distances = ((QUERIES[:, None].astype(np.float64) - ROWS[None, rows]) ** 2).sum(axis=2)
    nearest = rows[np.argsort(distances, axis=1)[:, :k]]
    return (nearest // EACH << 8) + nearest % EACH


def test_exact_search_over_several_blocks_is_a_plain_search() -> None:
    assert PICTURES * EACH > BLOCK
    distances, ids = filled(FlatSearch()).search(QUERIES, 4, EVERY)
    np.testing.assert_array_equal(ids, plain(np.arange(len(ROWS)), 4))
    assert (np.diff(distances) >= 0).all()
    first = ROWS[(ids[:, 0] >> 8) * EACH + (ids[:, 0] & 255)]
    np.testing.assert_allclose(distances[:, 0], ((QUERIES - first) ** 2).sum(axis=1), atol=1e-5)


def test_unwanted_slots_are_never_found() -> None:
    wanted = np.where(EVERY % 3 == 0, EVERY, -1)
    rows = np.flatnonzero(np.repeat(wanted >= 0, EACH))
    _, ids = filled(FlatSearch()).search(QUERIES, 4, wanted)
    np.testing.assert_array_equal(ids, plain(rows, 4))


def test_where_there_are_fewer_than_k_the_id_is_minus_one() -> None:
    search = FlatSearch()
    search.add(descriptor_ids(0, 2), ROWS[:2])
    _, ids = search.search(QUERIES, 3, np.zeros(1, np.int64))
    assert (ids[:, 2] == -1).all()
    assert (FlatSearch().search(QUERIES, 2, np.empty(0, np.int64))[1] == -1).all()


@pytest.fixture(scope="module")
def quantised() -> DescriptorSearch:
    return filled(IvfPqSearch.train("IVF16,PQ64x4fs", 16, ROWS, 16))


def test_quantised_search_finds_the_descriptor_itself(quantised: DescriptorSearch) -> None:
    _, ids = quantised.search(ROWS[::97], 1, EVERY)
    rows = (ids[:, 0] >> 8) * EACH + (ids[:, 0] & 255)
    assert np.mean(rows == np.arange(len(ROWS))[::97]) > 0.95


def test_a_training_of_another_width_is_refused_with_both(quantised: DescriptorSearch) -> None:
    quantised.check_width(128)
    FlatSearch().check_width(64)
    with pytest.raises(InvalidInput, match=r"descriptors of 128 values, not 64: train again"):
        quantised.check_width(64)


def test_quantised_search_keeps_to_wanted_slots(quantised: DescriptorSearch) -> None:
    wanted = np.where(EVERY % 5 == 2, EVERY, -1)
    _, ids = quantised.search(ROWS[::97], 3, wanted)
    assert set((ids >> 8).ravel().tolist()) <= set(np.flatnonzero(wanted >= 0).tolist())
    assert quantised.search(ROWS[:3], 3, np.full(PICTURES, -1))[1].max() == -1


@pytest.mark.parametrize("factory", ["", "IVF16,PQ64x4fs", "PCA96,IVF16,PQ48x4fs", "IVF16,SQ8"])
def test_renumbering_gives_every_row_its_slots_new_number(factory: str) -> None:
    search = filled(IvfPqSearch.train(factory, 16, ROWS, 16) if factory else FlatSearch())
    kept = np.arange(PICTURES) % 4 == 1
    renumbered = np.where(kept, np.cumsum(kept) - 1, -1)
    before = search.search(QUERIES, 3, np.where(kept, EVERY, -1))[1]
    search.renumber(renumbered)
    after = search.search(QUERIES, 3, np.arange(kept.sum()))[1]
    np.testing.assert_array_equal((renumbered[before >> 8] << 8) + (before & 255), after)
    added = unit(random_features(9, 30)["descriptor"])
    search.add(descriptor_ids(int(kept.sum()), 30), added)
    _, ids = search.search(added, 1, np.arange(kept.sum() + 1))
    assert np.mean(ids[:, 0] >> 8 == kept.sum()) > 0.9
