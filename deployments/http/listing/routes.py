"""`GET /v1/images`: images by what their rows hold."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.params import Query as QueryParameter

from deployments.http.answers import JsonAnswer
from deployments.http.editing import image_rows
from deployments.http.problems import documented
from deployments.http.reading import json_object, refuse_unknown_parameters, validated
from deployments.ingress.gateway import Gateway, ImageFilter
from deployments.queries import Encoding, Filter
from deployments.schemas import ImageList
from models.errors import InvalidInput
from models.pictures.formats import ENCODING_NAMES
from models.types import MAX_IMAGE_ID

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])


def _size(name: str) -> QueryParameter:
    described = Filter.model_fields[name].description
    return QueryParameter(ge=0, le=2**62, description=described)


def _moment(name: str) -> QueryParameter:
    described = Filter.model_fields[name].description
    schema = {"format": "date-time"}
    return QueryParameter(max_length=40, description=described, json_schema_extra=schema)


@router.get(
    "/images",
    summary="List images",
    response_model=ImageList,
    responses=documented(400, 503),
)
async def list_images(  # noqa: PLR0913, PLR0917
    request: Request,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next_cursor` of the previous page.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Pictures a page.")] = 100,
    tag: Annotated[
        list[str] | None, Query(max_length=100, description="Only images with all of these tags.")
    ] = None,
    metadata: Annotated[
        str | None, Query(description="A JSON object: only images whose metadata has its values.")
    ] = None,
    file_name: Annotated[
        str | None, Query(max_length=1000, description="Only images with this `file_name`.")
    ] = None,
    sha256: Annotated[
        str | None,
        Query(
            pattern="^[0-9a-fA-F]{64}$", description="Only images of the file with this SHA-256."
        ),
    ] = None,
    formats: Annotated[
        list[Encoding] | None,
        Query(
            max_length=len(ENCODING_NAMES),
            description="One of these encodings, as in `format` (repeat).",
        ),
    ] = None,
    min_width: Annotated[int | None, _size("min_width")] = None,
    min_height: Annotated[int | None, _size("min_height")] = None,
    min_bytes: Annotated[int | None, _size("min_bytes")] = None,
    max_bytes: Annotated[int | None, _size("max_bytes")] = None,
    taken_after: Annotated[str | None, _moment("taken_after")] = None,
    taken_before: Annotated[str | None, _moment("taken_before")] = None,
    added_after: Annotated[str | None, _moment("added_after")] = None,
    added_before: Annotated[str | None, _moment("added_before")] = None,
) -> Response:
    """By ascending id, with the total number of images that meet all conditions.

    The conditions are those of a search's `filter`; an image of which a value is unknown meets no
    condition on it."""
    fields = {
        "tags": tag,
        "metadata": json_object(metadata, "metadata") if metadata else None,
        "formats": formats,
        "min_width": min_width,
        "min_height": min_height,
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "taken_after": taken_after,
        "taken_before": taken_before,
        "added_after": added_after,
        "added_before": added_before,
    }
    wanted = ImageFilter(validated(Filter, fields), file_name, sha256)
    after = -1 if cursor is None else _last_id(cursor)
    gateway: Gateway = request.app.state.gateway
    return JsonAnswer(await asyncio.to_thread(_image_list, gateway, wanted, after, limit))


def _last_id(cursor: str) -> int:
    """The id of the last image of the page before. Raises InvalidInput."""
    if not (cursor.isascii() and cursor.isdecimal() and int(cursor) <= MAX_IMAGE_ID):
        raise InvalidInput("cursor: pass on the next_cursor of a previous answer", "cursor")
    return int(cursor)


def _image_list(gateway: Gateway, wanted: ImageFilter, after: int, limit: int) -> dict[str, Any]:
    matching = gateway.ids_matching(wanted)
    if matching is None:
        total, images = gateway.store.count(), gateway.store.images(after, limit)
    else:
        page = matching[np.searchsorted(matching, after, "right") :][:limit].tolist()
        total, images = len(matching), list(gateway.store.images_by_id(page).values())
    more = str(images[-1].image_id) if len(images) == limit else None
    return {"images": image_rows(gateway, images), "next_cursor": more, "total": total}
