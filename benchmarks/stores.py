"""LMDB against PostgreSQL on one host: adds, the head, and how soon a waiting replica hears of one.

    python -m benchmarks.stores [--seconds 5] [--postgres URL]

Without a URL a server is started from the package that the tests use, with fsync on. A picture is
one row of 72 bytes, one of 2 KB, and a preview of 15 KB. Each figure is the rate of one run; the
ratios between them mean more than they do.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from indexes.store.base import ImageWrite, Space, Store
from indexes.store.url import open_store
from tests import postgres_server

GROUP = 64
WRITERS = 4
LOOKS = 500
PHASH, COLOR = Space("phash", "f"), Space("color", "f")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each figure")
    parser.add_argument("--postgres", help="URL of an empty database; it is left full")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, database(given.postgres) as url:
        urls = {"lmdb": f"lmdb:{Path(folder) / 'store'}", "postgresql": url}
        found = {name: figures(at, given.seconds) for name, at in urls.items()}
    print(f"{'':28}{'LMDB':>12}{'PostgreSQL':>12}{'ratio':>12}")
    for name, ours in found["lmdb"].items():
        theirs = found["postgresql"][name]
        print(f"{name:28}{ours:12,.2f}{theirs:12,.2f}{ours / theirs:12,.2f}")
    for name, rates in found.items():
        gain = rates["groups of 64, adds/s"] / rates["one by one, adds/s"]
        print(f"{name}: a group is {gain:.1f} times as fast as its adds one by one")


@contextmanager
def database(given: str | None) -> Iterator[str]:
    """The one given, or an empty one of a server that lives meanwhile."""
    if given is not None:
        yield given
        return
    postgres_server.SETTINGS.update(fsync="on", full_page_writes="on", shared_buffers="256MB")
    server = postgres_server.PostgresServer()
    try:
        yield server.new_database()
    finally:
        server.remove()


def figures(url: str, seconds: float) -> dict[str, float]:
    store = open_store(url)
    store.put_many([picture(number) for number in range(GROUP)])
    return {
        "one by one, adds/s": adds(store, seconds, 1, 1_000_000),
        "groups of 64, adds/s": adds(store, seconds, GROUP, 2_000_000),
        "4 writers, adds/s": together(url, seconds, 1),
        "4 writers, groups, adds/s": together(url, seconds, GROUP),
        "head, µs": 1e6 * median_of(store.head),
        "told of a commit after, ms": 1e3 * told_after(url, store),
    }


def picture(number: int) -> ImageWrite:
    seed = number.to_bytes(8, "big")
    features = {PHASH: seed * 9, COLOR: seed * 256}
    kinds = frozenset({"phash", "color"})
    return ImageWrite(number, seed.hex() * 4, 4, 3, kinds, features, preview=seed * 1900)


def adds(store: Store, seconds: float, group: int, first: int) -> float:
    """A second, acknowledged."""
    began = time.perf_counter()
    for done in itertools.count(first, group):
        spent = time.perf_counter() - began
        if spent > seconds:
            return (done - first) / spent
        store.put_many([picture(number) for number in range(done, done + group)])
    raise AssertionError("unreachable")


def together(url: str, seconds: float, group: int) -> float:
    """Of several processes, in total."""
    context = multiprocessing.get_context("spawn")
    firsts = [(10 + writer) * 10_000_000 + group * 1_000_000 for writer in range(WRITERS)]
    with context.Pool(WRITERS) as pool:
        return sum(pool.starmap(write, [(url, seconds, group, first) for first in firsts]))


def write(url: str, seconds: float, group: int, first: int) -> float:
    store = open_store(url)
    try:
        return adds(store, seconds, group, first)
    finally:
        store.close()


def median_of(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    spent = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def told_after(url: str, store: Store) -> float:
    """Seconds from an acknowledged add to the return of another store's `wait`, at most 0.5."""
    other = open_store(url)
    ended = threading.Event()
    spent = []
    for number in range(20):
        head = store.head()
        heard: list[float] = []

        def wait(head: int = head, heard: list[float] = heard) -> None:
            other.wait(head, 0.5, ended)
            heard.append(time.perf_counter())

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.05)
        store.put(picture(5_000_000 + number))
        written = time.perf_counter()
        waiter.join()
        spent.append(max(0.0, heard[0] - written))
    other.close()
    return statistics.median(spent)


if __name__ == "__main__":
    main()
