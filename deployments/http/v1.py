"""The routes of /v1."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import TypeAdapter

from deployments.directory.entry import DirectoryEntry
from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.conditional import expected_version, tagged
from deployments.http.editing import image_rows
from deployments.http.problems import documented
from deployments.http.reading import (
    Body,
    decoded,
    json_object,
    parsed,
    read_body,
    refuse_unknown_parameters,
    validated,
)
from deployments.http.states import state_rows
from deployments.ingress.adding import Added, AddOptions
from deployments.ingress.copies import add_check
from deployments.ingress.fused import fused_search
from deployments.ingress.gateway import Gateway, gateway_of
from deployments.ingress.paging import decode_cursor, encode_cursor
from deployments.ingress.report import Report, begin_report
from deployments.ingress.searching import RetrieverCall
from deployments.queries import RetrieverQuery, SearchQuery
from deployments.schemas import (
    AddAnswer,
    ImageAnswer,
    RetrieverResults,
    RetrieverStates,
    SearchResults,
)
from deployments.wire import CompositeQuery
from models.errors import ImageNotFound, InvalidInput, RetrieverUnavailable
from models.types import MAX_IMAGE_ID, Variants

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])
ImageIdPath = Annotated[
    int, Path(ge=0, le=MAX_IMAGE_ID, description="The image's id, 0 ≤ id < 2^47.")
]
UnlessQuery = Annotated[
    Literal["same"] | None,
    Query(description="`same`: refuse with 409 a picture of which another image is a copy."),
]
WHOLE = TypeAdapter(int)
"""`k` as the retriever parsed it: "5" and 5.0 are 5."""


@router.put(
    "/images/{image_id}",
    summary="Add or replace an image",
    response_model=AddAnswer,
    responses={
        **openapi.answer(openapi.REPORT),
        201: {"model": AddAnswer, "description": "New", "headers": openapi.REPORT},
        **documented(400, 409, 412, 413, 415, 503),
    },
    openapi_extra=openapi.ADD | openapi.CREATED,
)
async def put_image(
    request: Request, image_id: ImageIdPath, unless: UnlessQuery = None
) -> Response:
    """Durable when answered. The same picture again changes nothing; another one replaces it."""
    body = await read_body(request)
    store = gateway_of(request).store
    if_version = await asyncio.to_thread(expected_version, request, store, image_id)
    return await _add(request, body, image_id, unless, if_version)


@router.post(
    "/images",
    status_code=201,
    summary="Add an image under the next free id",
    response_model=AddAnswer,
    responses={
        200: {"model": AddAnswer, "description": "Added before", "headers": openapi.REPORT},
        **openapi.answer(openapi.REPORT, status=201),
        **documented(400, 409, 413, 415, 422, 503),
    },
    openapi_extra=openapi.ADD,
)
async def add_image(
    request: Request,
    unless: UnlessQuery = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="The same key within 24 hours adds the picture once.",
        ),
    ] = None,
) -> Response:
    """Durable when answered. The id is above every id ever used below 2^46."""
    body = await read_body(request)
    image_id = None
    if idempotency_key is not None:
        image_id = await gateway_of(request).writer.claim_id(idempotency_key, body.image())
    return await _add(request, body, image_id, unless)


@router.get(
    "/images/{image_id}",
    summary="Get an image",
    response_model=ImageAnswer,
    responses={
        **openapi.answer(openapi.TAGGED),
        **openapi.NOT_MODIFIED,
        **documented(400, 404, 503),
    },
    openapi_extra=openapi.CACHED,
)
async def get_image(request: Request, image_id: ImageIdPath) -> Response:
    """The image's row, retrievers and annotations."""
    gateway = gateway_of(request)
    image = await asyncio.to_thread(gateway.store.image, image_id)
    if image is None:
        raise ImageNotFound(f"no image {image_id}", "image_id")
    (row,) = await asyncio.to_thread(image_rows, gateway, [image])
    return tagged(request, JsonAnswer(row), image.version)


@router.get(
    "/images/{image_id}/thumbnail",
    summary="Thumbnail of an image, as JPEG",
    response_class=Response,
    responses={
        **openapi.answer(openapi.TAGGED, {"image/jpeg": openapi.IMAGE}),
        **openapi.NOT_MODIFIED,
        **documented(400, 404, 503),
    },
    openapi_extra=openapi.CACHED,
)
async def get_thumbnail(request: Request, image_id: ImageIdPath) -> Response:
    """The stored preview."""
    preview = await asyncio.to_thread(gateway_of(request).store.preview, image_id)
    if preview is None:
        raise ImageNotFound(f"no thumbnail of image {image_id}", "image_id")
    return tagged(request, Response(preview, media_type="image/jpeg"))


@router.get(
    "/retrievers",
    summary="State of the retrievers and annotators",
    response_model=RetrieverStates,
    responses=documented(503),
)
async def list_retrievers(request: Request) -> Response:
    """Current states; one that does not answer is `unavailable`, with the reason."""
    return JsonAnswer({"retrievers": await state_rows(gateway_of(request).directory)})


@router.post(
    "/search/upload",
    summary="Search by uploaded pictures",
    response_model=SearchResults,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.SEARCH_UPLOAD,
    name="search_upload",
)
@router.post(
    "/search",
    summary="Search by pictures, stored images and words at once",
    response_model=SearchResults,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.SEARCH,
)
async def search(request: Request) -> Response:
    """Images verified by phash or local come first; reciprocal rank fusion orders each class.

    `/v1/search` takes JSON, and also the form of `/v1/search/upload`."""
    body = await read_body(request)
    report = begin_report(request)
    page = await fused_search(gateway_of(request), _query_of(body), body.images, report)
    content = {**page.row(), **report.note_truncated()}
    return JsonAnswer(content, headers=report.headers())


@router.post(
    "/retrievers/{name}/search/upload",
    summary="Search one retriever by an uploaded picture",
    response_model=RetrieverResults,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.RETRIEVER_SEARCH_UPLOAD,
    name="search_retriever_upload",
)
@router.post(
    "/retrievers/{name}/search",
    summary="Search one retriever",
    response_model=RetrieverResults,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.RETRIEVER_SEARCH,
)
async def search_retriever(
    request: Request,
    name: Annotated[str, Path(max_length=100, description="A name of GET /v1/retrievers.")],
) -> Response:
    """Search with the retriever's own parameters: `k`, `distance_threshold`, for local also
    `explain` and others. `…/search` takes JSON, and also the form of `…/search/upload`."""
    gateway = gateway_of(request)
    (entry,) = await gateway.entries_named([name])
    if entry.reason is not None:
        raise RetrieverUnavailable(f"{name}: {entry.reason}")
    body = await read_body(request)
    own = {key: body.fields[key] for key in body.fields if key in RetrieverQuery.model_fields}
    # An empty text field beside a picture counts as absent; alone it is a query without
    # words.
    empty = {"text": ""} if own.get("text") == "" and not body.images else {}
    query = validated(RetrieverQuery, decoded(own) | empty)
    params = {key: value for key, value in body.fields.items() if key not in own and value != ""}
    offset = decode_cursor(query.cursor)
    scope = await gateway.search_scope(query.filter, query.min_seq)
    report = begin_report(request)
    call = await _call(gateway, body, query, entry, params | {"offset": offset}, report)
    if query.filter is not None and query.filter.larger:
        scope = await gateway.larger_than(scope, await _pixels(gateway, call))
    hits = await gateway.searcher.search(call, scope, report)
    k = WHOLE.validate_python(params.get("k") or 0)
    cursor = encode_cursor(offset + k) if k and len(hits) == k else None
    rows = [hit.row() for hit in hits]
    content = {"hits": rows, "next_cursor": cursor, **report.note_truncated()}
    return JsonAnswer(content, headers=report.headers())


async def _pixels(gateway: Gateway, call: RetrieverCall) -> int:
    """Number of pixels of the query picture. Raises InvalidInput if there is none."""
    if call.picture is not None:
        return call.picture.pixels
    if call.image_id is None:
        raise InvalidInput("filter.larger: there is no query picture", "filter.larger")
    image = await asyncio.to_thread(gateway.store.image, call.image_id)
    return 0 if image is None else image.width * image.height


async def _call(
    gateway: Gateway,
    body: Body,
    query: RetrieverQuery,
    entry: DirectoryEntry,
    params: Mapping[str, Any],
    report: Report,
) -> RetrieverCall:
    variants: Variants = query.variants or ("mirror" if query.mirrored else "identity")
    assert entry.description is not None
    if query.text is not None and not entry.description.reads_text:
        raise InvalidInput(f"{entry.name} does not search by words", "text")
    if (query.image_id is not None) + bool(body.images) + (query.text is not None) != 1:
        raise InvalidInput("give either an image, an image_id or text", "image")
    if query.text is not None:
        return RetrieverCall(entry, params, composite=CompositeQuery(text=query.text))
    if not entry.of_pictures:
        raise InvalidInput(f"{entry.name} searches by words only", "text")
    if query.image_id is not None:
        return RetrieverCall(entry, params, image_id=query.image_id, variants=variants)
    picture = await gateway.searcher.prepare(body.image(), [entry], variants, report, query.region)
    return RetrieverCall(entry, params, picture=picture)


async def _add(
    request: Request,
    body: Body,
    image_id: int | None,
    unless: UnlessQuery,
    if_version: int | None = None,
) -> Response:
    metadata = None
    given = body.given("metadata")
    if given:
        metadata = json_object(given["metadata"], "metadata")
    gateway, report, data = gateway_of(request), begin_report(request), body.image()
    check = await add_check(gateway, image_id, data, report, unless_same=unless == "same")
    options = AddOptions(metadata, body.upload_name(), check, if_version)
    added = await gateway.writer.add(image_id, data, report, options)
    status, row = row_of(added, report)
    return JsonAnswer(row, status, headers=report.headers())


def row_of(added: Added, report: Report) -> tuple[int, dict[str, Any]]:
    """The status and the row of an add's answer."""
    row = {
        "image_id": added.receipt.image_id,
        "seq": added.receipt.seq,
        "retrievers": {name: outcome.row() for name, outcome in added.retrievers.items()},
    }
    status = 201 if added.receipt.outcome == "created" else 200
    return status, row | report.note_truncated()


def _query_of(body: Body) -> SearchQuery:
    given = body.fields.get("query")
    if isinstance(given, str):
        return parsed(SearchQuery, given, "query")
    if body.images and given is None:
        return validated(SearchQuery, decoded(body.fields))
    return validated(SearchQuery, given if isinstance(given, dict) else body.fields)
