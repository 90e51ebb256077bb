"""Latencies of a service, and the CPU seconds that a request costs each of its processes."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import yaml

from benchmarks import loading
from benchmarks.service import KINDS, Collection, fill_ours
from cluster.service.data_folder import service_processes

CONNECTIONS = (1, 4, 8)


@contextlib.contextmanager
def started(collection: Collection, replicas: int = 1) -> Iterator[tuple[str, Path]]:
    """A service with so many replicas of each retriever, filled: its address and data folder."""
    with tempfile.TemporaryDirectory(prefix="ambience-") as folder:
        data, port = Path(folder) / "data", loading.free_port()
        fill_ours(data, collection)
        path = loading.write_config(data.with_suffix(".yaml"), KINDS)
        config = yaml.safe_load(path.read_text())
        for application in config["applications"]:
            if application["name"] in KINDS:
                application["deployments"][0]["num_replicas"] = replicas
        path.write_text(yaml.safe_dump(config))
        url, count = f"http://127.0.0.1:{port}", len(collection.codes)
        with loading.ambience(data, path, port) as child:
            loading.wait_until_filled(url, KINDS, count, child, data.with_suffix(".log"))
            yield url, data


@contextlib.contextmanager
def serving(collection: Collection, replicas: int, image: bytes) -> Iterator[Service]:
    """With so many replicas of each retriever, ready to be asked."""
    with started(collection, replicas) as (url, data):
        yield Service(data, replicas, url, image)


class Service:
    """One service: its latencies, and the CPU seconds of its processes for a request."""

    def __init__(self, data: Path, replicas: int, url: str, image: bytes) -> None:
        self.data, self._replicas = data, replicas
        # A stored image has nothing decoded: its ingress does nothing but ask, and fuse.
        self._asked = {
            "both": Asking(f"{url}/v1/search", KINDS, image),
            "stored": Asking(f"{url}/v1/search", KINDS),
            "stored, one": Asking(f"{url}/v1/search", KINDS[:1]),
        }
        self._spent: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
        self._speeds: defaultdict[int, list[loading.Speed]] = defaultdict(list)

    def warm_up(self, seconds: float) -> None:
        """Each replica answers for itself: all are there when all have warmed up."""
        loading.measure(self._asked["both"].step, max(CONNECTIONS), seconds)

    def ask(self, seconds: float, beside: set[Path]) -> None:
        """Each figure once more, while services over the folders `beside` have nothing to do."""
        for name, asking in self._asked.items():
            self._spent[name].append(asking.costs(self.data, beside, seconds))
        for connections in CONNECTIONS:
            speed = loading.measure(self._asked["both"].step, connections, seconds)
            self._speeds[connections].append(speed)

    def recorded(self) -> dict[str, Any]:
        """The medians."""
        spent = {
            name: {of: float(np.median([one[of] for one in costs])) for of in costs[0]}
            for name, costs in self._spent.items()
        }
        latency = {
            str(connections): {
                "p50": float(np.median([speed.p50_ms for speed in speeds])) / 1000,
                "per_second": float(np.median([speed.per_second for speed in speeds])),
            }
            for connections, speeds in self._speeds.items()
        }
        return {"replicas": self._replicas, "spent": spent, "latency": latency}


class Asking:
    """Searches by one picture, or by a stored image, of which all answers are checked."""

    def __init__(self, url: str, kinds: Sequence[str], image: bytes | None = None) -> None:
        query: dict[str, Any] = {"retrievers": dict.fromkeys(kinds, 1.0)}
        if image is None:
            query["image_ids"] = [0]
            self.step = self._posting(url, query)
        else:
            body = loading.multipart(image, query=json.dumps(query))
            self.step = loading.posting(url, [body], lambda answer, _: self._note(answer))
        self._kinds = sorted(kinds)
        self._decoding: list[float] = []

    def _posting(self, url: str, query: dict[str, Any]) -> loading.Step:
        async def step(session: aiohttp.ClientSession) -> None:
            async with session.post(url, json=query) as answer:
                await answer.read()
                self._note(answer)

        return step

    def _note(self, answer: aiohttp.ClientResponse) -> None:
        """The seconds of decoding, 0 where there was none."""
        if answer.headers.get("X-Ambience-Answered", "").split(",") != self._kinds:
            raise SystemExit(f"an incomplete answer: {answer.status} {answer.headers}")
        self._decoding.append(spans_of(answer).get("decode", 0.0))

    def costs(self, data: Path, beside: Iterable[Path], seconds: float) -> dict[str, float]:
        """CPU seconds for one request on one connection, by process; the wall's for `decode`."""
        self._decoding.clear()
        idle = sum(sum(cpu_of(other).values()) for other in beside)
        before, own, began = cpu_of(data), time.process_time(), time.perf_counter()
        loading.measure(self.step, 1, seconds)
        wall, count = time.perf_counter() - began, len(self._decoding)
        after = cpu_of(data)
        spent = {name: (after[name] - before[name]) / count for name in after}
        spent["client"] = (time.process_time() - own) / count
        idle = sum(sum(cpu_of(other).values()) for other in beside) - idle
        spent["background"] = (spent.pop("ray", 0.0) * count + idle) / wall
        return spent | {"decode": float(np.median(self._decoding))}


def spans_of(answer: aiohttp.ClientResponse) -> dict[str, float]:
    """The seconds of `Server-Timing`, by name."""
    spans = (part.strip().split(";dur=") for part in answer.headers["Server-Timing"].split(","))
    return {name: float(took) / 1000 for name, took in spans}


def cpu_of(data: Path) -> dict[str, float]:
    """CPU seconds so far of the service's processes, by application; Ray's own as `ray`."""
    spent: dict[str, float] = defaultdict(float)
    for process in service_processes(data):
        try:
            title, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        parts = title.split(":")
        name = parts[3] if title.startswith("ray::ServeReplica:") else "ray"
        spent[name] += times.user + times.system
    return spent
