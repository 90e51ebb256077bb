"""The fused search: the lists of all retrievers, cut to eligible hits, then one ranking."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deployments.directory.entry import DirectoryEntry
from deployments.ingress.gateway import Gateway
from deployments.ingress.paging import HitPage, decode_start, paged
from deployments.ingress.relating import relate_hits
from deployments.ingress.report import Report
from deployments.ingress.searching import QueryPicture, RetrieverCall
from deployments.queries import SearchQuery
from deployments.wire import CompositeQuery, Description
from indexes.base import Hit
from indexes.ranking.fusion import RankedList, above_confidence, fuse
from indexes.relation.judging import Relation
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
    _check(query, images, entries)
    start = decode_start(query.cursor, query.sort)
    scope = await gateway.search_scope(query.filter, query.min_seq, query.stale_ok)
    stored = (
        await asyncio.to_thread(gateway.store.images_by_id, query.image_ids)
        if query.image_ids
        else {}
    )
    for image_id in query.image_ids:
        if image_id not in stored:
            raise ImageNotFound(f"no image {image_id}", "image_ids")
    variants: Variants = "mirror" if query.mirrored else "identity"
    pictures = [
        await gateway.searcher.prepare(data, entries, variants, report, query.region)
        for data in images
    ]
    if query.filter is not None and query.filter.larger:
        sizes = [picture.pixels for picture in pictures]
        sizes += [one.width * one.height for one in stored.values()]
        if not sizes:
            raise InvalidInput("filter.larger: there is no query picture", "filter.larger")
        scope = await gateway.larger_than(scope, max(sizes))
    calls = _calls(entries, pictures, query, variants)
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
    return await paged(gateway, query, start, hits, report)


def _check(query: SearchQuery, images: Sequence[bytes], entries: Sequence[DirectoryEntry]) -> None:
    words = query.text is not None or query.negative.text is not None
    if words and not any(_may_read_text(entry) for entry in entries):
        if query.retrievers is not None:
            raise InvalidInput("none of these retrievers searches by words", "text")
        raise InvalidInput("no retriever that searches by words is deployed", "text")
    if not images and not query.image_ids:
        if query.text is None:
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
) -> list[RetrieverCall]:
    calls = []
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
        if query.text is not None and _may_read_text(entry):
            calls.append(RetrieverCall(entry, params, composite=CompositeQuery(text=query.text)))
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


def _may_read_text(entry: DirectoryEntry) -> bool:
    """Whether the retriever may read text. One that has not described itself yet is called, and
    named as missing."""
    return entry.description is None or entry.description.reads_text


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
