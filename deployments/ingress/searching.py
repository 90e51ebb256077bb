"""Searches: a picture is decoded once, each retriever is asked, a report says how it went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.directory.entry import Known
from deployments.directory.retrievers import Retrievers
from deployments.ingress.report import Report
from deployments.wire import MixedQuery, SearchAnswer, SearchRequest
from indexes.base import Hit
from models.errors import AmbienceError, ImageNotFound, RetrieverUnavailable
from models.pictures.decoder import Decoder
from models.pictures.decoding import Picture
from models.types import Features, Pixels, Variants, View

Region = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """What one uploaded query picture has become."""

    features: Mapping[str, Sequence[Features]]
    """Of retrievers extracted in the ingress, by name, one entry per symmetry tried."""
    fingerprints: Mapping[str, str]
    """What these features were made by."""
    views: Mapping[View, Pixels]
    """For retrievers that extract in their own replicas."""
    variants: Variants


@dataclass(frozen=True, slots=True)
class Ask:
    """One list wanted: a retriever, a query, its parameters."""

    known: Known
    params: Mapping[str, Any]
    picture: QueryPicture | None = None
    image_id: int | None = None
    variants: Variants = "identity"
    mixed: MixedQuery | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for all retrievers of one search."""

    until: float
    """Monotonic time by which the answer must come."""
    allowed: npt.NDArray[np.int64] | None = None
    min_seq: int = 0
    """The log's head when the search began, or a later one asked for."""
    stale_ok: bool = False
    stale: bool = False
    """The head could not be read, so the retrievers answer from memory."""


@dataclass(slots=True)
class Lists:
    """The lists that came back, in the order asked; None where a retriever is missing."""

    hits: list[list[Hit] | None] = field(default_factory=list)


class Searcher:
    """Decodes queries and fans them out."""

    def __init__(self, retrievers: Retrievers, decoder: Decoder, retriever_deadline: float) -> None:
        self.retrievers = retrievers
        self.decoder = decoder
        self.retriever_deadline = retriever_deadline

    async def prepare(
        self,
        data: bytes,
        knowns: Sequence[Known],
        variants: Variants,
        report: Report,
        region: Region | None = None,
    ) -> QueryPicture:
        """Decode once and extract what is extracted here, in one hop to a worker thread."""

        def work(picture: Picture) -> QueryPicture:
            if region is not None:
                picture = picture.crop(*region)
            return self._query_picture(picture, knowns, variants)

        with report.timed("decode"):
            return await self.decoder.decode(data, then=work)

    def _query_picture(
        self, picture: Picture, knowns: Sequence[Known], variants: Variants
    ) -> QueryPicture:
        here: dict[str, Callable[[], Sequence[Features]]] = {}
        fingerprints: dict[str, str] = {}
        views: dict[View, Pixels] = {}
        for known in knowns:
            if known.description is None or not known.of_pictures:
                continue
            view = known.description.view
            if known.extractor is None or known.description.additive:
                views[view] = picture.view(view)
            if known.extractor is not None:
                pixels = picture.view(view)
                here[known.name] = partial(known.extractor.extract_variants, pixels, variants)
                fingerprints[known.name] = known.extractor.fingerprint
        features = dict(zip(here, self.decoder.side_by_side(list(here.values())), strict=True))
        return QueryPicture(features, fingerprints, views, variants)

    async def ask_all(self, asks: Sequence[Ask], limits: Limits, report: Report) -> Lists:
        """All at once; a retriever that fails is missing, and named so in the report.

        An ImageNotFound or InvalidInput of a retriever counts as missing here too: other
        retrievers may know the image.
        """
        results = await asyncio.gather(
            *(self._ask_once(ask, limits, report) for ask in asks), return_exceptions=True
        )
        lists = Lists()
        for ask, result in zip(asks, results, strict=True):
            if isinstance(result, SearchAnswer):
                report.answered.add(ask.known.name)
                lists.hits.append(result.hits)
            elif isinstance(result, AmbienceError):
                report.missing[ask.known.name] = str(result)
                lists.hits.append(None)
            elif isinstance(result, BaseException):
                raise result
        return lists

    async def ask(self, ask: Ask, limits: Limits, report: Report) -> list[Hit]:
        """One retriever, whose error is the caller's."""
        answer = await self._ask_once(ask, limits, report)
        report.answered.add(ask.known.name)
        return answer.hits

    async def _ask_once(self, ask: Ask, limits: Limits, report: Report) -> SearchAnswer:
        with report.timed(ask.known.name):
            try:
                answer = await self._send(ask, limits)
            except RetrieverUnavailable:
                # It may have changed, or lost the replica that was asked: look again, once.
                await self.retrievers.look_again(ask.known)
                answer = await self._send(ask, limits, partial=True)
        report.stale = report.stale or answer.stale or limits.stale
        report.missing.update(answer.missing)
        return answer

    async def _send(self, ask: Ask, limits: Limits, partial: bool = False) -> SearchAnswer:
        if ask.known.reason is not None:
            raise RetrieverUnavailable(ask.known.reason)
        left = limits.until - time.monotonic()
        request = request_of(ask, limits, max(0.01, min(left, self.retriever_deadline)))
        return await self.retrievers.search(ask.known, request, partial)


def request_of(ask: Ask, limits: Limits, deadline: float) -> SearchRequest:
    """What a retriever is asked, in the feature space of its description or of the features."""
    description = ask.known.description
    assert description is not None
    common: dict[str, Any] = {
        "params": ask.params,
        "allowed": limits.allowed,
        "min_seq": limits.min_seq,
        "stale_ok": limits.stale_ok,
        "deadline": deadline,
        "fingerprint": description.fingerprint or None,
    }
    if ask.mixed is not None:
        return SearchRequest(mixed=ask.mixed, **common)
    if ask.picture is None:
        if ask.image_id is None:
            raise ImageNotFound("give an image or an image_id", "image_id")
        return SearchRequest(image_id=ask.image_id, variants=ask.variants, **common)
    features = ask.picture.features.get(ask.known.name)
    if features is not None:
        common["fingerprint"] = ask.picture.fingerprints[ask.known.name]
        return SearchRequest(features=features, **common)
    pixels = ask.picture.views.get(description.view)
    return SearchRequest(pixels=pixels, variants=ask.picture.variants, **common)
