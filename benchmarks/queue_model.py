"""A queue model of a search: clients, the ingress, replicas of every retriever's shards, cores.

A request costs its client work, then the ingress: its loop (one thread) and its worker threads
(decoding, light features). The ingress asks one replica of every shard of every retriever, each of
which serves one search at a time, and waits for all. Hosts have so many cores; work takes them in
slices, as a kernel shares them out. Seconds throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

SLICE = 0.002
"""Seconds that work holds a core before the next in the queue gets it."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of one request's parts."""

    client: float
    loop: float
    """Of the ingress's event loop, but for its calls."""
    call: float
    """Of the ingress's event loop, for each shard asked."""
    threads: float
    """Of the ingress's worker threads, one after the other."""
    search: Mapping[str, float]
    """Retriever → of one of its replicas."""
    beside: float = 0.0
    """Of other worker threads of the ingress at the same time."""
    background: float = 0.0
    """Share of a core that is always taken."""
    wait: float = 0.0
    """Seconds in which nobody computes: wake-ups, the network."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What serves: `cores` of one host for all, or None where nobody shares a core."""

    replicas: int = 1
    shards: int = 1
    cores: int | None = None
    ingresses: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    p50: float
    p95: float
    per_second: float


class _Model:
    def __init__(self, costs: Costs, layout: Layout) -> None:
        self.costs, self.layout = costs, layout
        self.env = simpy.Environment()
        self._cores = simpy.Resource(self.env, layout.cores) if layout.cores else None
        # What is always taken slows everybody down alike.
        self._slower = 1.0
        if layout.cores:
            self._slower = layout.cores / max(layout.cores - costs.background, 0.1)
        self._loops = self._threads(layout.ingresses)
        self._replicas = {
            (name, shard): self._threads(layout.replicas)
            for name in costs.search
            for shard in range(layout.shards)
        }
        self.took: list[float] = []

    def _threads(self, count: int) -> list[simpy.Resource]:
        return [simpy.Resource(self.env, 1) for _ in range(count)]

    def _work(self, seconds: float) -> Iterator[Any]:
        left = seconds * self._slower
        while left > 0 and self._cores is not None:
            with self._cores.request() as turn:
                yield turn
                yield self.env.timeout(min(left, SLICE))
            left -= SLICE
        if self._cores is None:
            yield self.env.timeout(left)

    def _at(self, threads: list[simpy.Resource], seconds: float) -> Iterator[Any]:
        """Work on the thread with the shortest queue."""
        with min(threads, key=lambda one: one.count + len(one.queue)).request() as turn:
            yield turn
            yield from self._work(seconds)

    def request(self) -> Iterator[Any]:
        costs, began = self.costs, self.env.now
        loop = costs.loop + costs.call * len(self._replicas)
        yield from self._work(costs.client)
        yield from self._at(self._loops, loop / 2)
        yield self.env.all_of(
            [self.env.process(self._work(part)) for part in (costs.threads, costs.beside)]
        )
        asked = [
            self.env.process(self._at(replicas, costs.search[name]))
            for (name, _), replicas in self._replicas.items()
        ]
        yield self.env.all_of(asked)
        yield from self._at(self._loops, loop / 2)
        yield self.env.timeout(costs.wait)
        self.took.append(self.env.now - began)

    def connection(self, requests: int) -> Iterator[Any]:
        for _ in range(requests):
            yield from self.request()


def simulate(costs: Costs, layout: Layout, connections: int, requests: int = 400) -> Outcome:
    """So many connections, each of which sends its next request when it has an answer."""
    model = _Model(costs, layout)
    each = -(-requests // connections)
    for _ in range(connections):
        model.env.process(model.connection(each))
    model.env.run()
    took = np.array(model.took)
    p50, p95 = np.percentile(took, (50, 95))
    return Outcome(float(p50), float(p95), len(took) / model.env.now)


def most_per_second(costs: Costs, layout: Layout) -> tuple[float, str]:
    """Requests a second above which queues grow, and whose queue does."""
    calls = len(costs.search) * layout.shards
    loop = costs.loop + costs.call * calls
    limits = {"the ingress's loop": layout.ingresses / loop if loop else np.inf}
    for name, seconds in costs.search.items():
        limits[name] = layout.replicas / seconds
    if layout.cores:
        work = costs.client + loop + costs.threads + costs.beside
        work += layout.shards * sum(costs.search.values())
        limits["the cores"] = (layout.cores - costs.background) / work
    least = min(limits, key=lambda name: limits[name])
    return float(limits[least]), least
