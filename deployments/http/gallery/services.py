"""The routes that the old gateway passed through to one service each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from deployments.directory.entry import DirectoryEntry
from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.gallery.rows import (
    SERVICES,
    DistanceRow,
    LocalRow,
    distance_factor,
    feature_route,
    rows,
)
from deployments.http.problems import CONTENT, documented
from deployments.http.reading import Body, image_id_of, read_body, validated
from deployments.ingress.adding import check_id
from deployments.ingress.composed import ComposedQuery, check_images, narrowed
from deployments.ingress.gateway import Gateway, gateway_of
from deployments.ingress.report import Report, begin_report
from deployments.ingress.searching import QueryPicture, RetrieverCall, SearchScope
from deployments.schemas import Answer, Words
from deployments.wire import CompositeQuery
from indexes.base import MAX_K, Hit
from models.errors import AlreadyIndexed, InvalidInput, RetrieverUnavailable
from models.types import Options, Variants

router = APIRouter(tags=["gallery"], responses=documented(400, 404, 413, 415, 503))

DISTANCE_PARAMS = ("k", "distance_threshold")
EXPANSION_PARAMS = ("aqe_n", "aqe_alpha")
LOCAL_PARAMS = (
    "k",
    "k_clusters",
    "knn_min_matches",
    "matching_threshold",
    "use_smnn_matching",
    "smnn_match_threshold",
    "use_ransac",
)
LOCAL_DEFAULTS: dict[str, Any] = {
    "k": MAX_K,
    "use_smnn_matching": False,
    "smnn_match_threshold": 0.8,
    "use_ransac": False,
}
TEXT = "text"
"""The retriever of annotations, as it is named in reports."""
NEAREST = 1e-300
"""Stands for a threshold of 0 or less, which the old services answered with []."""
EMPTY: dict[str, Any] = {"response_class": Response, "response_model": None}
ADDED = EMPTY | {
    "responses": {
        **openapi.answer(openapi.REPORT),
        500: {
            "description": "The id already has these features",
            "content": {"text/plain": {"schema": {"type": "string"}}} | CONTENT,
        },
    }
}
"""How routes with an empty answer are declared."""


class TextQuery(Options):
    """The query of a search by text, as in the old service."""

    text: Words


def _service_entry(gateway: Gateway, name: str) -> DirectoryEntry:
    if name not in gateway.directory.enabled():
        raise RetrieverUnavailable(f"{name} is not deployed")
    return gateway.directory.entry(name)


async def _searched(gateway: Gateway, name: str) -> DirectoryEntry:
    """The entry under the model that searches use now."""
    return (await gateway.directory.with_active_models([_service_entry(gateway, name)]))[0]


def _old_params(name: str, body: Body) -> dict[str, Any]:
    """The parameters of the old service, validated like there, as the retriever takes them."""
    if name == "local":
        params = LOCAL_DEFAULTS | body.given(*LOCAL_PARAMS)
        if not _flag(params["use_smnn_matching"]):  # The old service verified only what it matched.
            params["use_ransac"] = False
        return params | _with_k_cut(params)
    params = body.given(*DISTANCE_PARAMS)
    if len(params) != 1:
        raise InvalidInput("give exactly one of k and distance_threshold", "k")
    if name in ("global", "image_text"):
        expansion = body.given(*EXPANSION_PARAMS)
        if len(expansion) == 1:
            raise InvalidInput("give both aqe_n and aqe_alpha, or neither", "aqe_n")
        params |= expansion
    return params | _with_k_cut(params) | _with_threshold(name, params)


def _with_k_cut(params: Mapping[str, Any]) -> dict[str, Any]:
    number = _number(params.get("k"))
    return {"k": MAX_K} if number is not None and number > MAX_K else {}


def _with_threshold(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The threshold on the retriever's scale; NEAREST for 0 or less, so that the query is still
    checked."""
    number = _number(params.get("distance_threshold"))
    if number is None:
        return {}
    return {"distance_threshold": max(number / distance_factor(name), NEAREST)}


def _number(given: Any) -> float | None:
    """A finite number, or None for what the retriever refuses by name."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _flag(given: Any) -> bool:
    return str(given).lower() not in ("", "0", "false", "none", "off", "no")


async def _search_service(request: Request, name: str, by_id: bool) -> Response:
    gateway, body, report = gateway_of(request), await read_body(request), begin_report(request)
    params = _old_params(name, body)
    entry = await _searched(gateway, name)
    scope: SearchScope = await gateway.search_scope()
    variants: Variants = "mirror" if name == "phash" else "identity"
    call: RetrieverCall
    if by_id:
        image_id = image_id_of(body.fields)
        check_id(image_id)
        call = RetrieverCall(entry, params, image_id=image_id)
    else:
        picture: QueryPicture = await gateway.searcher.prepare(
            body.image(), [entry], variants, report
        )
        call = RetrieverCall(entry, params, picture=picture)
    hits = await gateway.searcher.search(call, scope, report)
    if params.get("distance_threshold") == NEAREST:
        hits = []
    if call.image_id is not None and name != "local":
        # The image itself comes first, even among copies with the same features.
        hits = sorted(hits, key=lambda hit: (hit.distance, hit.image_id != call.image_id))
    shown = await asyncio.to_thread(rows, gateway, name, hits)
    return JsonAnswer(shown, headers=report.headers())


async def _calculate(request: Request, name: str) -> Response:
    gateway, body, report = gateway_of(request), await read_body(request), begin_report(request)
    _service_entry(gateway, name)
    image_id = image_id_of(body.fields)
    try:
        await gateway.writer.add_kind(image_id, body.image(), name, report)
    except AlreadyIndexed as exc:
        return PlainTextResponse(str(exc), 500)
    return Response(status_code=200, headers=report.headers())


async def _delete(request: Request, name: str) -> Response:
    gateway, body = gateway_of(request), await read_body(request)
    _service_entry(gateway, name)
    file_name = body.fields.get("file_name")
    if isinstance(file_name, str) and file_name:  # With both, the old services took the name.
        image_ids = await asyncio.to_thread(gateway.store.ids_by_file_name, file_name)
    else:
        image_ids = [image_id_of(body.fields)]
    for image_id in image_ids:
        await gateway.writer.delete_kind(image_id, name)
    return Response(status_code=200)


def _add_service_routes(name: str) -> None:
    """Add the five routes that the old gateway passed through to one service."""
    service, features = SERVICES[name], feature_route(name)

    async def calculate(request: Request) -> Response:
        return await _calculate(request, name)

    async def delete(request: Request) -> Response:
        return await _delete(request, name)

    async def by_buffer(request: Request) -> Response:
        return await _search_service(request, name, by_id=False)

    async def by_id(request: Request) -> Response:
        return await _search_service(request, name, by_id=True)

    params: tuple[str, ...] = LOCAL_PARAMS if name == "local" else DISTANCE_PARAMS
    if name in ("global", "image_text"):
        params += EXPANSION_PARAMS
    described = dict.fromkeys(params, "As the old service had it.")
    similar = f"/{service}_get_similar_images_by"
    one = {"image_id": "The picture's id."}
    row = LocalRow if name == "local" else DistanceRow
    for path, endpoint, summary, extra, said in (
        (f"/calculate_{features}", calculate, f"Add {name} features", openapi.form(**one), ADDED),
        (
            f"/delete_{features}",
            delete,
            f"Delete {name} features",
            openapi.json_body([], **one, file_name="Or the file's name."),
            EMPTY,
        ),
        (
            f"{similar}_image_buffer",
            by_buffer,
            f"Similar by {name}",
            openapi.form(**described),
            _found(row),
        ),
        (
            f"{similar}_id",
            by_id,
            f"Similar to a stored image by {name}",
            openapi.json_body(["image_id"], **one, **described),
            _found(row),
        ),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=path.removeprefix("/"),
            summary=summary,
            openapi_extra=extra,
            **said,
        )


def _found(row: type[Answer]) -> dict[str, Any]:
    return {"response_model": list[row], "responses": openapi.answer(openapi.REPORT)}  # type: ignore[valid-type]


for _name in SERVICES:
    _add_service_routes(_name)


@router.post(
    "/image_text_features_get_similar_images_by_text",
    summary="Similar to words by image_text",
    response_model=list[DistanceRow],
    responses=openapi.answer(openapi.REPORT),
    openapi_extra=openapi.json_body(
        ["text"],
        text="Words.",
        **dict.fromkeys((*DISTANCE_PARAMS, *EXPANSION_PARAMS), "As the old service had it."),
    ),
)
async def similar_by_text(request: Request) -> Response:
    """Rows by ascending distance. The text may be a composed query, as in `/v1/search`."""
    gateway, body, report = gateway_of(request), await read_body(request), begin_report(request)
    composed = ComposedQuery.read(validated(TextQuery, {"text": body.fields.get("text")}).text)
    params = _old_params("image_text", body)
    entry = await _searched(gateway, "image_text")
    if entry.description is not None and not entry.description.reads_text:
        raise InvalidInput("image_text does not search by words here", "text")
    hits = await _composed_hits(gateway, composed, entry, params, report)
    if params.get("distance_threshold") == NEAREST:
        hits = []
    found = await asyncio.to_thread(rows, gateway, "image_text", hits)
    return JsonAnswer(found, headers=report.headers())


async def _composed_hits(
    gateway: Gateway,
    composed: ComposedQuery,
    entry: DirectoryEntry,
    params: Mapping[str, Any],
    report: Report,
) -> list[Hit]:
    """Hits of a composed query by its words and images, of those that its filters allow. Exact
    texts beside nothing else are searched by as words."""
    scope = await gateway.search_scope()
    words, images = composed.words(), composed.image_ids()
    if not composed.is_plain:
        composed.check_positive()
        await asyncio.to_thread(check_images, gateway.store, composed)
        scope, unapplied = await narrowed(gateway, composed, scope, report)
        for one in unapplied:
            report.missing[TEXT] = one.reason
        if words is None and not images:
            words = " ".join(part.text for part in composed.of("exact"))
    query = CompositeQuery(
        image_ids=images,
        text=words,
        negative_text=composed.words(minus=True),
        negative_ids=composed.image_ids(minus=True),
    )
    hits = await gateway.searcher.search(
        RetrieverCall(entry, params, composite=query), scope, report
    )
    avoided = set(query.negative_ids)
    return [hit for hit in hits if hit.image_id not in avoided]
