"""The cost of finding duplicates and of deciding on them.

Hashes: random codes, of which a tenth are copies with up to 60 of 576 bits changed, in any
orientation; all pairs under all orientations are sought. The baseline compares each code with each
by the index of `phash`. Above 100,000 codes both are timed on a sample of queries.

Decisions: an LMDB store with so many groups of two; the seconds of one decision, and of a page.
Burst: so many images, each a pair with the 16 around it; the seconds of CPU of one decision.

    python -m benchmarks.duplicates --images 10000 100000 --groups 100000 --burst 1200
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexes.base import Query
from indexes.duplicates.catalogue import groups_page, regroup
from indexes.duplicates.decisions import decide, undo
from indexes.duplicates.hash_join import BITS, BYTES, HashTables
from indexes.duplicates.pairs import Pair, pair_writes
from indexes.hamming.index import BinaryIndex
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.extractors.phash import turned_codes

Codes = npt.NDArray[np.uint8]
SAMPLE = 5000
BASELINE = 200
BATCH = 500
BURST_REACH = 8
"""Images after one with which it is a pair."""
COMPARED = 128


def codes(count: int) -> tuple[Codes, set[tuple[int, int]]]:
    """Random codes, and the pairs that were planted among them."""
    random = np.random.default_rng(0)
    made = random.integers(0, 256, (count, BYTES), np.uint8)
    planted = set()
    for copy in range(count - count // 10, count):
        original = copy - (count - count // 10)
        bits = np.unpackbits(turned_codes(made[original][None])[0, random.integers(8)])
        bits[random.permutation(BITS)[: random.integers(61)]] ^= 1
        made[copy] = np.packbits(bits)
        planted.add((original, copy))
    return made, planted


def hashes(count: int) -> None:
    """Time the join, and the baseline, and count what is found."""
    made, planted = codes(count)
    HashTables(made[:100]).near(np.arange(100), made[:100], np.ones(100, np.bool_))  # Compiles.
    began = time.process_time()
    tables = HashTables(made)
    built = time.process_time() - began
    sample = np.arange(count)[-SAMPLE:] if count > 100_000 else np.arange(count)
    everything, found = np.ones(count, np.bool_), set()
    began = time.process_time()
    for start in range(0, len(sample), 128):
        part = sample[start : start + 128]
        pairs = tables.near(part, made[part], everything)
        found |= {(min(a, b), max(a, b)) for a, b, _ in pairs.tolist()}
    each = (time.process_time() - began) / len(sample)
    asked = {pair for pair in planted if pair[1] >= sample[0]}
    whole = built + each * count
    print(
        f"{count:>9} hashes: {whole:.1f} s ({built:.1f} s tables, {each * 1e3:.3f} ms each), "
        f"{len(asked & found)} of {len(asked)} copies; each with each {_baseline(made):.1f} s"
    )


def _baseline(made: Codes) -> float:
    """Seconds to search for all codes by the index, from a few of them."""
    index = BinaryIndex(BinaryIndex.Config(), lambda _: {})
    index.apply(dict(enumerate(made)))
    params = BinaryIndex.Params.parse({"distance_threshold": 64})
    queries = [Query(list(one)) for one in turned_codes(made[:BASELINE])]
    began = time.process_time()
    for query in queries:
        index.search(query, params)
    return (time.process_time() - began) / BASELINE * len(made)


def decisions(groups: int) -> None:
    """Time decisions, undos and pages in a store with so many groups."""
    with tempfile.TemporaryDirectory() as folder, closing(LmdbStore(Path(folder))) as store:
        for start in range(0, 2 * groups, BATCH):
            ids = range(start, min(start + BATCH, 2 * groups))
            store.put_many([_write(at) for at in ids])
            pairs = [
                Pair(at, at + 1, (_sha(at), _sha(at + 1)), "reencode", "same", 0.9)
                for at in ids
                if at % 2 == 0
            ]
            regroup(store, ids, pair_writes(pairs))
        seconds: dict[str, list[float]] = {"different": [], "delete": [], "undo": [], "page": []}
        for at in range(0, 80, 4):
            for what in ("different", "delete"):
                began = time.perf_counter()
                made = decide(store, what, [at, at + 1])
                seconds[what].append(time.perf_counter() - began)
                began = time.perf_counter()
                undo(store, made.decision_id)
                seconds["undo"].append(time.perf_counter() - began)
            began = time.perf_counter()
            groups_page(store, None, "", 20)
            seconds["page"].append(time.perf_counter() - began)
        said = ", ".join(
            f"{name} {statistics.median(of) * 1e3:.1f} ms (most {max(of) * 1e3:.0f})"
            for name, of in seconds.items()
        )
        print(f"{groups} groups: {said}")


def burst(count: int) -> None:
    """Time decisions where so many images are connected."""
    with tempfile.TemporaryDirectory() as folder, closing(LmdbStore(Path(folder))) as store:
        for start in range(0, count, BATCH):
            store.put_many([_write(at) for at in range(start, min(start + BATCH, count))])
        pairs = [
            Pair(at, other, (_sha(at), _sha(other)), "burst", "same", 0.9)
            for at in range(count)
            for other in range(at + 1, min(at + 1 + BURST_REACH, count))
        ]
        for start in range(0, len(pairs), COMPARED):
            some = pairs[start : start + COMPARED]
            regroup(store, {at for one in some for at in (one.a, one.b)}, pair_writes(some))
        seconds = []
        for found in groups_page(store, "burst", "", 5)[0]:
            began = time.process_time()
            decide(store, "different", found.group.images)
            seconds.append(time.process_time() - began)
        print(f"{count} connected images: a decision {statistics.median(seconds):.2f} s of CPU")


def _sha(image_id: int) -> str:
    return hashlib.sha256(str(image_id).encode()).hexdigest()


def _write(image_id: int) -> ImageWrite:
    features = {
        Space("phash", "f"): bytes(72),
        Space("local", "l"): bytes(30_000 if image_id < 160 else 72),
    }
    return ImageWrite(
        image_id,
        _sha(image_id),
        4000 - image_id % 2,
        3000,
        frozenset({"phash", "local"}),
        features,
        preview=bytes(20_000 if image_id < 160 else 10),
        created=1.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--burst", type=int, default=1200)
    given = parser.parse_args()
    for count in given.images:
        hashes(count)
    if given.groups:
        decisions(given.groups)
    if given.burst:
        burst(given.burst)


if __name__ == "__main__":
    main()
