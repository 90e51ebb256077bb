"""The deployment of one retriever: an extractor, an index that follows the store, and
completion."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ray import serve

from deployments.layout import shard_of
from deployments.loopback import keep_sockets_on_loopback
from deployments.replicas.completion import FeatureCompleter, keep_completing
from deployments.replicas.composite_query import composite_features
from deployments.replicas.joining import wait_beside_others
from deployments.replicas.loading import load_until_it_works
from deployments.replicas.metrics import keep_showing
from deployments.replicas.saving import keep_saving
from deployments.replicas.tagged import CLOSING_SECONDS, RENEWAL_SECONDS, TaggedFollowers, filled
from deployments.settings import (
    RetrieverArgs,
    snapshots_folder,
    store_url,
    training_files,
    with_training_files,
)
from deployments.storing import open_here
from deployments.wire import (
    Description,
    ExtractAnswer,
    SearchAnswer,
    SearchRequest,
    State,
)
from indexes.base import Query, Rows
from indexes.registry import index_class, make_index
from indexes.replica.applier import Status, row_reader
from indexes.replica.follower import Follower
from indexes.replica.sharding import WHOLE
from indexes.replica.snapshots import Snapshots
from indexes.store.base import ANNOTATIONS, Space, Store
from models.base import Extractor
from models.errors import AmbienceError, ImageNotFound, InvalidInput, RetrieverUnavailable
from models.machine import cores
from models.registry import make_extractor
from models.types import Features, Pixels, TextFeatures

T = TypeVar("T")
FileVersions = dict[Path, tuple[int, int] | None]
logger = logging.getLogger(__name__)
FIRST_RETRY, LAST_RETRY = 2.0, 60.0
BUILDING_SECONDS = 0.5
"""Seconds that a description waits for an index of a tag."""
BATCH_SECONDS = 0.005
"""Seconds that a picture waits for others to share a GPU's forward pass."""
BATCHES_IN_FLIGHT = 2
"""Batches of a GPU: one is prepared while it computes the other."""


class Retriever:
    """Answers searches of one feature space. All CPU work runs in threads, never on the event
    loop."""

    def __init__(self, args: RetrieverArgs, *_: object) -> None:
        keep_sockets_on_loopback()
        context = serve.get_replica_context()
        self.name = context.app_name
        self.shard = shard_of(context.deployment)
        self.extractor: Extractor = make_extractor(args.extractor, args.options)
        self.args = args
        self.store: Store = open_here(store_url(args.store))
        self._index_class = index_class(self.extractor.index)
        self.threads = cores()
        self._extracting = ThreadPoolExecutor(self.threads, "extract")
        self._loaded = self._joined = False
        self._unavailable: str | None = None
        self._follower: Follower | None = None
        self._tagged = TaggedFollowers(self.store, self._new_follower)
        self._starting = asyncio.get_event_loop().create_task(self._start())

    async def describe(self, tag: str | None = None) -> Description:
        """Its state, counts, and what the ingress needs to send queries; with the index of this
        tag, if one is given and it can be built soon."""
        if tag is not None and self._follower is not None:
            with contextlib.suppress(AmbienceError):
                await self._tagged.follower(tag, BUILDING_SECONDS)
        status = self._follower.status if self._follower is not None else None
        state, reason = self._state(status)
        return Description(
            name=self.name,
            kind="retriever",
            state=state,
            reason=reason,
            extractor=self.args.extractor,
            options=self.args.options,
            fingerprint=self.extractor.fingerprint if self._loaded else "",
            view=self.extractor.view,
            place=self.extractor.place,
            index=status.kind if status is not None else self.extractor.index,
            count=status.count if status is not None else 0,
            bytes=status.nbytes if status is not None else 0,
            applied_seq=status.applied if status is not None else 0,
            verifying=self._index_class.verifying,
            explains="explain" in self._index_class.Params.model_fields,
            fused_params=dict(self._index_class.fused),
            reads_text=self.extractor.reads_text,
            additive=self.extractor.additive,
            of_pictures=self.extractor.of_pictures,
            device=self.extractor.device,
            threads=self.threads,
            searched_by=self.extractor.index,
            shards=self.shard.of,
            tagged=self._tagged.describe(),
        )

    async def search(self, request: SearchRequest) -> SearchAnswer | AmbienceError:
        """Search with one query."""
        return await _as_value(self._search(request))

    async def features(self, request: SearchRequest) -> SearchRequest | AmbienceError:
        """The request with its features, so that all shards get the same."""
        return await _as_value(self._by_features(request))

    async def extract(
        self, pixels: Pixels, fingerprint: str | None = None
    ) -> ExtractAnswer | AmbienceError:
        """Extract features of one view for the store, in this feature space if one is given."""
        return await _as_value(self._extract(pixels, fingerprint))

    async def text_features(self, texts: Sequence[str]) -> TextFeatures | AmbienceError:
        """Features of texts, for an annotator."""
        return await _as_value(self._text_features(texts))

    async def check_health(self) -> None:
        """Raises when start-up ended in an unforeseen error, so that Serve replaces the replica.

        Serve sends no queries before the first call ends, so it waits for the index.
        """
        if not self._joined:
            await wait_beside_others(self._current_state)
            self._joined = True
        self._current_state()

    async def _start(self) -> None:
        """Load, index, then complete pending images."""
        showing = asyncio.create_task(self._show_metrics())
        await load_until_it_works(self.extractor, self._run, self._set_reason)
        self._in_batch = serve.batch(
            max_batch_size=self.extractor.batch,
            batch_wait_timeout_s=BATCH_SECONDS,
            max_concurrent_batches=BATCHES_IN_FLIGHT,
        )(self._extract_many)
        self._loaded = True
        file_versions = self._file_versions()
        while self._follower is None:
            try:
                self._follower = self._new_follower(self.store)
            except AmbienceError as exc:  # A damaged file.
                self._unavailable = str(exc)
                await asyncio.sleep(FIRST_RETRY)
        self._follower.start()
        saving = keep_saving(self._following)
        await asyncio.gather(
            showing,
            self._complete(),
            self._rebuild_when_due(file_versions),
            saving,
            self._tagged.keep(self._file_versions),
        )

    def _new_follower(self, store: Store) -> Follower:
        """A follower of this store with an empty index. Only that of all images has snapshots."""
        options = with_training_files(self.args.index, self.name, self.extractor.fingerprint)
        index = make_index(self.extractor.index, options, self._rows_of(store))
        index.check_dtype(self.extractor.dtype)
        folder, layout = snapshots_folder(), str(self.shard)
        whole = store is self.store
        return Follower(
            store,
            self._space,
            index,
            self.extractor.from_row,
            snapshots=Snapshots(folder, store, self._space, layout) if whole else None,
            shard=self.shard,
        )

    async def _rebuild_when_due(self, file_versions: FileVersions) -> None:
        """Once there is a new training, or the index needs compaction, build an index beside the
        old one and swap.

        Searches that have begun end on the old index. Until then both take memory.
        """
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            now = self._file_versions()
            if now == file_versions and not self._following().status.needs_compaction:
                continue
            try:
                fresh = await asyncio.to_thread(filled, lambda: self._new_follower(self.store))
            except AmbienceError as exc:
                logger.warning("%s keeps its index: %s", self.name, exc)
                await asyncio.sleep(LAST_RETRY)
                continue
            old, self._follower, file_versions = self._follower, fresh, now
            assert old is not None
            try:
                await asyncio.sleep(CLOSING_SECONDS)
            finally:
                await asyncio.to_thread(old.close)

    def _file_versions(self) -> FileVersions:
        """Versions of all training files; a version changes whenever its file does."""
        files = training_files(self.args.index, self.name, self.extractor.fingerprint)
        return {path: _file_version(path) for path in files.values()}

    async def _complete(self) -> None:
        if self.extractor.of_pictures:
            completer = FeatureCompleter(self.name, self.store, self.extractor)
            await keep_completing(completer, self.args.completion_interval)

    def _set_reason(self, reason: str | None) -> None:
        self._unavailable = reason

    @property
    def metrics_name(self) -> str:
        """Its name in the metrics."""
        return self.name if self.shard == WHOLE else f"{self.name}/{self.shard.number}"

    async def _show_metrics(self) -> None:
        await keep_showing(self.metrics_name, self.describe, self.store)

    def _state(self, status: Status | None) -> tuple[State, str | None]:
        if status is None:
            return (
                ("unavailable", self._unavailable) if self._unavailable else ("loading", "loading")
            )
        return status.state, status.reason or None

    def _current_state(self) -> State:
        """Raises RuntimeError where it could not start."""
        if self._starting.done() and self._starting.exception() is not None:
            raise RuntimeError(f"{self.name} could not start") from self._starting.exception()
        return self._state(None if self._follower is None else self._follower.status)[0]

    async def _search(self, request: SearchRequest) -> SearchAnswer:
        began = time.perf_counter()
        if request.sharded != (self.shard != WHOLE):
            raise RetrieverUnavailable(f"{self.name} is split over {self.shard.of} shards now")
        follower = self._following()
        params = self._index_class.Params.parse(request.params)
        variants = await self._query_features(request)
        if request.tag is not None:
            follower = await self._tagged.follower(request.tag, request.deadline / 2)
        answer = await follower.asearch(
            Query(
                variants,
                request.allowed,
                request.is_one_picture,
                request.sharded,
                request.candidates,
            ),
            params,
            request.min_seq,
            request.deadline,
            request.stale_ok,
        )
        seconds = time.perf_counter() - began
        return SearchAnswer(answer.hits, answer.applied_seq, answer.stale, seconds, answer.part)

    async def _by_features(self, request: SearchRequest) -> SearchRequest:
        self._following()
        return replace(
            request,
            features=await self._query_features(request),
            fingerprint=self.extractor.fingerprint,
            pixels=None,
            image_id=None,
            composite=None,
            of_a_sum=not request.is_one_picture,
        )

    async def _extract(self, pixels: Pixels, fingerprint: str | None) -> ExtractAnswer:
        if not self._loaded:
            self._following()
        self._check_space(fingerprint)
        began = time.perf_counter()
        features = await self._features(pixels)
        row = self.extractor.to_row(features)
        return ExtractAnswer(row, self.extractor.fingerprint, time.perf_counter() - began)

    async def _text_features(self, texts: Sequence[str]) -> TextFeatures:
        if not self._loaded:
            self._following()
        return await self._run(lambda: self.extractor.text_features(texts))

    async def _features(self, pixels: Pixels) -> Features:
        """Features of one picture. Calls share a forward pass of a GPU, and take a thread each
        otherwise, because a core computes a batch no faster than its pictures one by one."""
        if self.extractor.device == "cpu":
            return await self._run(lambda: self.extractor.extract(pixels))
        features: Features = await self._in_batch(pixels)
        return features

    async def _extract_many(self, pixels: list[Pixels]) -> list[Features]:
        return await self._run(lambda: self.extractor.extract_many(pixels))

    async def _query_features(self, request: SearchRequest) -> list[Features]:
        self._check_space(request.fingerprint)
        if request.features is not None:
            return list(request.features)
        if request.composite is not None:
            composite, rows = request.composite, self._rows_of(self._store_of(request))
            made = await asyncio.gather(*(self._features(one) for one in composite.pixels))
            work = partial(composite_features, self.extractor, rows, composite, made)
            return [await self._run(work)]
        if request.pixels is not None:
            pixels, variants = request.pixels, request.variants
            if variants == "identity" and self.extractor.device != "cpu":
                return [await self._features(pixels)]
            return await self._run(lambda: self.extractor.extract_variants(pixels, variants))
        if request.image_id is None:
            raise InvalidInput("give an image or an image_id", "image_id")
        return await self._run(lambda: self._stored_features(request))

    def _check_space(self, fingerprint: str | None) -> None:
        if fingerprint not in (None, self.extractor.fingerprint):
            raise RetrieverUnavailable(f"{self.name} has changed; its features differ now")

    def _stored_features(self, request: SearchRequest) -> list[Features]:
        assert request.image_id is not None
        rows = self._rows_of(self._store_of(request))
        features = rows([request.image_id]).get(request.image_id)
        if features is None:
            raise ImageNotFound(f"{self.name} knows no image {request.image_id}", "image_id")
        mirrored = self.extractor.mirrored(features) if request.variants != "identity" else None
        return [features] if mirrored is None else [features, mirrored]

    @property
    def _space(self) -> Space:
        if not self.extractor.of_pictures:
            return ANNOTATIONS
        return Space(self.name, self.extractor.fingerprint)

    def _store_of(self, request: SearchRequest) -> Store:
        """The store of the images that exist for a request."""
        return self.store if request.tag is None else self._tagged.store(request.tag)

    def _rows_of(self, store: Store) -> Rows:
        return row_reader(store, self._space, self.extractor.from_row)

    def _following(self) -> Follower:
        if self._follower is None:
            state, reason = self._state(None)
            raise RetrieverUnavailable(f"{state}: {reason}")
        return self._follower

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._extracting, work)


def _file_version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


async def _as_value(answer: Coroutine[Any, Any, T]) -> T | AmbienceError:
    """Return expected errors as values, because Serve would log and wrap an exception."""
    try:
        return await answer
    except AmbienceError as exc:
        return exc
