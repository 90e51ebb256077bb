"""The cost of a filter on what image rows hold, such as size, format and date.

    python -m benchmarks.filters [--images 100000]

CPU of the calling thread: reading all rows once, applying one change, a filter that half of the
images meet, the same by a tag,.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from deployments.ingress.listing.columns import ImageColumns
from deployments.queries import Filter
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.types import FileFacts

SPACE = Space("phash", "f")
HALF = datetime(2010, 1, 1, tzinfo=UTC)


def write(number: int, count: int, rng: np.random.Generator) -> ImageWrite:
    """One image; half of all are taken after HALF and have a tag."""
    facts = FileFacts("JPEG", 10**6 + number, HALF.timestamp() + (2 * number - count) * 60, 12, 90)
    return ImageWrite(
        number,
        f"{number:064x}",
        4000,
        3000,
        frozenset({"phash"}),
        {SPACE: rng.bytes(72)},
        metadata={"tags": ["half"]} if 2 * number >= count else {},
        facts=facts,
    )


def milliseconds(work: Callable[[], object], times: int = 15) -> float:
    """Median CPU of this thread."""
    spent = []
    for _ in range(times):
        began = time.thread_time()
        work()
        spent.append(time.thread_time() - began)
    return 1000 * statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    count = parser.parse_args().images
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore(Path(folder) / "store")
        for begin in range(0, count, 5000):
            store.put_many([write(at, count, rng) for at in range(begin, begin + 5000)])
        columns, wanted = ImageColumns(), Filter(taken_after=HALF)
        first = milliseconds(lambda: columns.matching(store, wanted, 0), 1)
        print(f"read all rows: {first:.0f} ms")

        def change() -> None:
            store.put(write(int(rng.integers(count)), count, rng))

        change()
        applied = milliseconds(lambda: (change(), columns.matching(store, wanted, None)))
        print(f"a change and its filter: {applied:.2f} ms; the write {milliseconds(change):.2f} ms")
        columns.matching(store, wanted, None)
        print(f"filter: {milliseconds(lambda: columns.matching(store, wanted, None)):.2f} ms")
        tagged = milliseconds(lambda: store.ids_by_metadata({"tags": "half"}))
        print(f"the same by a tag: {tagged:.2f} ms")
        store.close()


if __name__ == "__main__":
    main()
