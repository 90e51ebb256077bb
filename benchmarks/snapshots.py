"""How soon replicas are ready: two at once, pHash and colour, from all rows and from snapshots.

    python -m benchmarks.snapshots [--rows 1000000] [--folder FOLDER]

Fills a store in FOLDER (2.8 GB at a million rows; a temporary one is made and removed, one that is
given is kept and filled only once). Each replica is a process of its own; its time runs from its
start, imports and compiled kernels included, until its follower is ready; of it, the index's part;
and its CPU time until then, for a busy machine. Then each snapshot is
written while the index's thread is asked for a turn every millisecond: the longest wait is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# Before NumPy is imported: it reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.loading import ROOT, print_table
from indexes.registry import make_index
from indexes.replica.applier import row_reader
from indexes.replica.follower import Follower
from indexes.replica.saving import save_if_due
from indexes.replica.snapshots import Snapshots
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.registry import make_extractor

TARGET_SECONDS = 15.0
BATCH = 2048
EXTRACTORS = ("phash", "color")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the store here")
    parser.add_argument("--replica", choices=EXTRACTORS, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replica:
        replica(given.folder, given.replica, given.write)
        return
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fill(folder, given.rows)
        for path in folder.glob("snapshots/*"):
            path.unlink()
        report(both(folder), both(folder, write=True), both(folder))


def report(
    first: Sequence[dict[str, Any]],
    writing: Sequence[dict[str, Any]],
    again: Sequence[dict[str, Any]],
) -> None:
    """`first` finds no snapshots, `writing` none either and writes them, `again` loads them."""
    header = [
        "replica",
        "pictures",
        "from rows",
        "from its snapshot",
        "file",
        "written in",
        "longest turn",
    ]
    rows = [
        [
            one["name"],
            f"{one['count']:,}",
            f"{one['ready']:.1f} s (index {one['loading']:.1f}, CPU {one['cpu']:.1f})",
            f"{loaded['ready']:.1f} s (index {loaded['loading']:.1f}, CPU {loaded['cpu']:.1f})",
            f"{wrote['bytes'] / 1e6:.0f} MB",
            f"{wrote['writing']:.1f} s",
            f"{wrote['longest'] * 1e3:.0f} ms (idle {wrote['idle'] * 1e3:.0f} ms)",
        ]
        for one, wrote, loaded in zip(first, writing, again, strict=True)
    ]
    print_table(header, rows)
    slowest = max(one["ready"] for one in again)
    if slowest > TARGET_SECONDS:
        print(f"missed: the slower replica took {slowest:.1f} s, not {TARGET_SECONDS:g} s")


def fill(folder: Path, count: int) -> None:
    """Random codes and histograms of random colours, unless the store has as many."""
    store = LmdbStore(folder / "store")
    spaces = [space_of(name) for name in EXTRACTORS]
    rng = np.random.default_rng(0)
    shares = rng.gamma(0.3, size=(BATCH, 512)).astype(np.float32)
    shares[rng.random(shares.shape) > 0.2] = 0
    shares *= 1e7 / shares.sum(axis=1, keepdims=True)
    for first in range(store.count(), count, BATCH):
        codes = rng.integers(0, 256, (min(BATCH, count - first), 72), np.uint8)
        # Other bins each time: which they are makes no difference here.
        rows = zip(codes, np.roll(shares, first // BATCH, axis=1), strict=False)
        store.put_many([write_of(first + n, spaces, row) for n, row in enumerate(rows)])
    store.close()


def write_of(image_id: int, spaces: Sequence[Space], rows: Sequence[Any]) -> ImageWrite:
    features = {space: row.tobytes() for space, row in zip(spaces, rows, strict=True)}
    return ImageWrite(image_id, f"{image_id:064}", 640, 480, frozenset(EXTRACTORS), features)


def space_of(name: str) -> Space:
    return Space(name, make_extractor(name, {}).fingerprint)


def both(folder: Path, write: bool = False) -> list[dict[str, Any]]:
    """What each replica says, of all that were started at once."""
    command = [sys.executable, "-m", "benchmarks.snapshots", "--folder", str(folder)]
    command += ["--write"] if write else []
    began = time.time()
    children = [
        subprocess.Popen([*command, "--replica", name], stdout=subprocess.PIPE, cwd=ROOT)
        for name in EXTRACTORS
    ]
    said = [json.loads(child.communicate()[0]) for child in children]
    return [{**one, "ready": one["ready"] - began} for one in said]


def replica(folder: Path, name: str, write: bool) -> None:
    """Become ready, and print when."""
    extractor = make_extractor(name, {})
    extractor.load()
    store, space = LmdbStore(folder / "store"), space_of(name)
    rows = row_reader(store, space, extractor.from_row)
    index = make_index(extractor.index, {}, rows)
    began = time.time()
    snapshots = Snapshots(folder / "snapshots", store, space)
    follower = Follower(store, space, index, extractor.from_row, snapshots=snapshots)
    follower.rebuild()
    ready = time.time()
    cpu = time.process_time()
    says = {"name": name, "count": follower.count, "ready": ready, "loading": ready - began}
    says["cpu"] = cpu
    if write:
        says |= written(follower, snapshots.path(index))
    print(json.dumps(says))
    follower.close()
    store.close()


def written(follower: Follower, path: Path) -> dict[str, float]:
    """How long writing took, and the longest that a job waited for its turn meanwhile."""
    idle = Turns(follower)
    time.sleep(1)
    quiet = idle.longest()
    turns = Turns(follower)
    began = time.perf_counter()
    save_if_due(follower)
    took = time.perf_counter() - began
    return {
        "bytes": path.stat().st_size,
        "writing": took,
        "longest": turns.longest(),
        "idle": quiet,
    }


class Turns:
    """Asks the index's thread for a turn every millisecond."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._waited: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def longest(self) -> float:
        """Seconds of the longest wait; asks no more."""
        self._ending.set()
        self._thread.join()
        return max(self._waited)

    def _ask(self) -> None:
        while not self._ending.wait(0.001):
            began = time.perf_counter()
            self._follower.submit(lambda _: None).result()
            self._waited.append(time.perf_counter() - began)


if __name__ == "__main__":
    main()
