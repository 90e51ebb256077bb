"""The routes of the old gateway that ask several services, as an existing gallery calls them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.directory.entry import DirectoryEntry
from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.gallery.rows import (
    SERVICES,
    ReverseSearch,
    Settled,
    distance_row,
    feature_route,
    rows,
)
from deployments.http.problems import documented
from deployments.http.reading import image_id_of, read_body
from deployments.ingress.adding import AddOptions
from deployments.ingress.annotating import annotate
from deployments.ingress.copies import COPY_DISTANCE, add_check, find_copies
from deployments.ingress.gateway import Gateway, gateway_of
from deployments.ingress.relating import relate_hits
from deployments.ingress.report import Report, begin_report
from deployments.ingress.searching import QueryPicture, RetrieverCall
from deployments.wire import CompositeQuery
from indexes.base import Hit
from indexes.ranking.fusion import RankedList, old_rule
from indexes.relation.judging import Relation
from models.errors import RetrieverUnavailable, Unavailable

router = APIRouter(tags=["gallery"], responses=documented(400, 404, 413, 415, 503))

SHOWN, FUSED_SHOWN = 20, 200


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
        "aligned": True,
    },
    "color": {"k": 200},
    "image_text": {"k": 200},
}
"""Parameters of the old search by picture."""


@router.post(
    "/reverse_search",
    summary="Search by picture; or, with find_duplicate, find copies",
    response_model=ReverseSearch,
    responses=openapi.answer(openapi.REPORT),
    openapi_extra=openapi.form(find_duplicate="`1`: only look for copies"),
)
async def reverse_search(request: Request) -> Response:
    """Every value of the answer is an array; keys without hits are absent."""
    gateway, body = gateway_of(request), await read_body(request)
    report = begin_report(request)
    if str(body.fields.get("find_duplicate", "")).lower() in ("1", "true"):
        found = await _find_duplicates(gateway, body.image(), report)
    else:
        found = await _reverse_search(gateway, body.image(), report)
    return JsonAnswer(found, headers=report.headers())


@router.post(
    "/calculate_all_image_features",
    summary="Add a picture to every retriever",
    response_model=list[Settled],
    responses=openapi.answer(openapi.REPORT),
    openapi_extra=openapi.form(image_id="The picture's id."),
)
async def calculate_all(request: Request) -> Response:
    """One object per retriever, once the picture is durable."""
    body, report = await read_body(request), begin_report(request)
    gateway, image_id, data = gateway_of(request), image_id_of(body.fields), body.image()
    check = await add_check(gateway, image_id, data, report, unless_same=False)
    options = AddOptions(upload_name=body.upload_name(), check=check)
    added = await gateway.writer.add(image_id, data, report, options)
    names = list(added.retrievers)
    return _settled(request, names, "calculate", added.receipt.image_id, report)


@router.post(
    "/delete_all_image_features",
    summary="Delete a picture from every retriever",
    response_model=list[Settled],
    responses=openapi.answer(openapi.REPORT),
    openapi_extra=openapi.json_body(["image_id"], image_id="The picture's id."),
)
async def delete_all(request: Request) -> Response:
    """One object per retriever, once the delete is durable; unknown ids are fine."""
    gateway, body = gateway_of(request), await read_body(request)
    image_id = image_id_of(body.fields)
    await gateway.writer.delete(image_id)
    names = gateway.directory.wanted() or ["phash"]
    return _settled(request, names, "delete", image_id, begin_report(request))


@router.post(
    "/get_image_tags",
    summary="Tags of a picture",
    response_model=list[str],
    responses=openapi.answer(openapi.REPORT),
    openapi_extra=openapi.form(),
)
async def get_image_tags(request: Request) -> Response:
    """A JSON array of strings."""
    said, report = await _annotation(request, "places365")
    return JsonAnswer(said.get("tags", []), headers=report.headers())


@router.post(
    "/get_image_caption",
    summary="A caption of a picture",
    response_model=str,
    responses=openapi.answer(openapi.REPORT),
    openapi_extra=openapi.form(),
)
async def get_image_caption(request: Request) -> Response:
    """A bare JSON string."""
    said, report = await _annotation(request, "caption")
    return JsonAnswer(said.get("text", ""), headers=report.headers())


async def _annotation(request: Request, name: str) -> tuple[dict[str, Any], Report]:
    gateway, data = gateway_of(request), (await read_body(request)).image()
    report = begin_report(request)
    if name not in gateway.directory.enabled("annotator"):
        raise RetrieverUnavailable(f"{name} is not deployed")
    said = await annotate(gateway, data, [name], report)
    if name not in said:
        raise RetrieverUnavailable(f"{name}: {report.missing[name]}")
    return said[name], report


async def _find_duplicates(gateway: Gateway, data: bytes, report: Report) -> dict[str, Any]:
    """Copies of which `import_check.blocks` speaks; waits for phash up to the whole deadline."""
    until = time.monotonic() + gateway.args.deadline
    while True:
        try:
            copies = await find_copies(gateway, data, report, until)
            if copies is None:  # The gallery refuses without naming an image.
                return {"duplicate": []}
            shown = [distance_row(copy.hit, relation=copy.relation) for copy in copies]
            return {"duplicate": shown} if shown else {}
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
    relations = await relate_hits(gateway, calls, lists.hits, report)
    with report.timed("fuse"):
        return await asyncio.to_thread(_result_lists, gateway, named, relations)


def _call_by_picture(
    entry: DirectoryEntry, params: Mapping[str, Any], picture: QueryPicture
) -> RetrieverCall:
    """The call for one picture. For additive vectors the mirror image is not tried; see `fused`."""
    if entry.description is None or not entry.description.additive:
        return RetrieverCall(entry, params, picture=picture)
    pixels = picture.views[entry.description.view]
    return RetrieverCall(entry, params, composite=CompositeQuery(pixels=[pixels]))


def _result_lists(
    gateway: Gateway, named: Mapping[str, list[Hit]], relations: Mapping[int, Relation]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hits in named.items():
        shown = rows(gateway, name, hits[:SHOWN], relations)
        if shown:
            found["image_text_res" if name == "image_text" else f"{SERVICES[name]}_res"] = shown
    unified = old_rule([RankedList(name, hits) for name, hits in named.items()])
    if unified:
        found["unified_res"] = [
            {"image_id": hit.image_id, "score": hit.score} for hit in unified[:FUSED_SHOWN]
        ]
    return found


def _settled(
    request: Request, names: Sequence[str], verb: str, image_id: int, report: Report
) -> Response:
    """One fulfilled object per retriever, with the url of its own route or else of the image."""
    base = str(request.base_url)
    urls = [
        f"{verb}_{feature_route(name)}" if name in SERVICES else f"v1/images/{image_id}"
        for name in names
    ]
    shown = [{"status": "fulfilled", "value": "", "url": base + url} for url in urls]
    return JsonAnswer(shown, headers=report.headers())
