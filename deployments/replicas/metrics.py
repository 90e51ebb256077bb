"""Metrics of each replica of a retriever or annotator, by Ray's metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from ray.util.metrics import Gauge

from deployments.wire import Description
from indexes.store.base import Store
from models.errors import StoreUnavailable

METRICS_SECONDS = 5.0


class RetrieverMetrics:
    """Gauges of a retriever's replica."""

    def __init__(self, name: str) -> None:
        self._tags = {"retriever": name}
        tag_keys = ("retriever",)
        self._pictures = Gauge("ambience_pictures", "Pictures indexed.", tag_keys=tag_keys)
        self._bytes = Gauge("ambience_index_bytes", "Bytes of the indexes.", tag_keys=tag_keys)
        self._applied = Gauge("ambience_applied_seq", "Newest change applied.", tag_keys=tag_keys)
        self._lag = Gauge(
            "ambience_applied_lag", "Changes of the store not applied yet.", tag_keys=tag_keys
        )
        self._ready = Gauge("ambience_ready", "1 when it answers.", tag_keys=tag_keys)

    def show(self, described: Description, head: int) -> None:
        """Set the gauges from its description, and its lag behind the head of the log."""
        self.show_ready(described.state == "ready")
        if described.fingerprint:
            self._pictures.set(described.count, self._tags)
            beside = sum(one.bytes for one in described.tagged.values())
            self._bytes.set(described.bytes + beside, self._tags)
            self._applied.set(described.applied_seq, self._tags)
            self._lag.set(max(0, head - described.applied_seq), self._tags)

    def show_ready(self, ready: bool) -> None:
        """Set whether it answers, the only gauge of an annotator."""
        self._ready.set(int(ready), self._tags)


async def keep_showing(
    name: str, describe: Callable[[], Awaitable[Description]], store: Store
) -> None:
    """Update a replica's metrics, for ever."""
    metrics = RetrieverMetrics(name)
    head = 0
    while True:
        with contextlib.suppress(StoreUnavailable):  # What it was will do.
            head = await asyncio.to_thread(store.head)
            metrics.show(await describe(), head)
        await asyncio.sleep(METRICS_SECONDS)
