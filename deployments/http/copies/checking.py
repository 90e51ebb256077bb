"""`POST /v1/check`: the import check."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.problems import documented, problem_of
from deployments.http.reading import (
    MOST_PICTURES,
    items_of,
    read_body,
    refuse_unknown_parameters,
)
from deployments.ingress.checking import check_picture
from deployments.ingress.copies import ready_entries
from deployments.ingress.gateway import gateway_of
from deployments.ingress.report import begin_report
from deployments.schemas import TRUNCATED, Answer, ChangedRegion
from models.errors import AmbienceError
from models.machine import cores
from models.types import MAX_IMAGE_ID, Options

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])


class CheckItem(Options):
    """What is said of one picture of a check."""

    image_id: int | None = Field(
        None, ge=0, le=MAX_IMAGE_ID, description="The image that it replaces, which may be a copy."
    )


class FileRow(Answer):
    """A file of a picture."""

    width: int = Field(description="In pixels of the upright picture.")
    height: int
    format: str | None = Field(None, description="The encoding, such as `JPEG`.")
    bytes: int | None = Field(None, description="Size of the file.")
    quality: int | None = Field(None, description="Of a JPEG.")


class CheckResult(Answer):
    """The result of one picture, or a problem."""

    outcome: Literal["new", "known", "better", "banned"] | None = Field(
        None,
        description="`known`: there is a copy, by a relation that `import_check.blocks` names. "
        "`better`: it is a larger or less compressed copy of what is there. `banned`: it was "
        "deleted to stay away. `new`: none of these; an image may still relate to it.",
    )
    image_id: int | None = Field(None, description="The stored image that it relates to.")
    relation: Literal["same", "edited", "part"] | None = Field(
        None, description="To that image or, if it is banned, to the deleted picture."
    )
    changes: list[Literal["mirrored", "turned", "bordered", "negative"]] | None = Field(
        None, description="What happened to a picture that is the same or edited."
    )
    confidence: float | None = Field(None, description="Probability of the relation.")
    overlap: tuple[float, float] | None = Field(
        None, description="Shares of the picture's and the image's area that both show."
    )
    regions: list[ChangedRegion] | None = Field(None, description="Where they differ.")
    why: str | None = Field(None, description="In what it is better.")
    tombstone_id: str | None = Field(None, description="Of a banned picture.")
    note: str | None = Field(None, description="Why it was deleted.")
    pdq_distance: int | None = Field(
        None, description="Different bits of 256, where only PDQ hashes are known."
    )
    picture: FileRow | None = Field(None, description="The picture of the request.")
    image: FileRow | None = Field(None, description="The stored image.")
    truncated: bool | None = Field(None, description=TRUNCATED)
    problem: dict[str, Any] | None = Field(
        None, description="Of several pictures: what is wrong with this one."
    )


class CheckAnswer(BaseModel):
    results: list[CheckResult] = Field(description="In the order of the pictures.")


@router.post(
    "/check",
    summary="Whether pictures are new, known, better than what is there, or banned",
    response_model=CheckAnswer,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 413, 415, 503)},
    openapi_extra=openapi.pictures_form(
        MOST_PICTURES,
        items="A JSON list with an object for each picture: the `image_id` that it replaces.",
    ),
)
async def check(request: Request) -> Response:
    """Up to 100 pictures in one form. Nothing is stored. Pictures are compared under all 8 flips
    and rotations, by their pixels; without `phash` nobody knows, and the answer is 503."""
    body = await read_body(request)
    items = items_of(body, CheckItem)
    gateway = gateway_of(request)
    report = begin_report(request)
    entries = await ready_entries(gateway, time.monotonic() + gateway.args.deadline)
    places = asyncio.Semaphore(cores())

    async def one(data: bytes, item: CheckItem) -> dict[str, Any]:
        async with places:
            try:
                found = await check_picture(gateway, entries, data, item.image_id, report)
            except AmbienceError as exc:
                if len(items) == 1:
                    raise
                return {"problem": problem_of(exc)}
            return found.row()

    rows = await asyncio.gather(*map(one, body.images, items))
    return JsonAnswer({"results": rows}, headers=report.headers())
