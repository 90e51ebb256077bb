"""The routes of the old gateway, as an existing gallery calls them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from deployments.directory.entry import DirectoryEntry
from deployments.http import openapi
from deployments.http.answers import JsonAnswer, distance_row, why
from deployments.http.problems import documented
from deployments.http.reading import Body, image_id_of, read_body, validated
from deployments.ingress.adding import AddOptions, check_id
from deployments.ingress.annotating import annotate
from deployments.ingress.copies import COPY_DISTANCE, find_copies
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report, begin_report
from deployments.ingress.searching import QueryPicture, RetrieverCall, SearchScope
from deployments.schemas import Words
from deployments.wire import CompositeQuery
from indexes.base import Hit
from indexes.ranking.fusion import RankedList, old_rule
from models.errors import AlreadyIndexed, InvalidInput, RetrieverUnavailable, Unavailable
from models.types import Options, Variants

router = APIRouter(tags=["gallery"], responses=documented(400, 404, 413, 415, 503))

SERVICES = {
    "phash": "phash",
    "color": "color",
    "local": "local_features",
    "global": "global_features",
    "image_text": "image_text_features",
}
"""Retriever → the old service's name in routes and (except image_text) in results."""
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
LOCAL_DEFAULTS = {
    "k": 20,
    "use_smnn_matching": False,
    "smnn_match_threshold": 0.8,
    "use_ransac": False,
}
SHOWN, FUSED_SHOWN = 20, 200


class TextQuery(Options):
    """The query of a search by text, as in the old service."""

    text: Words


REVERSE_SEARCH: dict[str, dict[str, Any]] = {
    "phash": {"distance_threshold": COPY_DISTANCE},
    "global": {"k": 200},
    "local": {
        "k": 200,
        "k_clusters": 10,
        "knn_min_matches": 4,
        "matching_threshold": 0.8,
        "use_smnn_matching": True,
        "use_ransac": True,
    },
    "color": {"k": 200},
    "image_text": {"k": 200},
}
"""Parameters of the old search by picture."""


@router.post(
    "/reverse_search",
    summary="Search by picture; or, with find_duplicate, find copies",
    openapi_extra=openapi.form(find_duplicate="`1`: only look for copies"),
)
async def reverse_search(request: Request) -> Response:
    """Every value of the answer is an array; keys without hits are absent."""
    gateway, body = _gateway(request), await read_body(request)
    report = begin_report(request)
    if str(body.fields.get("find_duplicate", "")).lower() in ("1", "true"):
        found = await _find_duplicates(gateway, body.image(), report)
    else:
        found = await _reverse_search(gateway, body.image(), report)
    return JsonAnswer(found, headers=report.headers())


@router.post(
    "/calculate_all_image_features",
    summary="Add a picture to every retriever",
    openapi_extra=openapi.form(image_id="The picture's id."),
)
async def calculate_all(request: Request) -> Response:
    """One object per retriever, once the picture is durable."""
    body, report = await read_body(request), begin_report(request)
    added = await _gateway(request).writer.add(
        image_id_of(body.fields), body.image(), report, AddOptions(upload_name=body.upload_name())
    )
    names = list(added.retrievers)
    return _settled(request, names, "calculate", added.receipt.image_id, report)


@router.post(
    "/delete_all_image_features",
    summary="Delete a picture from every retriever",
    openapi_extra=openapi.json_body(["image_id"], image_id="The picture's id."),
)
async def delete_all(request: Request) -> Response:
    """One object per retriever, once the delete is durable; unknown ids are fine."""
    gateway, body = _gateway(request), await read_body(request)
    image_id = image_id_of(body.fields)
    await gateway.writer.delete(image_id)
    names = gateway.directory.wanted() or ["phash"]
    return _settled(request, names, "delete", image_id, begin_report(request))


@router.post("/get_image_tags", summary="Tags of a picture", openapi_extra=openapi.form())
async def get_image_tags(request: Request) -> Response:
    """A JSON array of strings."""
    said, report = await _annotation(request, "places365")
    return JsonAnswer(said.get("tags", []), headers=report.headers())


@router.post("/get_image_caption", summary="A caption of a picture", openapi_extra=openapi.form())
async def get_image_caption(request: Request) -> Response:
    """A bare JSON string."""
    said, report = await _annotation(request, "caption")
    return JsonAnswer(said.get("text", ""), headers=report.headers())


async def _annotation(request: Request, name: str) -> tuple[dict[str, Any], Report]:
    gateway, data = _gateway(request), (await read_body(request)).image()
    report = begin_report(request)
    if name not in gateway.directory.enabled("annotator"):
        raise RetrieverUnavailable(f"{name} is not deployed")
    said = await annotate(gateway, data, [name], report)
    if name not in said:
        raise RetrieverUnavailable(f"{name}: {report.missing[name]}")
    return said[name], report


async def _find_duplicates(gateway: Gateway, data: bytes, report: Report) -> dict[str, Any]:
    """Copies by phash; waits for phash up to the whole deadline."""
    until = time.monotonic() + gateway.args.deadline
    while True:
        try:
            hits = await find_copies(gateway, data, report, until)
            return {"duplicate": [distance_row(hit) for hit in hits]} if hits else {}
        except Unavailable:
            if time.monotonic() < until:
                await asyncio.sleep(0.05)
                continue
            if gateway.args.import_check_unavailable == "block":
                return {"duplicate": []}
            raise


async def _reverse_search(gateway: Gateway, data: bytes, report: Report) -> dict[str, Any]:
    enabled = gateway.directory.enabled()
    for name in SERVICES.keys() - set(enabled):
        report.missing[name] = "not deployed"
    there = [name for name in REVERSE_SEARCH if name in enabled]
    entries = await gateway.entries_named(there) if there else []
    picture = await gateway.searcher.prepare(data, entries, "mirror", report)
    calls = [_call_by_picture(entry, REVERSE_SEARCH[entry.name], picture) for entry in entries]
    lists = await gateway.searcher.search_all(calls, await gateway.search_scope(), report)
    named = {
        call.entry.name: hits
        for call, hits in zip(calls, lists.hits, strict=True)
        if hits is not None
    }
    with report.timed("fuse"):
        return await asyncio.to_thread(_result_lists, gateway, named)


def _call_by_picture(
    entry: DirectoryEntry, params: Mapping[str, Any], picture: QueryPicture
) -> RetrieverCall:
    """The call for one picture. For additive vectors the mirror image is not tried; see `fused`."""
    if entry.description is None or not entry.description.additive:
        return RetrieverCall(entry, params, picture=picture)
    pixels = picture.views[entry.description.view]
    return RetrieverCall(entry, params, composite=CompositeQuery(pixels=[pixels]))


def _result_lists(gateway: Gateway, named: Mapping[str, list[Hit]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hits in named.items():
        rows = _rows(gateway, name, hits[:SHOWN])
        if rows:
            found["image_text_res" if name == "image_text" else f"{SERVICES[name]}_res"] = rows
    unified = old_rule([RankedList(name, hits) for name, hits in named.items()])
    if unified:
        found["unified_res"] = [
            {"image_id": hit.image_id, "score": hit.score} for hit in unified[:FUSED_SHOWN]
        ]
    return found


def _rows(gateway: Gateway, name: str, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    if name != "local":
        return [distance_row(hit) for hit in hits]
    images = gateway.store.images_by_id([hit.image_id for hit in hits])
    return [
        {
            "image_id": hit.image_id,
            "file_name": images[hit.image_id].file_name,
            "matches": hit.matches if hit.inliers is None else hit.inliers,
        }
        | why(hit)
        for hit in hits
        if hit.image_id in images
    ]


def _settled(
    request: Request, names: Sequence[str], verb: str, image_id: int, report: Report
) -> Response:
    """One fulfilled object per retriever, with the url of its own route or else of the image."""
    base = str(request.base_url)
    urls = [
        f"{verb}_{_feature_route(name)}" if name in SERVICES else f"v1/images/{image_id}"
        for name in names
    ]
    rows = [{"status": "fulfilled", "value": "", "url": base + url} for url in urls]
    return JsonAnswer(rows, headers=report.headers())


def _feature_route(name: str) -> str:
    return f"{SERVICES[name].removesuffix('_features')}_features"


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _service_entry(gateway: Gateway, name: str) -> DirectoryEntry:
    if name not in gateway.directory.enabled():
        raise RetrieverUnavailable(f"{name} is not deployed")
    return gateway.directory.entry(name)


async def _searched(gateway: Gateway, name: str) -> DirectoryEntry:
    """The entry under the model that searches use now."""
    return (await gateway.directory.with_active_models([_service_entry(gateway, name)]))[0]


def _old_params(name: str, body: Body) -> dict[str, Any]:
    """The parameters of the old service, validated like there."""
    if name == "local":
        return LOCAL_DEFAULTS | body.given(*LOCAL_PARAMS)
    params = body.given(*DISTANCE_PARAMS)
    if len(params) != 1:
        raise InvalidInput("give exactly one of k and distance_threshold", "k")
    if name in ("global", "image_text"):
        expansion = body.given(*EXPANSION_PARAMS)
        if len(expansion) == 1:
            raise InvalidInput("give both aqe_n and aqe_alpha, or neither", "aqe_n")
        params |= expansion
    return params


def _finds_nothing(params: Mapping[str, Any]) -> bool:
    """Whether the threshold is 0 or less: nothing is nearer, and the old services answered []."""
    try:
        return float(params.get("distance_threshold", 1)) <= 0
    except (TypeError, ValueError):
        return False  # The retriever refuses it by name.


async def _search_service(request: Request, name: str, by_id: bool) -> Response:
    gateway, body, report = _gateway(request), await read_body(request), begin_report(request)
    params = _old_params(name, body)
    entry = await _searched(gateway, name)
    if _finds_nothing(params):
        return JsonAnswer([], headers=report.headers())
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
    if call.image_id is not None and name != "local":
        # The image itself comes first, even among copies with the same features.
        hits = sorted(hits, key=lambda hit: (hit.distance, hit.image_id != call.image_id))
    rows = await asyncio.to_thread(_rows, gateway, name, hits)
    return JsonAnswer(rows, headers=report.headers())


async def _calculate(request: Request, name: str) -> Response:
    gateway, body, report = _gateway(request), await read_body(request), begin_report(request)
    _service_entry(gateway, name)
    image_id = image_id_of(body.fields)
    try:
        await gateway.writer.add_kind(image_id, body.image(), name, report)
    except AlreadyIndexed as exc:
        return PlainTextResponse(str(exc), 500)
    return Response(status_code=200, headers=report.headers())


async def _delete(request: Request, name: str) -> Response:
    gateway, body = _gateway(request), await read_body(request)
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
    service, features = SERVICES[name], _feature_route(name)

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
    for path, endpoint, summary, extra in (
        (f"/calculate_{features}", calculate, f"Add {name} features", openapi.form(**one)),
        (
            f"/delete_{features}",
            delete,
            f"Delete {name} features",
            openapi.json_body([], **one, file_name="Or the file's name."),
        ),
        (f"{similar}_image_buffer", by_buffer, f"Similar by {name}", openapi.form(**described)),
        (
            f"{similar}_id",
            by_id,
            f"Similar to a stored image by {name}",
            openapi.json_body(["image_id"], **one, **described),
        ),
    ):
        router.add_api_route(path, endpoint, methods=["POST"], summary=summary, openapi_extra=extra)


for _name in SERVICES:
    _add_service_routes(_name)


@router.post(
    "/image_text_features_get_similar_images_by_text",
    summary="Similar to words by image_text",
    openapi_extra=openapi.json_body(
        ["text"],
        text="Words.",
        **dict.fromkeys((*DISTANCE_PARAMS, *EXPANSION_PARAMS), "As the old service had it."),
    ),
)
async def similar_by_text(request: Request) -> Response:
    """Rows by ascending distance."""
    gateway, body, report = _gateway(request), await read_body(request), begin_report(request)
    words = validated(TextQuery, {"text": body.fields.get("text")})
    params = _old_params("image_text", body)
    if _finds_nothing(params):
        return JsonAnswer([], headers=report.headers())
    entry = await _searched(gateway, "image_text")
    if entry.description is not None and not entry.description.reads_text:
        raise InvalidInput("image_text does not search by words here", "text")
    call = RetrieverCall(entry, params, composite=CompositeQuery(text=words.text))
    hits = await gateway.searcher.search(call, await gateway.search_scope(), report)
    return JsonAnswer([distance_row(hit) for hit in hits], headers=report.headers())
