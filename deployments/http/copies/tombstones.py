"""`GET /v1/tombstones` and `DELETE /v1/tombstones/{tombstone_id}`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.problems import documented
from deployments.http.reading import refuse_unknown_parameters
from deployments.ingress.gateway import gateway_of
from deployments.ingress.listing.cursors import after_key, key_before
from deployments.schemas import Answer
from deployments.tombstones import records
from models.errors import UnknownName

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])
TOMBSTONES = "tombstones"
"""Name of the list in its cursors."""
TombstoneId = Annotated[
    str, Path(min_length=1, max_length=100, description="An id of `GET /v1/tombstones`.")
]


class TombstoneRow(Answer):
    """A picture that was deleted to stay away."""

    tombstone_id: str
    created: float = Field(description="Seconds since the epoch.")
    note: str
    image_id: int | None = Field(None, description="The id that it had.")
    file_name: str | None = None
    sha256: str | None = Field(None, description="Of its file.")
    width: int | None = None
    height: int | None = None
    pdq: str | None = Field(None, description="The PDQ hash, where only that is known.")


class TombstoneList(BaseModel):
    tombstones: list[TombstoneRow] = Field(description="By id.")
    next_cursor: str | None = None


@router.get(
    "/tombstones",
    summary="Pictures that were deleted to stay away",
    response_model=TombstoneList,
    responses=documented(400, 503),
)
async def list_tombstones(
    request: Request,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next_cursor` of the previous page.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Tombstones a page.")] = 100,
) -> Response:
    """Without their pictures, which `ambience tombstones export` writes."""
    after = key_before(TOMBSTONES, cursor)
    found = await asyncio.to_thread(records.listed, gateway_of(request).store, after, limit)
    last = found[-1].tombstone_id if len(found) == limit else None
    return JsonAnswer(
        {"tombstones": [one.row() for one in found], "next_cursor": after_key(TOMBSTONES, last)}
    )


@router.get(
    "/tombstones/{tombstone_id}/thumbnail",
    summary="Thumbnail of a picture that was deleted to stay away, as JPEG",
    response_class=Response,
    responses={
        **openapi.answer({}, {"image/jpeg": openapi.IMAGE}),
        **documented(400, 404, 503),
    },
    name="get_tombstone_thumbnail",
)
async def get_thumbnail(request: Request, tombstone_id: TombstoneId) -> Response:
    """The preview that was kept; of a PDQ hash there is none."""
    found = await asyncio.to_thread(records.pictures, gateway_of(request).store, [tombstone_id])
    preview = found[tombstone_id].preview if tombstone_id in found else None
    if preview is None:
        raise UnknownName(f"no thumbnail of tombstone {tombstone_id[:80]!r}", "tombstone_id")
    return Response(preview, media_type="image/jpeg")


@router.delete(
    "/tombstones/{tombstone_id}",
    status_code=204,
    summary="Forget a picture that was deleted to stay away",
    responses=documented(400, 404, 503),
)
async def forget(request: Request, tombstone_id: TombstoneId) -> Response:
    """The picture may come back, from the next request on."""
    await asyncio.to_thread(records.forget, gateway_of(request).store, tombstone_id)
    return Response(status_code=204)
