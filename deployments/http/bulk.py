"""The routes of /v1 for deletes, for many images at once, and for systems that follow what
changes."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field

from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.conditional import expected_version
from deployments.http.editing import image_rows
from deployments.http.problems import documented, problem_of
from deployments.http.reading import (
    items_of,
    read_body,
    refuse_unknown_parameters,
    validated,
)
from deployments.http.v1 import ImageIdPath, UnlessQuery, row_of
from deployments.ingress.adding import Added, AddOptions, ReadyWrite, check_id
from deployments.ingress.banning import delete_and_remember
from deployments.ingress.batches.checked import CheckedWrite, add_unless_same
from deployments.ingress.copies import CopyCheck, add_check
from deployments.ingress.gateway import Gateway, gateway_of
from deployments.ingress.report import Report
from deployments.schemas import (
    MAX_NOTE,
    TRUNCATED,
    Answer,
    ImageAnswer,
    ImagesToDelete,
    KeptChanges,
    RetrieverOutcome,
)
from indexes.store.base import LogPage
from models.errors import AmbienceError
from models.machine import cores
from models.types import MAX_IMAGE_ID, Options

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])

LOOK_SECONDS = 0.25
"""Seconds between two looks for changes while a request waits for some."""
MARK_SECONDS = 24 * 3600.0
Begun = Added | ReadyWrite | CheckedWrite
"""A picture of a batch that was added before, or is ready to be."""


class BatchItem(Options):
    """What is said of one picture of a batch."""

    image_id: int | None = Field(
        None, ge=0, le=MAX_IMAGE_ID, description="Default: the next free id."
    )
    metadata: dict[str, Any] | None = None


class BatchOutcome(Answer):
    """The outcome of one picture of a batch: an add, or a problem."""

    status: int = Field(description="As of a request of its own.")
    image_id: int | None = None
    seq: int | None = None
    retrievers: dict[str, RetrieverOutcome] | None = None
    truncated: bool | None = Field(None, description=TRUNCATED)
    problem: dict[str, Any] | None = Field(None, description="As of a request of its own.")


class BatchAnswer(BaseModel):
    items: list[BatchOutcome] = Field(description="In the order of the pictures.")


class DeletedImages(BaseModel):
    deleted: list[int]
    unknown: list[int] = Field(description="There were no such images.")


class Change(Answer):
    """An image that changed."""

    image_id: int
    seq: int = Field(description="Seq of its last change.")
    deleted: bool
    image: ImageAnswer | None = Field(None, description="The image as it is now.")


class ChangeList(BaseModel):
    changes: list[Change]
    head: int = Field(description="Pass it as `after` next time.")


class ChangesGone(AmbienceError):
    """The log no longer reaches back so far, or never got there: ask for the `head`, list all
    images, and follow from there."""

    status = 410
    title = "Changes gone"


@router.post(
    "/images:batch",
    summary="Add many images",
    response_model=BatchAnswer,
    responses={**openapi.answer({}), **documented(400, 413, 503)},
    openapi_extra=openapi.BATCH,
)
async def add_images(
    request: Request,
    unless: UnlessQuery = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=240,
            description="The same key within 24 hours adds each picture of the batch once.",
        ),
    ] = None,
) -> Response:
    """Up to 100 pictures in one form, each with an outcome of its own, in their order. What was
    added is durable when answered, and was added in one transaction; with `unless`, each picture
    is also compared with those before it. A batch as a whole may be as large as one upload."""
    body = await read_body(request)
    items = items_of(body, BatchItem)
    gateway = gateway_of(request)
    places = asyncio.Semaphore(cores())
    reports = [Report() for _ in items]

    async def one(number: int) -> Begun | AmbienceError:
        key = None if idempotency_key is None else f"{idempotency_key}:{number}"
        data, report = body.images[number], reports[number]
        async with places:
            try:
                return await _begun(gateway, data, items[number], key, unless, report)
            except AmbienceError as exc:
                return exc

    begun = await asyncio.gather(*map(one, range(len(items))))
    group = [ready for ready in begun if isinstance(ready, ReadyWrite)]
    checked = [ready for ready in begun if isinstance(ready, CheckedWrite)]
    written = iter(
        [
            *(await gateway.writer.put_group(group) if group else ()),
            *(await add_unless_same(gateway, checked) if checked else ()),
        ]
    )
    ended = [one if isinstance(one, Added | AmbienceError) else next(written) for one in begun]
    return JsonAnswer({"items": [_outcome(*pair) for pair in zip(ended, reports, strict=True)]})


@router.delete(
    "/images/{image_id}",
    status_code=204,
    summary="Delete an image",
    responses=documented(400, 412, 503),
    openapi_extra=openapi.EDITED,
)
async def delete_image(
    request: Request,
    image_id: ImageIdPath,
    remember: Annotated[
        bool, Query(description="Recognise the picture when it comes back, altered too.")
    ] = False,
    note: Annotated[
        str, Query(max_length=MAX_NOTE, description="With `remember`: why it was deleted.")
    ] = "",
) -> Response:
    """Durable, and removed from every retriever, when answered. Unknown ids are accepted."""
    gateway = gateway_of(request)
    if_version = await asyncio.to_thread(expected_version, request, gateway.store, image_id)
    if remember:
        check_id(image_id)
        await delete_and_remember(gateway, image_id, note, if_version)
    else:
        await gateway.writer.delete(image_id, if_version)
    return Response(status_code=204)


@router.post(
    "/images:delete",
    summary="Delete many images",
    response_model=DeletedImages,
    responses=documented(400, 503),
    openapi_extra=openapi.DELETE_MANY,
)
async def delete_images(request: Request) -> Response:
    """Durable, and removed from every retriever, when answered. Unknown ids are accepted."""
    body = await read_body(request)
    wanted = validated(ImagesToDelete, body.fields)
    gateway = gateway_of(request)
    deleted: list[int] = []
    unknown: list[int] = []
    for image_id in dict.fromkeys(wanted.ids):
        if wanted.remember:
            existed = await delete_and_remember(gateway, image_id, wanted.note) is not None
        else:
            existed = await gateway.writer.delete(image_id)
        (deleted if existed else unknown).append(image_id)
    return JsonAnswer({"deleted": deleted, "unknown": unknown})


@router.get(
    "/changes",
    summary="What has changed since",
    response_model=ChangeList,
    responses=documented(400, 410, 503),
)
async def list_changes(
    request: Request,
    after: Annotated[
        int | None,
        Query(ge=0, le=2**62, description="`head` of the previous answer; default: the newest."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Log entries a page.")] = 100,
    wait: Annotated[
        float, Query(ge=0, le=30, description="Seconds to wait for a change if there is none.")
    ] = 0,
) -> Response:
    """The images that were added, replaced, completed, annotated or deleted, each once, as it is
    now, in the order of their last changes.

    Ask again with the answer's `head`. 410 when the log no longer reaches back to `after`; it is
    kept as long as a retriever of the service needs it, or as `POST /v1/changes:keep` asks for.
    """
    gateway = gateway_of(request)
    store = gateway.store
    if after is None:
        after = await asyncio.to_thread(store.head)
    until = time.monotonic() + wait
    page = await asyncio.to_thread(store.log, after, limit)
    while page is not None and not page.seqs and time.monotonic() < until:
        await asyncio.sleep(LOOK_SECONDS)
        page = await asyncio.to_thread(store.log, after, limit)
    if page is None:
        raise ChangesGone(
            f"the log does not reach back to {after}, or not up to it: list all images anew",
            "after",
        )
    rows = await asyncio.to_thread(_change_rows, gateway, page)
    return JsonAnswer({"changes": rows, "head": page.head})


@router.post(
    "/changes:keep",
    status_code=204,
    summary="Keep what a follower has still to read of the changes",
    responses=documented(400, 503),
    openapi_extra=openapi.KEEP_CHANGES,
)
async def keep_changes(request: Request) -> Response:
    """The log after `after` is kept for 24 hours from now. Each request under a name replaces the
    one before."""
    body = await read_body(request)
    kept = validated(KeptChanges, body.fields)
    store = gateway_of(request).store
    await asyncio.to_thread(store.mark, f"changes:{kept.consumer}", kept.after, MARK_SECONDS)
    return Response(status_code=204)


def _change_rows(gateway: Gateway, page: LogPage) -> list[dict[str, Any]]:
    there = gateway.store.images_by_id(list(page.seqs))
    shown = {row["image_id"]: row for row in image_rows(gateway, list(there.values()))}
    order = sorted(page.seqs, key=lambda image_id: page.seqs[image_id])
    return [
        {"image_id": at, "seq": page.seqs[at], "deleted": at not in shown}
        | ({"image": shown[at]} if at in shown else {})
        for at in order
    ]


async def _begun(
    gateway: Gateway,
    data: bytes,
    item: BatchItem,
    key: str | None,
    unless: UnlessQuery,
    report: Report,
) -> Begun:
    """One picture of a batch, ready to be written with the others."""
    image_id = item.image_id
    if image_id is None and key is not None:
        image_id = await gateway.writer.claim_id(key, data)
    check = await add_check(gateway, image_id, data, report, unless_same=unless == "same")
    options = AddOptions(item.metadata, check=check)
    ready = await gateway.writer.prepare(image_id, data, report, options)
    if isinstance(ready, Added) or check is None:
        return ready
    if isinstance(check, CopyCheck):
        return CheckedWrite(ready, check)
    await check.search()
    return ready


def _outcome(ended: Added | AmbienceError, report: Report) -> dict[str, Any]:
    if isinstance(ended, AmbienceError):
        found = problem_of(ended)
        return {"status": found["status"], "problem": found}
    status, row = row_of(ended, report)
    return {"status": status, **row}
