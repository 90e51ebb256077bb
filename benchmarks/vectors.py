"""Nearest vectors: `python -m benchmarks.vectors [--rows 1000000] [--width 512] [--graphs]`.

recall@10, memory and time of a query, on one core: our exact index, FAISS's exact, quantised and
inverted ones and, with `--graphs`, the graphs of FAISS, hnswlib and usearch (pip install hnswlib
usearch), which take minutes to build.

The rows are made up so that they lie as those of CLIP or BEiT do: in a narrow cone (the mean cosine
of two is about 0.4), with a spectrum that falls as rank^-0.7, in clusters of about 30 that are half
as wide as the whole. The queries are further members of the clusters.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

# Before NumPy and FAISS are imported: they read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.learnt import train_file
from indexes.base import Query
from indexes.inverted.file import ITERATIONS, list_count
from indexes.registry import make_index
from indexes.vectors.index import VectorIndex
from indexes.vectors.whitening import unit

K = 10
SAMPLE = 163_840
BATCH = 1 << 14
Vectors = npt.NDArray[np.float32]
Search = Callable[[Vectors], npt.NDArray[np.int64]]
"""Ids of the K nearest of one query (d,)."""


class Contender(NamedTuple):
    name: str
    megabytes: float
    built: float
    """Seconds, training included."""
    search: Search


class Collection:
    """Rows and queries, float32 of unit length."""

    def __init__(self, rows: int, width: int, queries: int = 200) -> None:
        rng = np.random.default_rng(0)
        self._deviation = np.arange(1, width + 1) ** -0.7
        self._deviation /= np.linalg.norm(self._deviation)
        self._cone = unit(rng.normal(size=(1, width)))[0] * 0.8
        centres = rows // 30 + 1
        self._centres = rng.normal(size=(centres, width)).astype(np.float32)
        self.rows = np.empty((rows, width), np.float32)
        for start in range(0, rows, BATCH):
            part = self.rows[start : start + BATCH]
            part[:] = self._members(rng, len(part))
        self.queries = self._members(rng, queries)

    def _members(self, rng: np.random.Generator, count: int) -> Vectors:
        centre = self._centres[rng.integers(0, len(self._centres), count)]
        own = rng.standard_normal(centre.shape, np.float32)
        return unit(self._cone + (centre + 0.5 * own) * self._deviation).astype(np.float32)


def ours(collection: Collection, **options: str) -> Contender:
    """Its stored rows are at hand: reading them from a store takes some microseconds each."""

    def stored(ids: Sequence[int]) -> dict[int, Vectors]:
        return {at: collection.rows[at] for at in ids}

    index = make_index("vectors", options, stored)
    began = time.perf_counter()
    for start in range(0, len(collection.rows), 4096):
        part = collection.rows[start : start + 4096]
        index.apply(dict(zip(range(start, start + len(part)), part, strict=True)))
    took = time.perf_counter() - began
    params = index.Params.parse({"k": K})

    def search(query: Vectors) -> npt.NDArray[np.int64]:
        return np.array([hit.image_id for hit in index.search(Query([query]), params)])

    return Contender(f"ours: {index.kind}", index.nbytes / 1e6, took, search)


def ours_trained(collection: Collection) -> Contender:
    """With the steps of `ambience train`."""
    began = time.perf_counter()
    sample = collection.rows[np.random.default_rng(1).permutation(len(collection.rows))[:SAMPLE]]
    method = VectorIndex(VectorIndex.Config(), lambda _: {}).training_method(sample.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        path = train_file(sample, len(collection.rows), method, Path(folder))
        learning = time.perf_counter() - began
        made = ours(collection, trained=str(path))
    return made._replace(built=made.built + learning)


def by_faiss(
    collection: Collection,
    factory: str,
    settings: Sequence[str] = ("",),
    reranked: Sequence[int] = (0,),
) -> Iterator[Contender]:
    """One index, searched with each of the settings, such as "nprobe=16".

    So many candidates are compared again by their float32 rows.
    """
    rows = collection.rows
    began = time.perf_counter()
    index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if "IVF" in factory:
        faiss.extract_index_ivf(index).cp.niter = ITERATIONS
    if factory.startswith("OPQ"):
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.niter, rotation.max_train_points = 10, 1 << 14
    if not index.is_trained:
        index.train(rows[np.random.default_rng(1).permutation(len(rows))[:SAMPLE]])
    index.add(rows)
    took = time.perf_counter() - began
    size = faiss.serialize_index(index).nbytes / 1e6

    def search(query: Vectors, count: int) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = index.search(query[None], max(K, count))[1][0]
        if count:
            ids = ids[np.argsort(-(rows[ids] @ query))][:K]
        return ids

    for setting, count in product(settings, reranked):
        faiss.ParameterSpace().set_index_parameters(index, setting)
        again = f", {count} again" if count else ""
        name = f"FAISS {factory} {setting}{again}"
        yield Contender(name, size, took, partial(search, count=count))


def by_hnswlib(collection: Collection, ef: int) -> Contender:
    import hnswlib

    began = time.perf_counter()
    index = hnswlib.Index("ip", collection.rows.shape[1])
    index.init_index(len(collection.rows), M=16, ef_construction=100)
    index.add_items(collection.rows, num_threads=1)
    took = time.perf_counter() - began
    index.set_ef(ef)
    size = index.index_file_size() / 1e6

    def search(query: Vectors) -> npt.NDArray[np.int64]:
        return np.asarray(index.knn_query(query[None], K, num_threads=1)[0][0], np.int64)

    return Contender(f"hnswlib M 16, ef {ef}", size, took, search)


def by_usearch(collection: Collection, kind: str, ef: int) -> Contender:
    from usearch.index import Index

    began = time.perf_counter()
    index = Index(
        ndim=collection.rows.shape[1],
        metric="ip",
        dtype=kind,
        connectivity=16,
        expansion_add=100,
        expansion_search=ef,
    )
    index.add(np.arange(len(collection.rows)), collection.rows, threads=1)
    took = time.perf_counter() - began

    def search(query: Vectors) -> npt.NDArray[np.int64]:
        return np.asarray(index.search(query, K, threads=1).keys, np.int64)

    return Contender(f"usearch {kind}, ef {ef}", index.memory_usage / 1e6, took, search)


def contenders(collection: Collection, *, graphs: bool, brief: bool) -> Iterator[Contender]:
    """Built one after the other: the caller lets go of each before the next."""
    lists = list_count(len(collection.rows))
    codes = collection.rows.shape[1] // 8
    probes = ["nprobe=16", "nprobe=64", "nprobe=256"]
    yield from by_faiss(collection, "Flat")
    yield ours(collection)
    yield ours_trained(collection)
    for factory in ("SQfp16", "SQ8"):
        yield from by_faiss(collection, factory)
    yield from by_faiss(collection, f"IVF{lists},SQ8", probes)
    for factory in (
        () if brief else (f"IVF{lists},PQ{codes}", f"OPQ{codes},IVF{lists},PQ{codes}x4fs")
    ):
        yield from by_faiss(collection, factory, probes[1:], reranked=[100, 500])
    if graphs:
        yield from by_faiss(collection, "HNSW32,SQ8", ["efSearch=64", "efSearch=256"])
        yield by_hnswlib(collection, 64)
        for kind in ("f16", "i8"):
            yield by_usearch(collection, kind, 64)


def measured(one: Contender, collection: Collection, truth: npt.NDArray[np.int64]) -> None:
    one.search(collection.queries[0])
    seconds, right = [], 0
    for query, nearest in zip(collection.queries, truth, strict=True):
        began = time.perf_counter()
        found = one.search(query)
        seconds.append(time.perf_counter() - began)
        right += len(np.intersect1d(found, nearest))
    recall = right / truth.size
    median, slow = 1e3 * np.median(seconds), 1e3 * np.percentile(seconds, 95)
    figures = f"{one.megabytes:8.0f} {recall:7.3f} {median:8.2f} {slow:8.2f} {one.built:8.0f}"
    print(f"{one.name:52} {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--brief", action="store_true", help="Without codes of several values.")
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    collection = Collection(given.rows, given.width)
    print(f"{'':52} {'MB':>8} {'recall':>7} {'p50 ms':>8} {'p95':>8} {'built s':>8}")
    flat = faiss.IndexFlatIP(given.width)
    flat.add(collection.rows)
    truth = flat.search(collection.queries, K)[1]
    del flat
    for one in contenders(collection, graphs=given.graphs, brief=given.brief):
        measured(one, collection, truth)


if __name__ == "__main__":
    main()
