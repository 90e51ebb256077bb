"""Fused searches per second by the number of cores that a service may use.

    python -m benchmarks.cores PHOTOS_FOLDER [--cores 1,2] [--pictures 1000] [--seconds 20]

pHash, colour and local features over pictures of 500 px. Each service is started anew, on so many
cores (taskset), and searched from PER_CORE connections a core, at least 8; the client runs on any
core. The baseline is the service on the first number of cores.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np
from PIL import ImageOps

from benchmarks import loading
from models.machine import cores

KINDS = ("phash", "color", "local")
PER_CORE = 4
QUERIES = 64
SIZE = (500, 375)


class Point(NamedTuple):
    """One point of the curve."""

    cores: int
    connections: int
    p50_ms: float
    p99_ms: float
    per_second: float


def make_files(photographs: Path, folder: Path, count: int) -> list[Path]:
    """Pictures of 500 px, all different."""
    folder.mkdir()
    found = loading.read_photographs(photographs)
    for number in range(count):
        rng = np.random.default_rng(number)
        photograph = found[int(rng.integers(len(found)))]
        centering = (float(rng.random()), float(rng.random()))
        picture = ImageOps.fit(
            photograph, (500, 375), bleed=rng.uniform(0, 0.1), centering=centering
        )
        (folder / f"{number:06}.jpg").write_bytes(loading.as_jpeg(picture, 85))
    return sorted(folder.iterdir())


def curve(
    photographs: Path, folder: Path, counts: Sequence[int], seconds: float, pictures: int = 1000
) -> list[Point]:
    files = make_files(photographs, folder / "curve", pictures)
    data, config = folder / "curve-data", loading.write_config(folder / "curve.yaml", KINDS)
    data.mkdir()
    subprocess.run(
        [
            str(loading.AMBIENCE),
            "backfill",
            str(folder / "curve"),
            "--config",
            str(config),
            "--json",
        ],
        env=os.environ | {"AMBIENCE_DATA": str(data)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    bodies = [loading.multipart(path.read_bytes(), query="{}") for path in files[:QUERIES]]
    return [point(data, config, bodies, count, seconds, pictures) for count in counts]


def point(
    data: Path, config: Path, bodies: Sequence[bytes], count: int, seconds: float, pictures: int
) -> Point:
    port = loading.free_port()
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everywhere)[:count])
    try:
        started = loading.ambience(data, config, port)
        child = started.__enter__()
    finally:
        os.sched_setaffinity(0, everywhere)
    try:
        url = f"http://127.0.0.1:{port}"
        loading.wait_until_filled(url, KINDS, pictures, child, data.with_suffix(".log"))
        connections = max(8, PER_CORE * count)
        took = asyncio.run(search(f"{url}/v1/search", bodies, connections, seconds))
    finally:
        started.__exit__(None, None, None)
    p50, p99 = (float(np.quantile(took, share)) * 1e3 for share in (0.5, 0.99))
    return Point(count, connections, p50, p99, len(took) / seconds)


async def search(
    url: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> list[float]:
    """Seconds that each search took, after some to warm up."""
    turns = itertools.cycle(bodies)
    headers = {"Content-Type": f"multipart/form-data; boundary={loading.BOUNDARY}"}
    took: list[float] = []

    async def connection(session: aiohttp.ClientSession, until: float, keep: bool) -> None:
        while (began := time.perf_counter()) < until:
            async with session.post(url, data=next(turns), headers=headers) as answer:
                body = await answer.read()
                answered = answer.headers.get("X-Ambience-Answered", "").split(",")
                if keep and (answer.status != 200 or len(answered) != len(KINDS)):
                    raise SystemExit(f"{answer.status} {answer.headers} {body[:300]!r}")
                if keep and not json.loads(body)["hits"]:
                    raise SystemExit("a picture of the collection was not found")
            if keep:
                took.append(time.perf_counter() - began)

    limits = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        timeout=limits, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        for keep, length in ((False, 2.0), (True, seconds)):
            until = time.perf_counter() + length
            await asyncio.gather(*(connection(session, until, keep) for _ in range(connections)))
    return took


def report(points: Sequence[Point]) -> None:
    base = points[0].per_second
    loading.print_table(
        ("cores", "connections", "p50 ms", "p99 ms", "p99 / p50", "searches/s", "ratio"),
        [
            [
                str(one.cores),
                str(one.connections),
                f"{one.p50_ms:.0f}",
                f"{one.p99_ms:.0f}",
                f"{one.p99_ms / one.p50_ms:.1f}",
                f"{one.per_second:.1f}",
                f"{one.per_second / base:.1f}×",
            ]
            for one in points
        ],
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--cores", help="by default 1, 2, 4, … up to those there are")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    loading.end_on_sigterm()
    doubling = [2**power for power in range(8) if 2**power <= cores()]
    counts = [int(one) for one in given.cores.split(",")] if given.cores else doubling
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        report(curve(given.folder, Path(folder), counts, given.seconds, given.pictures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
