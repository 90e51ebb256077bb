"""The fused search: the lists of all retrievers, cut to eligible hits, then one ranking."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.composed import (
    ComposedQuery,
    Unapplied,
    check_images,
    may_read_text,
    narrowed,
)
from deployments.ingress.gateway import Gateway
from deployments.ingress.paging import HitPage, decode_start, paged
from deployments.ingress.relating import relate_hits
from deployments.ingress.report import Report
from deployments.ingress.searching import QueryPicture, RetrieverCall, SearchScope
from deployments.queries import SearchQuery
from deployments.wire import CompositeQuery, Description
from indexes.base import Hit
from indexes.ranking.fusion import RankedList, above_confidence, fuse
from indexes.relation.judging import Relation
from indexes.store.base import Image
from models.errors import ImageNotFound, InvalidInput
from models.types import Variants


async def fused_search(
    gateway: Gateway, query: SearchQuery, images: Sequence[bytes], report: Report
) -> HitPage:
    """One page of hits and the cursor of the next page.

    A retriever with additive vectors gets one query with all parts. Any other retriever gets one
    query for each picture and stored image, and a retriever of annotations gets one for the text.
    Raises InvalidInput when nothing is searched for, and ImageNotFound for an unknown image_id.
    """
    asked, defaults = query.retrievers, await gateway.defaults.current()
    entries = await gateway.entries_named(list(asked) if asked is not None else None)
    weights = defaults.weights if asked is None else asked
    composed = None if query.composed is None else ComposedQuery.read(query.composed)
    texts = list[str]()
    if composed is not None:
        await asyncio.to_thread(check_images, gateway.store, composed)
        query, texts = _with_parts(query, composed, images, entries)
    _check(query, images, entries, texts)
    start = decode_start(query.cursor, query.sort)
    scope = await gateway.search_scope(query.filter, query.min_seq, query.stale_ok)
    stored = await _stored(gateway, query.image_ids)
    variants: Variants = "mirror" if query.mirrored else "identity"
    pictures = [
        (await gateway.searcher.prepare(data, entries, variants, report, query.region)).proposing()
        for data in images
    ]
    if query.filter is not None and query.filter.larger:
        sizes = [picture.pixels for picture in pictures]
        scope = await _of_larger(gateway, scope, [*sizes, *_sizes(stored)])
    unapplied = list[Unapplied]()
    if composed is not None:
        scope, unapplied = await narrowed(gateway, composed, scope, report)
    calls = _calls(entries, pictures, query, variants, texts)
    lists = await gateway.searcher.search_all(calls, scope, report)
    relations = await relate_hits(gateway, calls, lists.hits, report)
    with report.timed("fuse"):
        ranked = [
            _ranked(call.entry, _shown(hits, query.explain), weights)
            for call, hits in zip(calls, lists.hits, strict=True)
            if hits is not None
        ]
        hits = above_confidence(
            fuse(ranked, query.negative.image_ids, _told(relations, query.explain)),
            defaults.min_confidence if query.min_confidence is None else query.min_confidence,
        )
    page = await paged(gateway, query, start, hits, report)
    if composed is None:
        return page
    unapplied += composed.unanswered(entries, report)
    return replace(page, unapplied=[one.row(composed.written) for one in unapplied])


async def _stored(gateway: Gateway, image_ids: Sequence[int]) -> Mapping[int, Image]:
    """The rows of stored query images. Raises ImageNotFound."""
    if not image_ids:
        return {}
    stored = await asyncio.to_thread(gateway.store.images_by_id, image_ids)
    for image_id in image_ids:
        if image_id not in stored:
            raise ImageNotFound(f"no image {image_id}", "image_ids")
    return stored


def _sizes(stored: Mapping[int, Image]) -> list[int]:
    return [image.width * image.height for image in stored.values()]


async def _of_larger(gateway: Gateway, scope: SearchScope, sizes: Sequence[int]) -> SearchScope:
    """The scope without images that are no larger than each of these numbers of pixels."""
    if not sizes:
        raise InvalidInput("filter.larger: there is no query picture", "filter.larger")
    return await gateway.larger_than(scope, max(sizes))


def _with_parts(
    query: SearchQuery,
    composed: ComposedQuery,
    images: Sequence[bytes],
    entries: Sequence[DirectoryEntry],
) -> tuple[SearchQuery, list[str]]:
    """The query with the parts of a composed one, and its exact texts. What no retriever can read
    is left out, if there is a picture to search by."""
    query = composed.merged(query)
    if not images and not query.image_ids:
        composed.check_positive()
    if any(map(may_read_text, entries)) or not (images or query.image_ids):
        return query, [part.text for part in composed.of("exact")]
    return _without_words(query), []


def _without_words(query: SearchQuery) -> SearchQuery:
    negative = query.negative.model_copy(update={"text": None})
    return query.model_copy(update={"text": None, "negative": negative})


def _check(
    query: SearchQuery,
    images: Sequence[bytes],
    entries: Sequence[DirectoryEntry],
    texts: Sequence[str],
) -> None:
    words = query.text is not None or query.negative.text is not None or bool(texts)
    if words and not any(may_read_text(entry) for entry in entries):
        if query.retrievers is not None:
            raise InvalidInput("none of these retrievers searches by words", "text")
        raise InvalidInput("no retriever that searches by words is deployed", "text")
    if not images and not query.image_ids:
        if query.text is None and not texts:
            raise InvalidInput("give an image, image_ids or text to search by", "image")
    elif query.text is None and entries and not any(entry.of_pictures for entry in entries):
        raise InvalidInput("these retrievers search by words only", "retrievers")
    if query.region is not None and len(images) != 1:
        raise InvalidInput("region: applies to exactly one uploaded image", "region")


def _calls(
    entries: Sequence[DirectoryEntry],
    pictures: Sequence[QueryPicture],
    query: SearchQuery,
    variants: Variants,
    texts: Sequence[str],
) -> list[RetrieverCall]:
    """The calls of all retrievers; exact texts are for those that search annotations."""
    calls = []
    words = " ".join([*filter(None, [query.text]), *texts])
    for entry in entries:
        params = list_params(entry, query.explain)
        if entry.description is not None and entry.description.additive:
            composite = _composite(entry.description, pictures, query)
            if composite.pixels or composite.image_ids or composite.text is not None:
                calls.append(RetrieverCall(entry, params, composite=composite))
            continue
        if entry.of_pictures:
            calls += [RetrieverCall(entry, params, picture=picture) for picture in pictures]
            calls += [
                RetrieverCall(entry, params, image_id=image_id, variants=variants)
                for image_id in query.image_ids
            ]
        if words and may_read_text(entry):
            calls.append(RetrieverCall(entry, params, composite=CompositeQuery(text=words)))
    return calls


def _composite(
    description: Description, pictures: Sequence[QueryPicture], query: SearchQuery
) -> CompositeQuery:
    """All parts of the query that this retriever can add up.

    The mirror image is not tried: a neural method's features hardly change, and each try costs a
    forward pass. An id that is both positive and negative is only excluded from the answer.
    """
    reads = description.reads_text
    return CompositeQuery(
        pixels=[picture.views[description.view] for picture in pictures],
        image_ids=query.image_ids,
        text=query.text if reads else None,
        negative_text=query.negative.text if reads else None,
        negative_ids=[at for at in query.negative.image_ids if at not in query.image_ids],
        negative_weight=query.negative.weight,
    )


def list_params(entry: DirectoryEntry, explain: bool) -> Mapping[str, Any]:
    """A retriever's parameters for one list of a fused search."""
    if entry.description is None:
        return {}
    params = dict(entry.description.fused_params)
    return params | {"explain": True} if explain and entry.description.explains else params


def _told(relations: Mapping[int, Relation], explain: bool) -> Mapping[int, Relation]:
    """The relations; without their regions unless they are to be explained."""
    if explain:
        return relations
    return {image_id: replace(one, regions=()) for image_id, one in relations.items()}


def _shown(hits: list[Hit], explain: bool) -> list[Hit]:
    """The hits without the alignments that were only needed to compare pictures."""
    if explain:
        return hits
    return [hit if hit.homography is None else hit._replace(homography=None) for hit in hits]


def _ranked(entry: DirectoryEntry, hits: list[Any], weights: Mapping[str, float]) -> RankedList:
    assert entry.description is not None
    weight = weights.get(entry.name, 1.0)
    return RankedList(entry.name, hits, weight, entry.description.verifying)
