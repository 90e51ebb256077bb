"""Where the time of a search by picture goes, at 1, 8 and 32 connections.

    python -m benchmarks.ingress PHOTOS_FOLDER [--images 100000] [--seconds 10] [--stacks FOLDER]

`ambience serve` with pHash and colour is asked JPEGs of 500 px and of 12 MP. Shown are the time
that a client waits and what the service says of it in `Server-Timing`, in milliseconds (medians),
and the CPU milliseconds that a request costs each process. `unavoidable` is decoding, with
extraction, and the slower retriever; at more connections than cores both hold the waiting for a
core too.

With `--stacks`, py-spy (pip install py-spy) samples the ingress while it is asked: a file of
collapsed stacks for each case.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks import loading
from benchmarks.service import KINDS, SIZES, make_collection, make_queries
from benchmarks.service_costs import cpu_of, spans_of, started
from cluster.service.data_folder import service_processes

CONNECTIONS = (1, 8, 32)
PROCESSES = ("ambience", *KINDS, "ray", "client")
TARGET_MS = 5.0


class Asking:
    """Searches by these pictures, of which all answers are checked, and what they say of time."""

    def __init__(self, url: str, images: Sequence[bytes]) -> None:
        query = json.dumps({"retrievers": dict.fromkeys(KINDS, 1.0)})
        bodies = [loading.multipart(image, query=query) for image in images]
        self._post = loading.posting(url, bodies, self._note)
        self._spans: defaultdict[str, list[float]] = defaultdict(list)
        self._waited: list[float] = []

    async def step(self, session: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        await self._post(session)
        self._waited.append(1e3 * (time.perf_counter() - began))

    def _note(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        if answer.headers.get("X-Ambience-Answered", "") != ",".join(sorted(KINDS)):
            raise SystemExit(
                f"an incomplete answer: {answer.status} {answer.headers} {body[:99]!r}"
            )
        spans = spans_of(answer)
        for name, seconds in spans.items():
            self._spans[name].append(1e3 * seconds)
        slower = max(spans[kind] for kind in KINDS)
        self._spans["unavoidable"].append(1e3 * (spans["decode"] + slower))

    def measured(self, data: Path, connections: int, seconds: float) -> dict[str, float]:
        """Milliseconds; `per_second` and `p95` too."""
        loading.measure(self.step, connections, 1.0)
        self._spans.clear()
        self._waited.clear()
        before, own = cpu_of(data), time.process_time()
        speed = loading.measure(self.step, connections, seconds)
        after, count = cpu_of(data), len(self._waited)
        spent = {name: 1e3 * (after[name] - before[name]) / count for name in after}
        spent["client"] = 1e3 * (time.process_time() - own) / count
        found = {name: float(np.median(values)) for name, values in self._spans.items()}
        found |= {f"cpu {name}": spent.get(name, 0.0) for name in PROCESSES}
        found |= {"p50": speed.p50_ms, "per_second": speed.per_second}
        return found | {"p95": float(np.percentile(self._waited, 95))}


@contextlib.contextmanager
def sampled(data: Path, to: Path | None, seconds: float) -> Iterator[None]:
    """The ingress's stacks, by py-spy, while what is inside runs."""
    if to is None:
        yield
        return
    pid = next(
        process.pid
        for process in service_processes(data)
        if " ".join(process.cmdline()).startswith("ray::ServeReplica:ambience:")
    )
    options = ["-o", str(to), "-f", "raw", "-d", str(int(seconds)), "-r", "200", "--threads"]
    spying = subprocess.Popen(["py-spy", "record", "-p", str(pid), *options])
    yield
    spying.wait()


def run(given: argparse.Namespace) -> list[tuple[str, int, dict[str, float]]]:
    photographs = loading.read_photographs(given.folder)
    sizes = [size for size in SIZES if size.name in ("500 px", "12 MP")]
    queries = {size.name: make_queries(photographs, size) for size in reversed(sizes)}
    found = []
    with started(make_collection(photographs, given.images)) as (url, data):
        for size, connections in itertools.product(queries, CONNECTIONS):
            name = f"{size.replace(' ', '-')}-{connections}.txt"
            stacks = None if given.stacks is None else given.stacks / name
            with sampled(data, stacks, given.seconds):
                asking = Asking(f"{url}/v1/search", queries[size])
                measured = asking.measured(data, connections, given.seconds)
            found.append((size, connections, measured))
    return found


def report(found: Sequence[tuple[str, int, dict[str, float]]]) -> bool:
    """Print the tables; whether one connection waits no longer than it must, and 5 ms."""
    spans = ("decode", *KINDS, "fuse", "unavoidable")
    rows, costs, met = [], [], []
    for size, connections, at in found:
        name, rest = f"{size}, {connections}", at["p50"] - at["unavoidable"]
        if connections == 1:
            met.append(rest <= TARGET_MS)
        figures = [at["p50"], at["p95"], at["per_second"], *(at[span] for span in spans), rest]
        rows.append([name, *(f"{figure:.1f}" for figure in figures)])
        costs.append([name, *(f"{at[f'cpu {process}']:.1f}" for process in PROCESSES)])
    loading.print_table(["connections", "p50 ms", "p95", "per second", *spans, "the rest"], rows)
    print()
    loading.print_table(["CPU ms a request", *PROCESSES], costs)
    return all(met)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--stacks", type=Path, help="a folder for py-spy's samples")
    given = parser.parse_args()
    loading.end_on_sigterm()
    return 0 if report(run(given)) else 1


if __name__ == "__main__":
    sys.exit(main())
