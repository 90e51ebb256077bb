"""Relations of the query pictures of one search to the images that its retrievers propose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from deployments.ingress.searching import COLOR, RetrieverCall
from indexes.base import Hit
from indexes.relation.judging import Relation
from indexes.relation.proposals import Proposals, QuerySide, better, relations, stored_sides
from indexes.store.base import Preview
from models.errors import StoreUnavailable

log = logging.getLogger(__name__)

NEAREST_COLORS = 32


async def relate_hits(
    gateway: Gateway,
    calls: Sequence[RetrieverCall],
    lists: Sequence[Sequence[Hit] | None],
    report: Report,
) -> dict[int, Relation]:
    """The best relation of any query picture to each image that a verifying retriever proposes.

    All previews are read in one call of the store. Without it, hash and inliers alone decide.
    """
    queries, proposals = _by_query(calls, lists)
    if not queries:
        return {}
    stored = {call.image_id for call in queries.values() if call.image_id is not None}
    wanted = {at for one in proposals.values() for at in one.compared()}
    with report.timed("relate"):
        try:
            previews = await asyncio.to_thread(gateway.store.previews, sorted(stored | wanted))
        except StoreUnavailable as exc:
            log.warning("pictures are not compared: %s", exc)
            previews = {}
        return await gateway.decoder.run(_related, queries, proposals, previews)


def _by_query(
    calls: Sequence[RetrieverCall], lists: Sequence[Sequence[Hit] | None]
) -> tuple[dict[int, RetrieverCall], dict[int, Proposals]]:
    """By query picture: one of its calls, and what is proposed."""
    queries: dict[int, RetrieverCall] = {}
    proposals: dict[int, Proposals] = {}
    for call, hits in zip(calls, lists, strict=True):
        if call.composite is not None or hits is None:
            continue
        query = id(call.picture) if call.picture is not None else -1 - (call.image_id or 0)
        queries.setdefault(query, call)
        one = proposals.setdefault(query, Proposals())
        assert call.entry.description is not None
        if call.entry.description.verifying:
            one.add(hits)
        elif call.entry.name == COLOR and _is_smooth(call):
            one.add(hits[:NEAREST_COLORS])
    return queries, proposals


def _is_smooth(call: RetrieverCall) -> bool:
    return call.picture is not None and call.picture.side is not None and call.picture.side.smooth


def _related(
    queries: Mapping[int, RetrieverCall],
    proposals: Mapping[int, Proposals],
    previews: Mapping[int, Preview],
) -> dict[int, Relation]:
    best: dict[int, Relation] = {}
    for query, call in queries.items():
        for side in _sides(call, previews):
            for image_id, relation in relations(side, proposals[query], previews).items():
                best[image_id] = better(best.get(image_id), relation)
    return best


def _sides(call: RetrieverCall, previews: Mapping[int, Preview]) -> list[QuerySide | None]:
    """The query as it is compared; of a stored image, one for each size its grey view may have."""
    if call.picture is not None:
        return [call.picture.side]
    preview = previews.get(call.image_id or 0)
    return [None] if preview is None else [*stored_sides(preview)]
