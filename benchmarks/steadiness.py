"""Searches at a million pictures beside adds and deletes, in groups of 1, 100 and 10,000.

    python -m benchmarks.steadiness [--rows 1000000] [--what phash,color,vectors] [--seconds 10]

The index is filled, then a follower keeps it in step with an LMDB store, which a process of its own
writes to. One thread searches with a pause as long as a search takes on average, and each answer
must hold all that was acknowledged when it was asked for. Shown are milliseconds of the searches,
alone and beside the writes; recycled ids are checked at the end: each is found as it is now.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before NumPy is imported: it reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt

from benchmarks.indexes import drawn_patches, pictures
from benchmarks.loading import print_table
from benchmarks.vectors import Collection
from indexes.base import Query
from indexes.registry import make_index
from indexes.replica.follower import Follower
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore

RATIO_TARGET, STALL_TARGET = 3.0, 100.0
POOL = "pool.npy"
GROUPS = (1, 100, 10_000)
PARAMS = {"phash": {"k": 20}, "color": {"k": 20}, "vectors": {"k": 20}}
INDEXES = {"phash": "binary", "color": "histogram", "vectors": "vectors"}
WIDTH = 512
Rows = npt.NDArray[Any]


def features(name: str, count: int) -> Rows:
    """Of pictures made up as in the benchmarks of the indexes."""
    rng = np.random.default_rng(1)
    if name == "phash":
        return rng.integers(0, 256, (count, 72), np.uint8)
    if name == "vectors":
        return Collection(count, WIDTH).rows
    return pictures(rng, drawn_patches(rng), count)


def write(folder: Path, name: str, first: int, group: int, seconds: float) -> None:
    """Adds and deletes in turn, by one picture or by groups: the ids come again and again."""
    store = LmdbStore(folder)
    pool = np.load(folder / POOL)
    until, turn = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        began = time.monotonic()
        ids = range(first, first + group)
        writes = [made(name, at, pool[(at + turn) % len(pool)]) for at in ids]
        if group == 1:
            store.put(writes[0])
        else:
            store.put_many(writes)
        if turn % 2:
            store.delete(first)
        turn += 1
        # A tenth of the time at the most goes to each add of ten thousand.
        time.sleep(max(0.02, 0.02 * group**0.5 - (time.monotonic() - began)))
    store.put_many([made(name, at, pool[at % len(pool)]) for at in range(first, first + group)])
    store.close()


def made(name: str, image_id: int, row: Rows) -> ImageWrite:
    space = Space(name, "bench")
    digest = f"{image_id:064x}"
    return ImageWrite(image_id, digest, 1, 1, frozenset({name}), {space: row.tobytes()})


def with_active_models(
    follower: Follower, asked: Rows, name: str, until: Callable[[], bool]
) -> npt.NDArray[np.float64]:
    """Milliseconds of each search."""
    params = follower.submit(lambda index: index.Params.parse(PARAMS[name])).result()
    taken: list[float] = []
    while not until() or len(taken) < 50:
        began = time.perf_counter()
        head = follower.store.head()
        answer = follower.search(Query([asked[len(taken) % len(asked)]]), params, head)
        taken.append(1e3 * (time.perf_counter() - began))
        assert answer.applied_seq >= head
        assert not answer.stale
        time.sleep(float(np.mean(taken)) / 1e3)
    return np.array(taken)


def steady(name: str, count: int, seconds: float) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore(Path(folder))
        space = Space(name, "bench")
        kept = features(name, count)
        rng = np.random.default_rng(2)
        pool = kept[rng.integers(0, count, max(GROUPS))]
        np.save(Path(folder) / POOL, pool)

        def stored(ids: Any) -> dict[int, Rows]:
            found = {at: decode(row) for at, row in store.rows(space, ids).items()}
            return {at: kept[at] for at in ids if at < count} | found

        def decode(row: bytes) -> Rows:
            return np.frombuffer(row, kept.dtype)

        index = make_index(INDEXES[name], {}, stored)
        for start in range(0, count, 4096):
            index.apply({at: kept[at] for at in range(start, min(start + 4096, count))})
        follower = Follower(store, space, index, decode, store.head())
        follower.start()
        try:
            return _phases(follower, Path(folder), pool, name, count, seconds)
        finally:
            follower.close()
            store.close()


def _phases(
    follower: Follower, folder: Path, pool: Rows, name: str, count: int, seconds: float
) -> list[list[str]]:
    timer = time.monotonic() + seconds
    quiet = with_active_models(follower, pool, name, lambda: time.monotonic() > timer)
    lines = [_line(f"{name}, alone", quiet, quiet)]
    for number, group in enumerate(GROUPS):
        first = count + number * max(GROUPS)
        arguments = (folder, name, first, group, seconds)
        writer = multiprocessing.get_context("spawn").Process(target=write, args=arguments)
        writer.start()
        writing = threading.Event()
        threading.Thread(target=lambda at=writer, over=writing: (at.join(), over.set())).start()
        taken = with_active_models(follower, pool, name, writing.is_set)
        lines.append(_line(f"{name}, groups of {group:,}", taken, quiet))
        params = follower.submit(lambda index: index.Params.parse({"k": 1})).result()
        for at in range(first, first + min(group, 50)):
            query = Query([pool[at % len(pool)]], np.array([at]))
            (hit,) = follower.search(query, params).hits
            assert (hit.image_id, hit.distance) == (at, 0)
    return lines


def _line(what: str, taken: npt.NDArray[np.float64], quiet: npt.NDArray[np.float64]) -> list[str]:
    median, slow, slowest = (float(np.percentile(taken, at)) for at in (50, 99, 100))
    ratio = slow / float(np.percentile(quiet, 99))
    missed = "" if ratio <= RATIO_TARGET and slowest <= STALL_TARGET else ": missed"
    figures = [f"{value:.1f}" for value in (median, slow, slowest)]
    return [what, str(len(taken)), *figures, f"{ratio:.1f}×{missed}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--what", default=",".join(INDEXES))
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    header = ["", "searches", "p50 ms", "p99", "longest", "p99 to that alone"]
    lines = [
        line for name in given.what.split(",") for line in steady(name, given.rows, given.seconds)
    ]
    print_table(header, lines)


if __name__ == "__main__":
    main()
