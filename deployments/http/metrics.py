"""/metrics: Prometheus text, summed over all replicas of all applications.

Replicas count with `ray.util.metrics`, and each node's Ray agent collects the counts. This route
reads every agent of the cluster and sums series that differ only in the process that counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache

import aiohttp
import ray
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from ray.util.metrics import Counter, Histogram
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.http.answers import watched
from deployments.ingress.report import Report

router = APIRouter(tags=["health"])
PREFIX = "ray_ambience_"
COUNTED_BY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "pid"}
AGENT_SECONDS = 3.0
LATENCY_BOUNDARIES = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
MAXIMA = {"applied_lag", "applied_seq", "pictures", "index_bytes", "ready"}
"""Gauges that are merged by their maximum over a retriever's replicas."""


class RequestMetrics:
    """Metrics of the ingress."""

    def __init__(self) -> None:
        self._requests = Counter(
            "ambience_requests_total", "HTTP requests.", tag_keys=("route", "status")
        )
        self._seconds = Histogram(
            "ambience_request_seconds",
            "Seconds to the answer.",
            boundaries=LATENCY_BOUNDARIES,
            tag_keys=("route",),
        )
        self._retriever_seconds = Histogram(
            "ambience_retriever_seconds",
            "Seconds a retriever or a stage took.",
            boundaries=LATENCY_BOUNDARIES,
            tag_keys=("retriever",),
        )
        self._missing = Counter(
            "ambience_missing_total", "Answers without this retriever.", tag_keys=("retriever",)
        )

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.inc(1, {"route": route, "status": str(status)})
        self._seconds.observe(seconds, {"route": route})

    def observe(self, report: Report) -> None:
        """Record how long each retriever took, and which were missing."""
        for name, spent in report.seconds.items():
            self._retriever_seconds.observe(spent, {"retriever": name})
        for name in report.missing:
            self._missing.inc(1, {"retriever": name})


class RequestCounter:
    """Middleware that counts every answer, including refused and failed requests."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        def count(status: int, seconds: float) -> None:
            # Requests without a matching route share one label, because clients choose the
            # paths.
            route = getattr(scope.get("route"), "path", "other")
            request_metrics().count(route, status, seconds)
            if "report" in state:
                request_metrics().observe(state["report"])

        await watched(self.app, scope, receive, send, count)


@cache
def request_metrics() -> RequestMetrics:
    """The metrics of this process, made once."""
    return RequestMetrics()


@router.get("/metrics", summary="Prometheus text", response_class=PlainTextResponse)
async def metrics() -> Response:
    """Counters, histograms and gauges of all replicas; a few seconds old."""
    nodes = await asyncio.to_thread(ray.nodes)
    addresses = [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in nodes
        if node["Alive"]
    ]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(AGENT_SECONDS)) as session:
        texts = await asyncio.gather(*(_read(session, address) for address in addresses))
    text = await asyncio.to_thread(summed, texts)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def summed(texts: Iterable[str]) -> bytes:
    """Our metrics in these expositions, summed over replicas and nodes, without Ray's prefix."""
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(_own_series(text)):
            name = family.name.removeprefix("ray_")
            known = families.setdefault(name, Metric(name, family.documentation, family.type))
            known.samples += family.samples
    for family in families.values():
        family.samples = _sum_samples(family)
    return generate_latest(_Families(list(families.values())))


async def _read(session: aiohttp.ClientSession, address: str) -> str:
    try:
        async with session.get(address) as answer:
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""


def _own_series(text: str) -> str:
    """Only our own series; Ray's exporter serves Ray's hundreds of series."""
    kept = [
        line
        for line in text.splitlines()
        if line.startswith((PREFIX, f"# HELP {PREFIX}", f"# TYPE {PREFIX}"))
    ]
    return "\n".join(kept) + "\n"


def _sum_samples(family: Metric) -> list:  # type: ignore[type-arg]
    plain = family.name.removeprefix("ambience_")
    totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in family.samples:
        labels = tuple(
            sorted(
                (label, value)
                for label, value in sample.labels.items()
                if label not in COUNTED_BY and not label.startswith("otel_scope_")
            )
        )
        key = (sample.name.removeprefix("ray_"), labels)
        if plain in MAXIMA:
            totals[key] = max(totals.get(key, 0.0), sample.value)
        else:
            totals[key] = totals.get(key, 0.0) + sample.value
    merged = Metric(family.name, family.documentation, family.type)
    for (name, labels), value in totals.items():
        merged.add_sample(name, dict(labels), value)
    return list(merged.samples)


class _Families(Collector):
    """The interface that `generate_latest` expects."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
