"""How many machines a collection needs: measured on this one, replayed by a model, extrapolated.

    python -m benchmarks.capacity measure PHOTOS --into capacity.json [--images 100000]
    python -m benchmarks.capacity compare capacity.json
    python -m benchmarks.capacity plan capacity.json

`measure` runs the light service (pHash and colour) with one and, beside it, with two replicas of
each, asks them in turn for 500 px pictures, and takes the CPU seconds of every process; then it
fills each index with made-up features at two sizes, for bytes a picture and CPU seconds a search.
`compare` gives the model
(benchmarks/queue_model.py) the costs of one replica at one connection, and shows its latencies
beside all measured ones: it exits with 1 where one is off by more than a fifth. `plan` prints the
tables of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# Before NumPy and FAISS are imported: they read it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks import loading
from benchmarks.indexes import drawn_patches, pictures
from benchmarks.queue_model import Costs, Layout, most_per_second, simulate
from benchmarks.service import KINDS, make_collection
from benchmarks.service_costs import serving
from indexes.base import Query
from indexes.local.index import LocalIndex
from indexes.registry import index_class, make_index
from indexes.store.base import ImageWrite, Space
from indexes.store.lmdb.store import LmdbStore
from models.extractors.local import LOCAL_DTYPE
from models.pictures.decoding import decode

WIDTH, HEIGHT, QUERIES = 500, 375, 8
REPLICAS = (1, 2)
ROUNDS = 4
TOLERANCE = 0.2
ROW_COUNT = 6 * 65_536
"""Whole blocks of the indexes' arrays."""
STORED = 2000
"""Pictures of the store that is measured."""
SIZES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
SEARCH_SECONDS, SHARD_BYTES = 0.1, 64e9
"""What one shard may take of a search, and of memory."""
ROWS: Mapping[str, tuple[str, int, float]] = {
    "phash": ("binary", 1, 1.0),
    "color": ("histogram", 1, 1.0),
    "global": ("vectors", 1, 1.0),
    # 16 of 4√n lists are searched, and all are compared with.
    "local": ("local", 50, 0.5),
}
"""Retriever → its index, how many fewer rows it gets, the power of n by which its time grows."""
TEXT = {"fixed": 0.0, "growing": 0.040 / 1e6, "power": 1.0, "bytes": 172.0}
"""Of docs/benchmarks.md: CPU seconds of a search, and resident bytes of a text."""
ROW_BYTES = {"phash": 72, "color": 2048, "local": 200 * 144, "global": 3072}
"""Of a stored row of features."""


# --- measuring -----------------------------------------------------------------------------------


def measure(folder: Path, count: int, seconds: float, rows: int) -> dict[str, Any]:
    """Everything that `compare` and `plan` need, as JSON has it."""
    photographs = loading.read_photographs(folder)
    rng = np.random.default_rng(3)
    picture = loading.mosaic(photographs, WIDTH, HEIGHT, rng)
    images = [loading.as_jpeg(picture, loading.camera_quality(picture))]
    collection = make_collection(photographs, count)
    with contextlib.ExitStack() as stack:
        services = [
            stack.enter_context(serving(collection, replicas, images[0])) for replicas in REPLICAS
        ]
        for service in services:
            service.warm_up(seconds)
        # In turn: what else the host does must not come to one of them alone.
        for _ in range(ROUNDS):
            for service in services:
                service.ask(seconds / ROUNDS, {one.data for one in services} - {service.data})
        recorded = [service.recorded() for service in services]
    previews = [len(decode(loading.as_jpeg(one, 90)).preview_jpeg()) for one in photographs[:20]]
    return {
        "cores": psutil.cpu_count(),
        "images": count,
        "services": recorded,
        "indexes": {
            name: _index_costs(kind, rows // fewer, power)
            for name, (kind, fewer, power) in ROWS.items()
        },
        "stored": {"image": _stored(0)} | {n: _stored(size) for n, size in ROW_BYTES.items()},
        "preview": float(np.mean(previews)),
    }


def _index_costs(kind: str, rows: int, power: float) -> dict[str, float]:
    """CPU seconds of a search: `fixed`, and `growing` for each row to the power; bytes a row."""
    features = _features(kind, rows)
    took, index = [], make_index(kind, {}, lambda ids: {key: features[key] for key in ids})
    params = index_class(kind).Params.parse(dict(index_class(kind).fused))
    for begin, end in ((0, rows // 4), (rows // 4, rows)):
        for first in range(begin, end, 4096):
            ids = range(first, min(first + 4096, end))
            index.apply({key: features[key] for key in ids})
        if isinstance(index, LocalIndex):
            index.wait_for_training()
        asked = [Query([features[at]]) for at in range(QUERIES)]
        index.search(asked[0], params)
        took.append(_median([partial(index.search, one, params) for one in asked]))
    growing = max(0.0, (took[1] - took[0]) / (rows**power - (rows // 4) ** power))
    fixed = max(0.0, took[1] - growing * rows**power)
    return {"fixed": fixed, "growing": growing, "power": power, "bytes": index.nbytes / rows}


def _features(kind: str, rows: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(4)
    if kind == "binary":
        return rng.integers(0, 256, (rows, 72), np.uint8)
    if kind == "histogram":
        return pictures(rng, drawn_patches(rng), rows)
    if kind == "vectors":
        return rng.standard_normal((rows, 768), np.float32)
    made = np.zeros((rows, 200), LOCAL_DTYPE)
    for name, most in (("x", 1024), ("y", 768), ("scale", 20), ("angle", 360)):
        made[name] = rng.uniform(1, most, made.shape)
    made["descriptor"] = rng.integers(0, 256, (*made.shape, 128), np.uint8)
    return made


def _median(jobs: Sequence[Callable[[], object]]) -> float:
    took = []
    for job in jobs:
        began = time.thread_time()
        job()
        took.append(time.thread_time() - began)
    return float(np.median(took))


def _stored(size: int) -> float:
    """Bytes of the store's file for a picture with one row of features of this size."""
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        store, space = LmdbStore(Path(folder)), Space("kind", "fingerprint")
        features = {space: bytes(size)} if size else {}
        empty = (Path(folder) / "data.mdb").stat().st_blocks
        store.put_many(
            [ImageWrite(at, f"{at:064x}", 500, 375, frozenset(), features) for at in range(STORED)]
        )
        store.close()
        return ((Path(folder) / "data.mdb").stat().st_blocks - empty) * 512 / STORED


# --- modelling -----------------------------------------------------------------------------------


def costs_of(recorded: Mapping[str, Any]) -> Costs:
    """The model's costs: those of one replica at one connection, and nothing else that was seen."""
    service = recorded["services"][0]
    picture, stored, one = (service["spent"][name] for name in ("both", "stored", "stored, one"))
    call = max(stored["ambience"] - one["ambience"], 1e-4)
    loop = max(one["ambience"] - call, 1e-4)
    costs = Costs(
        client=picture["client"],
        loop=loop,
        call=call,
        threads=picture["decode"],
        beside=max(0.0, picture["ambience"] - loop - 2 * call - picture["decode"]),
        search={name: picture[name] for name in KINDS},
        background=picture["background"],
    )
    alone = simulate(costs, Layout(cores=recorded["cores"]), 1)
    return replace(costs, wait=max(0.0, service["latency"]["1"]["p50"] - alone.p50))


def compare(recorded: Mapping[str, Any]) -> int:
    """The model beside what was measured; 1 where its p50 is off by more than a fifth."""
    costs, rows, worst = costs_of(recorded), [], 0.0
    for service in recorded["services"]:
        for at, measured in service["latency"].items():
            layout = Layout(replicas=service["replicas"], cores=recorded["cores"])
            modelled = simulate(costs, layout, int(at))
            off = modelled.p50 / measured["p50"] - 1
            worst = max(worst, abs(off))
            seconds = (measured["p50"], modelled.p50)
            rates = (measured["per_second"], modelled.per_second)
            rows.append(
                [
                    *(str(service["replicas"]), at, *(f"{1000 * one:.1f}" for one in seconds)),
                    *(f"{off:+.0%}", *(f"{one:.0f}" for one in rates)),
                ]
            )
    header = ("replicas", "connections", "p50 ms", "model", "off by", "requests/s", "model")
    loading.print_table(header, rows)
    print(f"\nCosts, in ms: {_in_ms(costs)}")
    return int(worst > TOLERANCE)


def _in_ms(costs: Costs) -> str:
    parts = ("client", "loop", "call", "threads", "beside", "wait")
    named = {name: getattr(costs, name) for name in parts}
    return ", ".join(f"{name} {1000 * one:.2f}" for name, one in (named | costs.search).items())


def plan(recorded: Mapping[str, Any]) -> None:
    """The tables of docs/scaling.md."""
    indexes = dict(recorded["indexes"]) | {"text": TEXT}
    rows = []
    for name, index in indexes.items():
        for size in SIZES:
            shards = shards_for(index, size)
            seconds, memory = search_seconds(index, size / shards), size * index["bytes"]
            disk = size * max(0.0, recorded["stored"].get(name, 0.0) - recorded["stored"]["image"])
            shown = f"{_bytes(memory)} | {_bytes(disk)} | {shards} | {1000 * seconds:.0f}"
            rows.append([name, f"{size / 1e6:,.0f} M", *shown.split(" | ")])
            rows[-1].append(f"{10 * shards * seconds:.1f}")
    header = ("", "pictures", "memory", "disk", "shards", "ms of each", "cores for 10 searches/s")
    loading.print_table(header, rows)
    image, preview = recorded["stored"]["image"], recorded["preview"]
    print(f"\nDisk for each picture besides: {image:.0f} bytes, and its preview, {preview:.0f}.\n")
    _print_ingress(costs_of(recorded))


def _print_ingress(costs: Costs) -> None:
    """Where the ingress saturates, each shard and the ingress on cores of their own."""
    rows = []
    for shards in (1, 4, 16, 64):
        layout = Layout(shards=shards)
        # The client is elsewhere.
        most, what = most_per_second(replace(costs, client=0.0), layout)
        busy = simulate(replace(costs, client=0.0), layout, 8)
        rows.append(
            [
                str(2 * shards),
                f"{most:.0f}",
                what,
                f"{1000 * busy.p50:.0f}",
                f"{busy.per_second:.0f}",
            ]
        )
    header = (
        "shards asked",
        "most requests/s",
        "by",
        "p50 ms of 8 connections",
        "their requests/s",
    )
    loading.print_table(header, rows)


def search_seconds(index: Mapping[str, float], pictures_of_a_shard: float) -> float:
    """CPU seconds of a search in one shard."""
    growing: float = index["growing"] * pictures_of_a_shard ** index["power"]
    return index["fixed"] + growing


def shards_for(index: Mapping[str, float], count: int) -> int:
    """The fewest shards, a power of two, that keep a shard within its limits of time and memory.

    Where what is fixed takes longer than the limit, twice of that is the limit.
    """
    shards, limit = 1, max(SEARCH_SECONDS, 2 * index["fixed"])
    while (
        search_seconds(index, count / shards) > limit
        or count / shards * index["bytes"] > SHARD_BYTES
    ):
        shards *= 2
    return shards


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("measure", "compare", "plan"))
    parser.add_argument("path", type=Path, help="photographs to measure with; else what it wrote")
    parser.add_argument("--into", type=Path, default=Path("capacity.json"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=8, help="for each figure")
    parser.add_argument("--rows", type=int, default=ROW_COUNT, help="of each index that is filled")
    given = parser.parse_args()
    loading.end_on_sigterm()
    if given.what == "measure":
        recorded = measure(given.path, given.images, given.seconds, given.rows)
        given.into.write_text(json.dumps(recorded, indent=1) + "\n")
        return compare(recorded)
    recorded = json.loads(given.path.read_text())
    if given.what == "compare":
        return compare(recorded)
    plan(recorded)
    return 0


if __name__ == "__main__":
    sys.exit(main())
