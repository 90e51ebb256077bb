"""The deployment of one annotator: it annotates on request, and completes added images."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from ray import serve

from deployments.loopback import keep_sockets_on_loopback
from deployments.replicas.completion import AnnotationCompleter, keep_completing
from deployments.replicas.loading import load_until_it_works
from deployments.replicas.metrics import METRICS_SECONDS, RetrieverMetrics
from deployments.replicas.served_features import ServedFeatures, on_loop
from deployments.settings import AnnotatorArgs, store_url
from deployments.storing import open_here
from deployments.wire import AnnotateAnswer, Description, State
from indexes.store.base import Store
from models.annotator import Annotation
from models.errors import AmbienceError, RetrieverUnavailable
from models.registry import make_annotator
from models.types import Pixels

T = TypeVar("T")
logger = logging.getLogger(__name__)
BATCH_WAIT = 0.01
"""Seconds that a picture waits for others to share a pass of the model."""


class Annotator:
    """Annotates views of pictures. All CPU work runs in threads, never on the event loop.

    The model takes one call at a time: requests, and completion at a low priority, share it.
    """

    def __init__(self, args: AnnotatorArgs) -> None:
        keep_sockets_on_loopback()
        self.name = serve.get_replica_context().app_name
        self.annotator = make_annotator(args.annotator, args.options)
        if (asked := self.annotator.asks()) is not None:
            self.annotator.source = ServedFeatures(asked, on_loop(asyncio.get_event_loop()))
        self.args = args
        self.store: Store = open_here(store_url(args.store))
        self._annotating = ThreadPoolExecutor(1, "annotate")
        self._lock = Lock()
        self._loaded = False
        self._unavailable: str | None = None
        self._batched: Any = serve.batch(
            max_batch_size=self.annotator.batch, batch_wait_timeout_s=BATCH_WAIT
        )(self._annotate_many)
        self._starting = asyncio.get_event_loop().create_task(self._start())

    async def describe(self) -> Description:
        """Its state, and what the ingress needs to send pictures."""
        state, reason = self._state()
        return Description(
            name=self.name,
            kind="annotator",
            state=state,
            reason=reason,
            extractor=self.args.annotator,
            options=self.args.options,
            fingerprint=self.annotator.fingerprint if self._loaded else "",
            view=self.annotator.view,
            place="replica",
            index="",
            count=0,
            bytes=0,
            applied_seq=0,
            verifying=False,
            explains=False,
            device=self.annotator.device,
        )

    async def annotate(self, pixels: Pixels) -> AnnotateAnswer | AmbienceError:
        """Annotate one view of a picture; expected errors are returned as values."""
        began = time.perf_counter()
        try:
            if not self._loaded:
                state, reason = self._state()
                raise RetrieverUnavailable(f"{state}: {reason}")
            if self.annotator.batch > 1:
                annotation: Annotation = await self._batched(pixels)
            else:
                annotation = (await self._annotate_many([pixels]))[0]
        except AmbienceError as exc:
            return exc
        spent = time.perf_counter() - began
        return AnnotateAnswer(annotation.row(), self.annotator.fingerprint, spent)

    def check_health(self) -> None:
        """Raises when start-up ended in an unforeseen error, so that Serve replaces the replica."""
        if self._starting.done() and self._starting.exception() is not None:
            raise RuntimeError(f"{self.name} could not start") from self._starting.exception()

    async def _annotate_many(self, pixels: list[Pixels]) -> list[Annotation]:
        def work() -> list[Annotation]:
            with self._lock:
                return self.annotator.annotate_many(pixels)

        return await self._run(work)

    async def _start(self) -> None:
        metrics = asyncio.create_task(self._show_metrics())
        try:
            await load_until_it_works(self.annotator, self._run, self._set_reason)
            self._loaded = True
            completer = AnnotationCompleter(self.name, self.store, self.annotator, self._lock)
            await keep_completing(completer, self.args.completion_interval)
        finally:
            metrics.cancel()

    async def _show_metrics(self) -> None:
        metrics = RetrieverMetrics(self.name)
        while True:
            metrics.show_ready(self._loaded)
            await asyncio.sleep(METRICS_SECONDS)

    def _set_reason(self, reason: str | None) -> None:
        self._unavailable = reason

    def _state(self) -> tuple[State, str | None]:
        if self._loaded:
            return "ready", None
        if self._unavailable is not None:
            return "unavailable", self._unavailable
        return "loading", "loading"

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._annotating, work)
