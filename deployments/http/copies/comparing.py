"""`POST /v1/compare`: how two pictures relate."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.problems import documented
from deployments.http.reading import (
    Body,
    parsed,
    read_body,
    refuse_unknown_parameters,
    validated,
)
from deployments.ingress.comparing import compare_pictures
from deployments.ingress.gateway import gateway_of
from deployments.ingress.report import begin_report
from deployments.schemas import TRUNCATED, Answer, ChangedRegion, ImageId
from models.errors import InvalidInput
from models.types import Options

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])
PICTURES = 2


class CompareQuery(Options):
    """The stored images of a comparison."""

    image_ids: list[ImageId] = Field(
        default_factory=list,
        max_length=PICTURES,
        description="Stored images; with the uploads exactly two pictures.",
    )


class StoredPair(Options):
    """Two stored images to compare."""

    image_ids: list[ImageId] = Field(
        min_length=PICTURES, max_length=PICTURES, description="The query and the image."
    )


class ComparedPicture(Answer):
    width: int = Field(description="In pixels of the upright picture.")
    height: int
    image_id: int | None = Field(None, description="Of a stored image.")


class Comparison(Answer):
    """How a query picture, the first one, and an image, the second one, relate."""

    relation: Literal["same", "edited", "part", "shares", "like"] = Field(
        description="`same`, `edited` and `part` are verified; `shares` has an element in common; "
        "`like` has none."
    )
    changes: list[Literal["mirrored", "turned", "bordered", "negative"]] | None = Field(
        None, description="What happened to a picture that is the same or edited."
    )
    confidence: float = Field(description="Probability that the relation is a verified one.")
    overlap: tuple[float, float] | None = Field(
        None, description="Shares of the query's and the image's area that both show."
    )
    regions: list[ChangedRegion] | None = Field(None, description="Where they differ.")
    homography: list[list[float]] | None = Field(
        None, description="3×3, from pixels of the upright query to those of the image."
    )
    matches: list[tuple[float, float, float, float]] | None = Field(
        None, description="Matched points: x, y in the query, x, y in the image."
    )
    query: ComparedPicture
    image: ComparedPicture
    truncated: bool = Field(False, description=TRUNCATED)


@router.post(
    "/compare/upload",
    summary="Compare an uploaded picture with another one or a stored image",
    response_model=Comparison,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.pictures_form(
        PICTURES, query="JSON with the `image_ids` of stored images.", least=0
    ),
    name="compare_upload",
)
@router.post(
    "/compare",
    summary="Compare two pictures",
    response_model=Comparison,
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.json_of(StoredPair),
)
async def compare(request: Request) -> Response:
    """The relation of two pictures, where they overlap and where they differ. The uploads come
    first, then the stored images.

    `/v1/compare` takes JSON, and also the form of `/v1/compare/upload`."""
    body = await read_body(request)
    query = _query_of(body)
    count = len(body.images) + len(query.image_ids)
    if count != PICTURES:
        raise InvalidInput(f"image: give two pictures to compare, not {count}", "image")
    gateway = gateway_of(request)
    report = begin_report(request)
    found = await compare_pictures(gateway, body.images, query.image_ids, report)
    return JsonAnswer(found.row() | report.note_truncated(), headers=report.headers())


def _query_of(body: Body) -> CompareQuery:
    given = body.fields.get("query")
    if isinstance(given, str):
        return parsed(CompareQuery, given, "query") if given else CompareQuery()
    return validated(CompareQuery, given if isinstance(given, dict) else body.fields)
