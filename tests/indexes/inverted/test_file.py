"""Batches of queries, for which our code chooses the nearest lists, against FAISS's own search."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from indexes.inverted.file import MANY, FlatCentroids, InvertedFile, train
from indexes.local.descriptors import method, unit
from tests.indexes.local.scenes import random_features

ROWS = unit(random_features(1, 4000)["descriptor"])
QUERIES = unit(random_features(2, 3 * MANY)["descriptor"])
WANTED = np.random.default_rng(3).integers(0, 256, len(ROWS) // 8, np.uint8)


def found_by_faiss(
    learnt: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.int64]:
    index = faiss.deserialize_index(learnt)
    index.add_with_ids(ROWS, np.arange(len(ROWS)))
    selector = None if wanted is None else faiss.IDSelectorBitmap(wanted)
    params = faiss.IVFSearchParameters(nprobe=4, sel=selector)
    ids: npt.NDArray[np.int64] = index.search(QUERIES, 5, params=params)[1]
    return ids


@pytest.mark.parametrize("wanted", [None, WANTED], ids=["all", "some"])
@pytest.mark.parametrize("factory", ["IVF64,PQ64x4fs", "IVF64,SQ8", "PCA64,IVF64,PQ32x4fs"])
def test_many_queries_find_what_single_ones_and_faiss_do(
    factory: str, wanted: npt.NDArray[np.uint8] | None
) -> None:
    learnt = train(ROWS, 64, method(factory))
    rows = InvertedFile(learnt, probes=4)
    rows.add(np.arange(len(ROWS)), ROWS)
    distances, ids = rows.search(QUERIES, 5, wanted)
    np.testing.assert_array_equal(ids, found_by_faiss(learnt, wanted))
    alone = [rows.search(query[None], 5, wanted) for query in QUERIES]
    np.testing.assert_array_equal(ids, np.concatenate([one[1] for one in alone]))
    np.testing.assert_allclose(distances, np.concatenate([one[0] for one in alone]), rtol=1e-5)


@pytest.mark.parametrize(("count", "probes"), [(64, 1), (64, 7), (64, 64), (1300, 7)])
def test_the_nearest_lists_are_those_of_a_plain_comparison(count: int, probes: int) -> None:
    scales = np.random.default_rng(4).permutation(np.linspace(0.5, 2, count, dtype=np.float32))
    centroids = ROWS[:count] * scales[:, None]
    lists, gaps = FlatCentroids(centroids).nearest(QUERIES, probes)
    squared = ((QUERIES[:, None].astype(np.float64) - centroids) ** 2).sum(axis=2)
    np.testing.assert_array_equal(lists, np.argsort(squared, axis=1, kind="stable")[:, :probes])
    nearest = np.sort(squared, axis=1)[:, :probes]
    lengths = (QUERIES.astype(np.float64) ** 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(2 * gaps + lengths, nearest, atol=1e-4)
