"""Exact indexes against FAISS on one core: medians of one run, both asked the same queries.

    python -m benchmarks.indexes --rows 1000000 --what binary,histogram [--photos FOLDER]

Codes are random bits; 1 in 100 is a copy of another with up to 40 bits changed. Histograms are
mixtures of six colour patches: four pictures to a scene, which share most patches in other shares.
With --photos the patches are tiles of that folder's pictures; without, they are drawn: blobs
long along the grey axis and narrow across it. Such histograms have 110 to 160 of 512 bins in use,
90 % of their sum in about 28, and lie about 1.5e7 (of 2e7) from one another, as those of photos do.
At 1,000,000 rows it takes about 6 GB of memory: FAISS keeps 2 GB, and the rows themselves are 2 GB.

`roofline` is how long it takes to read once what a query must read, at the speed at which one core
reads memory in this run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before NumPy and FAISS are imported: they read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import numpy as np
import numpy.typing as npt
from numba import njit

from indexes.arrays.intrinsics import prefetch
from indexes.base import Index, Query, SearchParams
from indexes.registry import make_index

K = 20
RANGE = 64
BATCH = 8192
Histograms = npt.NDArray[np.float32]
CLOCK = [time.perf_counter]
"""The last one counts."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--what", default="binary,histogram")
    parser.add_argument("--queries", type=int, default=51)
    parser.add_argument("--cpu", action="store_true", help="CPU time, for a busy machine")
    parser.add_argument("--photos", type=Path, help="folder whose pictures' tiles are mixed")
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if given.cpu:
        CLOCK.append(time.thread_time)
    rng = np.random.default_rng(1)
    if "binary" in given.what.split(","):
        bench_binary(rng, given.rows, given.queries)
    if "histogram" in given.what.split(","):
        bench_histogram(rng, given.rows, given.queries, given.photos)


def bench_binary(rng: np.random.Generator, count: int, queries: int) -> None:
    codes = rng.integers(0, 256, (count, 72), np.uint8)
    copies = rng.integers(0, count, count // 100)
    changed = codes[rng.integers(0, count, len(copies))]
    flips = np.zeros((len(copies), 576), np.uint8)
    for row in flips:
        row[rng.integers(0, 576, 40)] = 1
    codes[copies] = changed ^ np.packbits(flips, axis=1)
    index = fill("binary", codes)
    flat = faiss.IndexBinaryFlat(576)
    flat.add(codes)
    asked = codes[rng.integers(0, count, queries)]
    mirror = rng.integers(0, 256, asked.shape, np.uint8)
    same_distances(index, asked, lambda code: flat.search(code[None], K)[0][0])
    took = compare(
        f"binary top-{K}",
        [lambda code=code: index.search(Query([code]), top(K)) for code in asked],
        [lambda code=code: flat.search(code[None], K) for code in asked],
    )
    report_roofline(72 * count, took)
    took = compare(
        f"binary range {RANGE}",
        [lambda code=code: index.search(Query([code]), within(RANGE)) for code in asked],
        [lambda code=code: flat.range_search(code[None], RANGE) for code in asked],
    )
    report_roofline(24 * count, took)
    compare(
        f"binary top-{K} with mirror",
        [
            lambda pair=pair: index.search(Query(pair), top(K))
            for pair in zip(asked, mirror, strict=True)
        ],
        [
            lambda pair=pair: flat.search(np.stack(pair), K)
            for pair in zip(asked, mirror, strict=True)
        ],
    )
    eight = [rng.integers(0, 256, (8, 72), np.uint8) for _ in asked]
    compare(
        f"binary range {RANGE} of 8 variants, against ours of one",
        [lambda codes=codes: index.search(Query(codes), within(RANGE)) for codes in eight],
        [lambda code=code: index.search(Query([code]), within(RANGE)) for code in asked],
        "one",
    )
    report_size(index, flat.ntotal * flat.code_size)


def bench_histogram(
    rng: np.random.Generator, count: int, queries: int, photos: Path | None
) -> None:
    patches = drawn_patches(rng) if photos is None else photo_patches(photos)
    rows = pictures(rng, patches, count)
    asked = rows[rng.integers(0, count, queries)].copy()
    fresh = pictures(rng, patches, queries)
    index = fill("histogram", rows)
    flat = faiss.IndexFlat(512, faiss.METRIC_L1)
    flat.add(rows)
    same_distances(index, asked, lambda row: flat.search(row[None], K)[0][0])
    for name, some in (("of the collection", asked), ("unlike any", fresh)):
        evidence = Judged(index)
        took = compare(
            f"histogram top-{K}, {name}",
            [lambda row=row: index.search(Query([row]), top(K)) for row in some],
            [lambda row=row: flat.search(row[None], K) for row in some],
        )
        report_roofline(64 * count + 516 * evidence.rows // evidence.queries, took)
    compare(
        "histogram range 3e6",
        [lambda row=row: index.search(Query([row]), within(3e6)) for row in asked],
        [lambda row=row: flat.range_search(row[None], 3e6) for row in asked[:9]],
    )
    report_size(index, flat.ntotal * 2048)


def fill(name: str, rows: npt.NDArray[Any]) -> Index:
    index = make_index(name, {}, lambda ids: {key: rows[key] for key in ids})
    start = time.perf_counter()
    for first in range(0, len(rows), 4096):
        part = rows[first : first + 4096]
        index.apply(dict(zip(range(first, first + len(part)), part, strict=True)))
    print(f"{name}: {len(index):,} rows applied in {time.perf_counter() - start:.1f} s")
    return index


def top(k: int) -> SearchParams:
    return SearchParams.parse({"k": k})


def within(distance: float) -> SearchParams:
    return SearchParams.parse({"distance_threshold": distance})


def same_distances(
    index: Index, asked: npt.NDArray[Any], truth: Callable[[Any], npt.NDArray[Any]]
) -> None:
    for row in asked[:10]:
        found = [hit.distance for hit in index.search(Query([row]), top(K))]
        # FAISS sums in float32, in another order.
        np.testing.assert_allclose(np.array(found), truth(row), rtol=1e-4, atol=10)


def compare(
    name: str,
    ours: Sequence[Callable[[], object]],
    theirs: Sequence[Callable[[], object]],
    other: str = "FAISS",
) -> float:
    """Interleaved, so that a neighbour's load falls on both; the median seconds of ours."""
    ours[0](), theirs[0]()
    mine, others = [], []
    for number, search in enumerate(ours):
        mine.append(seconds(search))
        others.append(seconds(theirs[number % len(theirs)]))
    a, b = 1000 * np.median(mine), 1000 * np.median(others)
    p95 = 1000 * np.percentile(mine, 95)
    print(f"{name}: p50 {a:.2f} ms (p95 {p95:.2f}), {other} {b:.2f} ms: {b / a:.2f}×")
    return float(np.median(mine))


class Judged:
    """Counts the rows of a histogram index whose fine codes its queries read."""

    def __init__(self, index: Any) -> None:
        self.rows = self.queries = 0
        self._bounds, self._find = type(index)._bounds, type(index)._find
        index._bounds = lambda query, positions: self._count(index, query, positions)
        index._find = lambda *given: self._next(index, *given)

    def _count(self, index: Any, query: Any, positions: Any) -> Any:
        self.rows += len(positions)
        return self._bounds(index, query, positions)

    def _next(self, index: Any, *given: Any) -> Any:
        self.queries += 1
        return self._find(index, *given)


@njit(nogil=True, cache=True)
def read_once(lines):  # type: ignore[no-untyped-def]
    total = np.uint64(0)
    for line in range(lines.shape[0]):
        prefetch(lines, line, 0)
        for word in range(8):
            total += lines[line, word]
    return total


def bandwidth() -> float:
    """Bytes a second that one core reads, asking for them ahead as the scans do."""
    words = np.ones((1 << 24, 8), np.uint64)
    read_once(words)
    return float(words.nbytes / np.median([seconds(lambda: read_once(words)) for _ in range(5)]))


def report_roofline(size: int, took: float) -> None:
    speed = bandwidth()
    least = size / speed
    print(
        f"  reads {size / 1e6:.0f} MB a query: roofline {1e3 * least:.1f} ms at "
        f"{speed / 1e9:.1f} GB/s, {least / took:.0%} of what it takes"
    )


def seconds(search: Callable[[], object]) -> float:
    start = CLOCK[-1]()
    search()
    return CLOCK[-1]() - start


def report_size(index: Index, theirs: int) -> None:
    ours = index.nbytes
    print(
        f"{index.kind}: {ours / 1e9:.3f} GB, {ours / len(index):.0f} bytes a row; "
        f"FAISS {theirs / len(index):.0f}"
    )


def drawn_patches(rng: np.random.Generator, count: int = 4096, points: int = 4000) -> Histograms:
    """Colour blobs as pictures have them, float32 (count, 512) of sum 1."""
    patches = np.empty((count, 512), np.float32)
    for number in range(count):
        centre = rng.uniform(0, 255) + rng.normal(0, 30, 3)
        along, across = rng.uniform(5, 45), rng.uniform(2, 15)
        colours = centre + along * rng.normal(size=(points, 1))
        colours = colours + across * rng.normal(size=(points, 3))
        bins = (np.clip(colours, 0, 255) // 32).astype(np.int64) @ np.array([64, 8, 1])
        patches[number] = np.bincount(bins, minlength=512) / points
    return patches


def photo_patches(folder: Path) -> Histograms:
    """The histograms of 4x4 tiles of every picture in a folder, float32 (n, 512) of sum 1."""
    import cv2

    found = []
    for path in sorted(folder.iterdir()):
        pixels = cv2.imread(str(path))
        if pixels is None or min(pixels.shape[:2]) < 4:
            continue
        for band in np.array_split(pixels[:, :, ::-1], 4):
            for tile in np.array_split(band, 4, axis=1):
                solid = np.ascontiguousarray(tile)
                counts = cv2.calcHist([solid], [0, 1, 2], None, [8] * 3, [0, 256] * 3).ravel()
                found.append(counts / counts.sum())
    return np.array(found, np.float32)


def pictures(
    rng: np.random.Generator, patches: Histograms, count: int, parts: int = 6, pixels: float = 2e5
) -> Histograms:
    """Histograms of pictures mixed of patches, float32 (count, 512) of sum 1e7."""
    from scipy.sparse import csr_matrix

    scenes = count // 4 + 1
    which = rng.integers(0, len(patches), (scenes, parts))
    shares = rng.gamma(0.7, 1, (scenes, parts))
    rows = np.empty((count, 512), np.float32)
    for start in range(0, count, BATCH):
        scene = rng.integers(0, scenes, min(BATCH, count - start))
        used = which[scene]
        other = rng.random(used.shape) < 0.15
        used[other] = rng.integers(0, len(patches), other.sum())
        share = shares[scene] * rng.lognormal(0, 0.5, used.shape)
        share = (share / share.sum(axis=1, keepdims=True)).astype(np.float32)
        edges = np.arange(0, used.size + 1, parts)
        composite = csr_matrix((share.ravel(), used.ravel(), edges), (len(scene), len(patches)))
        counts = np.floor((composite @ patches) * np.float32(pixels))
        rows[start : start + BATCH] = counts / counts.sum(axis=1, keepdims=True) * np.float32(1e7)
    return rows


if __name__ == "__main__":
    main()
