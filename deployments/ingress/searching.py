"""Searches: decode a query picture once, call the retrievers, report how it went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.directory.entry import DirectoryEntry
from deployments.directory.retrievers import RetrieverDirectory
from deployments.ingress.report import Report
from deployments.wire import CompositeQuery, SearchAnswer, SearchRequest
from indexes.base import Hit
from indexes.relation.proposals import QuerySide
from models.errors import AmbienceError, ImageNotFound, RetrieverUnavailable
from models.extractors.color import recoloured
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.types import Features, Pixels, Variants, View

COLOR = "color"
"""The retriever that proposes copies of a picture without edges."""
Region = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """One uploaded query picture, decoded, with the features extracted from it."""

    features: Mapping[str, Sequence[Features]]
    """Features extracted in the ingress, by retriever, one entry per symmetry tried."""
    fingerprints: Mapping[str, str]
    """Fingerprints of these features, by retriever."""
    views: Mapping[View, Pixels]
    """Views for retrievers that extract in their own replicas."""
    variants: Variants
    side: QuerySide | None = None
    """The picture as it is compared with the images that are found."""
    pixels: int = 0
    """Number of pixels of the whole upload."""
    recoloured: Sequence[Features] = ()
    """Of a picture without edges, its histograms under slight changes of its colours."""

    def proposing(self) -> QueryPicture:
        """The picture as copies of it are proposed: one without edges under other colours, too."""
        if not self.recoloured:
            return self
        histograms = [*self.features[COLOR], *self.recoloured]
        return replace(self, features={**self.features, COLOR: histograms}, recoloured=())


@dataclass(frozen=True, slots=True)
class RetrieverCall:
    """A call of one retriever for one list: its query and its parameters."""

    entry: DirectoryEntry
    params: Mapping[str, Any]
    picture: QueryPicture | None = None
    image_id: int | None = None
    variants: Variants = "identity"
    composite: CompositeQuery | None = None


@dataclass(frozen=True, slots=True)
class SearchScope:
    """What applies to all retrievers of one search."""

    until: float
    """Monotonic time by which the answer must be ready."""
    allowed: npt.NDArray[np.int64] | None = None
    min_seq: int = 0
    """The log's head when the search began, or a requested later seq."""
    stale_ok: bool = False
    stale: bool = False
    """Whether the head could not be read, so that retrievers answer from memory."""


@dataclass(slots=True)
class HitLists:
    """The lists of hits, in the order of the calls; None where a retriever is missing."""

    hits: list[list[Hit] | None] = field(default_factory=list)


class Searcher:
    """Decodes query pictures and fans queries out to the retrievers."""

    def __init__(
        self, directory: RetrieverDirectory, decoder: Decoder, retriever_deadline: float
    ) -> None:
        self.directory = directory
        self.decoder = decoder
        self.retriever_deadline = retriever_deadline

    async def prepare(
        self,
        data: bytes,
        entries: Sequence[DirectoryEntry],
        variants: Variants,
        report: Report,
        region: Region | None = None,
    ) -> QueryPicture:
        """Decode a picture and extract the features that the ingress extracts, in one worker
        thread."""

        def work(picture: Picture) -> QueryPicture:
            report.truncated = report.truncated or picture.truncated
            pixels = picture.width * picture.height
            if region is not None:
                picture = picture.crop(*region)
            return replace(self.query_picture(picture, entries, variants), pixels=pixels)

        with report.timed("decode"):
            return await self.decoder.decode(data, then=work)

    def query_picture(
        self, picture: Picture, entries: Sequence[DirectoryEntry], variants: Variants
    ) -> QueryPicture:
        """Extract the features that the ingress extracts. It computes in the calling thread."""
        here: dict[str, Callable[[], Sequence[Features]]] = {}
        fingerprints: dict[str, str] = {}
        views: dict[View, Pixels] = {}
        for entry in entries:
            if entry.description is None or not entry.of_pictures:
                continue
            view = entry.description.view
            if entry.extractor is None or entry.description.additive:
                views[view] = picture.view(view)
            if entry.extractor is not None:
                pixels = picture.view(view)
                here[entry.name] = partial(entry.extractor.extract_variants, pixels, variants)
                fingerprints[entry.name] = entry.extractor.fingerprint
        features = dict(zip(here, self.decoder.run_all(list(here.values())), strict=True))
        side = QuerySide.of(picture)
        others = recoloured(side.side.mosaic) if COLOR in here and side.smooth else ()
        return QueryPicture(features, fingerprints, views, variants, side, recoloured=others)

    async def search_all(
        self, calls: Sequence[RetrieverCall], scope: SearchScope, report: Report
    ) -> HitLists:
        """Call all retrievers at once; one that fails is missing, and named so in the report.

        An ImageNotFound or InvalidInput of a retriever counts as missing, too, because other
        retrievers may know the image.
        """
        results = await asyncio.gather(
            *(self._search_once(call, scope, report) for call in calls),
            return_exceptions=True,
        )
        lists = HitLists()
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, SearchAnswer):
                report.answered.add(call.entry.name)
                lists.hits.append(result.hits)
            elif isinstance(result, AmbienceError):
                report.missing[call.entry.name] = str(result)
                lists.hits.append(None)
            elif isinstance(result, BaseException):
                raise result
        return lists

    async def search(self, call: RetrieverCall, scope: SearchScope, report: Report) -> list[Hit]:
        """Call one retriever; its error is raised."""
        answer = await self._search_once(call, scope, report)
        report.answered.add(call.entry.name)
        return answer.hits

    async def _search_once(
        self, call: RetrieverCall, scope: SearchScope, report: Report
    ) -> SearchAnswer:
        if call.entry.reason is not None:
            # The directory asks it again beside the searches, which must not wait for it.
            raise RetrieverUnavailable(call.entry.reason)
        with report.timed(call.entry.name):
            try:
                answer = await self._send(call, scope)
            except RetrieverUnavailable:
                # It may have changed, or lost the replica that was called:
                # refresh the entry and retry once.
                await self.directory.refresh_entry(call.entry)
                answer = await self._send(call, scope, partial=True)
        report.stale = report.stale or answer.stale or scope.stale
        report.missing.update(answer.missing)
        return answer

    async def _send(
        self, call: RetrieverCall, scope: SearchScope, partial: bool = False
    ) -> SearchAnswer:
        if call.entry.reason is not None:
            raise RetrieverUnavailable(call.entry.reason)
        left = scope.until - time.monotonic()
        request = search_request(call, scope, max(0.01, min(left, self.retriever_deadline)))
        return await self.directory.search(call.entry, request, partial)


def search_request(call: RetrieverCall, scope: SearchScope, deadline: float) -> SearchRequest:
    """The request for a retriever, in the feature space of its description or of the features."""
    description = call.entry.description
    assert description is not None
    common: dict[str, Any] = {
        "params": call.params,
        "allowed": scope.allowed,
        "min_seq": scope.min_seq,
        "stale_ok": scope.stale_ok,
        "deadline": deadline,
        "fingerprint": description.fingerprint or None,
    }
    if call.composite is not None:
        return SearchRequest(composite=call.composite, **common)
    if call.picture is None:
        if call.image_id is None:
            raise ImageNotFound("give an image or an image_id", "image_id")
        return SearchRequest(image_id=call.image_id, variants=call.variants, **common)
    features = call.picture.features.get(call.entry.name)
    if features is not None:
        common["fingerprint"] = call.picture.fingerprints[call.entry.name]
        return SearchRequest(features=features, **common)
    pixels = call.picture.views.get(description.view)
    return SearchRequest(pixels=pixels, variants=call.picture.variants, **common)
