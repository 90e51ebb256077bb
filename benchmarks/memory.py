"""Bytes a picture: resident in memory, in the index's arrays, and in its snapshot.

    python -m benchmarks.memory [--rows 262144] [--what "phash;color;…"]

Each index is filled, in a process of its own, by batches as a replica reads them from its store.
`resident` is what the process has grown by, with what NumPy, FAISS and Python keep; `peak` is the
most that it grew by while it was filled.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Before NumPy and FAISS are imported: they read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.learnt import train_file
from benchmarks.loading import print_table
from indexes.base import Index
from indexes.registry import make_index
from indexes.vectors.whitening import unit
from models.extractors.local import LOCAL_DTYPE

BATCH = 4096
KEYPOINTS = 200
SAMPLE = 20_480


class Case(NamedTuple):
    """An index, and how many fewer pictures it gets."""

    index: str
    width: int
    learnt: bool = False
    fewer: int = 1


CASES: Mapping[str, Case] = {
    "phash": Case("binary", 72),
    "color": Case("histogram", 512),
    "vectors-512": Case("vectors", 512),
    "vectors-512, trained": Case("vectors", 512, learnt=True),
    "vectors-768": Case("vectors", 768),
    "vectors-768, trained": Case("vectors", 768, learnt=True),
    "local, trained": Case("local", 128, learnt=True, fewer=32),
}


class Measured(NamedTuple):
    """Bytes a picture."""

    pictures: int
    resident: float
    peak: float
    arrays: float
    snapshot: float


def batch_of(case: Case) -> npt.NDArray[Any]:
    """Features of BATCH pictures, which come again under other ids: only their sizes matter."""
    rng = np.random.default_rng(0)
    if case.index == "binary":
        return rng.integers(0, 256, (BATCH, case.width), np.uint8)
    if case.index == "vectors":
        return unit(rng.standard_normal((BATCH, case.width), np.float32)).astype(np.float32)
    if case.index == "histogram":
        # A photograph's colours fill about a tenth of the bins.
        shares = rng.random((BATCH, case.width), np.float32) ** 20
        return (shares * (1e7 / shares.sum(axis=1, keepdims=True))).astype(np.float32)
    rows = np.zeros((BATCH, KEYPOINTS), LOCAL_DTYPE)
    for name, most in (("x", 1024), ("y", 768), ("scale", 20), ("angle", 360)):
        rows[name] = rng.uniform(1, most, rows.shape)
    rows["descriptor"] = rng.integers(0, 256, (*rows.shape, 128), np.uint8)
    return rows


def learnt_from(case: Case, rows: int, folder: Path) -> Path:
    """A file of `ambience train`, of a small sample."""
    index = make_index(case.index, {}, lambda _: {})
    features = batch_of(case)
    points = np.concatenate([index.training_vectors(list(features))] * -(-SAMPLE // len(features)))
    points = points + np.random.default_rng(1).normal(0, 0.02, points.shape)
    sample = points[:SAMPLE].astype(np.float32)
    per_row = KEYPOINTS if case.index == "local" else 1
    return train_file(sample, rows * per_row, index.training_method(case.width), folder)


def measure(name: str, rows: int, options: Mapping[str, Any]) -> Measured:
    """In a process of its own."""
    case, features = CASES[name], batch_of(CASES[name])
    index = make_index(case.index, options, lambda ids: {at: features[at % BATCH] for at in ids})
    fill(index, features, 0, BATCH)
    before = _resident()
    fill(index, features, BATCH, BATCH + rows)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (_resident() - before) / rows
    frozen = index.freeze()
    saved = sum(
        array.dtype.itemsize * int(np.prod(array.shape)) for array in frozen.arrays.values()
    )
    pictures = BATCH + rows
    return Measured(rows, grown, (peak - before) / rows, index.nbytes / pictures, saved / pictures)


def fill(index: Index, features: npt.NDArray[Any], begin: int, end: int) -> None:
    for first in range(begin, end, BATCH):
        ids = range(first, min(first + BATCH, end))
        index.apply({at: features[at % BATCH] for at in ids})


def _resident() -> int:
    """Without what the C library could give back."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def run(name: str, rows: int) -> Measured:
    case = CASES[name]
    count = rows // case.fewer
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn) as own:
        options: dict[str, Any] = {}
        if case.learnt:
            with ProcessPoolExecutor(1, spawn) as other:
                path = other.submit(learnt_from, case, count, Path(folder)).result()
            options["trained"] = str(path)
        return own.submit(measure, name, count, options).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4 * 65_536)
    parser.add_argument("--what", default=";".join(CASES), help="separated by semicolons")
    given = parser.parse_args()
    rows = []
    for name in given.what.split(";"):
        found = run(name, given.rows)
        rows.append([name, *(f"{figure:,.0f}" for figure in found)])
    print_table(["", "pictures", "resident", "peak", "arrays", "snapshot"], rows)


if __name__ == "__main__":
    main()
