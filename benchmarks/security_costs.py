"""Searches beside hostile clients, and what Ray's token costs.

    python -m benchmarks.security_costs PHOTOS [--pictures 100] [--seconds 10]

pHash, colour and local features over pictures of 500 px. First one client searches alone, beside
200 connections that announce 60 MB and send nothing, from its own address and from another, and
beside 40 uploads of 60 MB at once: p50 and p95 of its searches, and the ingress's memory. Then the
processor time of all processes for a search by a stored image, with Ray's token and without it, in
turns: each round starts a service of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import loading
from cluster.service.data_folder import service_processes

KINDS = ("phash", "color", "local")
SLOW, LARGE, LARGE_BYTES = 200, 40, 60_000_000
ROUNDS, SEARCHES = 3, 300
HEAD = (
    "POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    f"Content-Length: {LARGE_BYTES}\r\n\r\n"
).encode()


@contextlib.contextmanager
def serving(pictures: list[bytes], token: str) -> Iterator[tuple[str, Path]]:
    """A filled service: its address and data folder."""
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        data, port = Path(folder) / "data", loading.free_port()
        config = loading.write_config(data.with_suffix(".yaml"), KINDS)
        os.environ["RAY_AUTH_MODE"] = token
        url = f"http://127.0.0.1:{port}"
        with loading.ambience(data, config, port) as child:
            loading.wait_until_filled(url, KINDS, 0, child, data.with_suffix(".log"))
            with httpx.Client(base_url=url, timeout=60) as client:
                for number, picture in enumerate(pictures):
                    files = {"image": ("a.jpg", picture)}
                    client.put(f"/v1/images/{number}", files=files).raise_for_status()
            loading.wait_until_filled(url, KINDS, len(pictures), child, data.with_suffix(".log"))
            yield url, data


class Ingress(threading.Thread):
    """Watches the memory of the process that listens on a port."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        listening = (one for one in psutil.net_connections("tcp") if one.status == "LISTEN")
        self._process = psutil.Process(
            next(one.pid for one in listening if one.laddr and one.laddr.port == port)
        )
        self.most = 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(psutil.Error):
            while True:
                self.most = max(self.most, self._process.memory_info().rss)
                time.sleep(0.02)


def searched(url: str, picture: bytes, seconds: float) -> list[float]:
    """Milliseconds of one search after the other; raises for one that is refused."""
    took, until = [], time.perf_counter() + seconds
    with httpx.Client(base_url=url, timeout=60) as client:
        while (began := time.perf_counter()) < until:
            client.post("/v1/search", files={"image": ("a.jpg", picture)}).raise_for_status()
            took.append((time.perf_counter() - began) * 1000)
    return took


async def _slow(port: int, source: str) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(source, 0)
                )
                writer.write(HEAD)
                while await reader.read(1000):
                    pass
                writer.close()
            await asyncio.sleep(0.5)

    await asyncio.gather(*(one() for _ in range(SLOW)))


async def _large(url: str) -> None:
    body = os.urandom(1000) * (LARGE_BYTES // 1000)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=100, limits=limits) as client:

        async def one() -> None:
            with contextlib.suppress(httpx.HTTPError):
                await client.post("/v1/search", files={"image": ("a.jpg", body)})

        while True:
            await asyncio.gather(*(one() for _ in range(LARGE)))
            await asyncio.sleep(1)


def _run(clients: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
    asyncio.run(clients(*given))


@contextlib.contextmanager
def beside(*clients: Any) -> Iterator[None]:
    """Run these clients, a function and what it is given, in a process of their own meanwhile."""
    if not clients:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_run, args=clients)
    process.start()
    time.sleep(3)
    try:
        yield
    finally:
        process.kill()
        process.join()


def hostile_clients(pictures: list[bytes], seconds: float) -> None:
    rows, quiet = [], 0.0
    with serving(pictures, "token") as (url, _):
        port = int(url.rpartition(":")[2])
        ingress = Ingress(port)
        searched(url, pictures[3], seconds / 2)
        for name, clients in (
            ("alone", ()),
            (f"{SLOW} slow connections, its own address", (_slow, port, "127.0.0.1")),
            (f"{SLOW} slow connections, another address", (_slow, port, "127.0.0.2")),
            (f"{LARGE} uploads of {LARGE_BYTES // 10**6} MB at once", (_large, url)),
        ):
            with beside(*clients):
                p50, p95 = np.quantile(searched(url, pictures[3], seconds), (0.5, 0.95))
            quiet = quiet or p95
            memory = f"{ingress.most / 2**20:.0f} MiB"
            rows.append([name, f"{p50:.0f} ms", f"{p95:.0f} ms", f"{p95 / quiet:.1f}×", memory])
    loading.print_table(["", "p50", "p95", "p95 to that alone", "memory until then"], rows)


def _cpu(data: Path) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in service_processes(data))


def token_costs(pictures: list[bytes]) -> None:
    query = {"image_ids": [3], "retrievers": {"phash": 1, "color": 1}, "k": 5}
    spent: dict[str, list[float]] = {"token": [], "disabled": []}
    for _ in range(ROUNDS):
        for token, costs in spent.items():
            with (
                serving(pictures[:20], token) as (url, data),
                httpx.Client(base_url=url, timeout=60) as client,
            ):
                for count in (SEARCHES // 3, SEARCHES):
                    before = _cpu(data)
                    for _ in range(count):
                        client.post("/v1/search", json=query).raise_for_status()
                costs.append((_cpu(data) - before) / SEARCHES * 1000)
    rows = [
        [name, ", ".join(f"{one:.1f}" for one in costs), f"{statistics.median(costs):.1f}"]
        for name, costs in spent.items()
    ]
    loading.print_table(["RAY_AUTH_MODE", "CPU ms a search, by round", "median"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    loading.end_on_sigterm()
    rng, photographs = np.random.default_rng(0), loading.read_photographs(given.photos)
    pictures = [
        loading.as_jpeg(loading.mosaic(photographs, 500, 375, rng), 85)
        for _ in range(given.pictures)
    ]
    hostile_clients(pictures, given.seconds)
    token_costs(pictures)


if __name__ == "__main__":
    main()
