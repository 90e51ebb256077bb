"""`GET /v1/usage`: what the collection takes on disk, and how it grows."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from deployments.http.answers import JsonAnswer
from deployments.http.problems import documented
from deployments.http.reading import refuse_unknown_parameters
from deployments.ingress.gateway import Gateway, gateway_of
from deployments.ingress.listing.columns import DAY_SECONDS
from deployments.settings import data_folder, snapshots_folder

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])
MOST_DAYS = 365
BLOCK = 512
"""Bytes of a block of `st_blocks` (POSIX)."""


class Usage(BaseModel):
    images: int
    store_bytes: int = Field(
        description="The store on disk: images, features, previews and the log; 0 in memory."
    )
    preview_bytes: int = Field(description="The previews, a part of the store.")
    snapshot_bytes: int = Field(description="Snapshots of the indexes, on this host.")
    free_bytes: int = Field(description="Free on the disk of the data folder, on this host.")
    added: list[int] = Field(
        description="Images by the day (UTC) on which they were added; today is the last one. "
        "Deleted images do not count."
    )


@router.get(
    "/usage",
    summary="What the collection takes on disk, and how it grows",
    response_model=Usage,
    responses=documented(503),
)
async def get_usage(
    request: Request,
    days: Annotated[
        int,
        Query(ge=0, le=MOST_DAYS, description="Days of growth; 0 does not look at the images."),
    ] = 0,
) -> Response:
    """Sizes in bytes, as the file system counts them. The first growth takes long where there are
    many images, as the first filter does."""
    return JsonAnswer(await asyncio.to_thread(_usage, gateway_of(request), days))


def _usage(gateway: Gateway, days: int) -> dict[str, Any]:
    store, sizes = gateway.store, gateway.store.sizes()
    return {
        "images": store.count(),
        "store_bytes": sizes.store,
        "preview_bytes": sizes.previews,
        "snapshot_bytes": _bytes_in(snapshots_folder()),
        "free_bytes": _free(data_folder()),
        "added": _added(gateway, days),
    }


def _added(gateway: Gateway, days: int) -> list[int]:
    if not days:
        return []
    today = int(time.time() // DAY_SECONDS)
    return list(map(int, gateway.columns.added_by_day(gateway.store, days, today)))


def _bytes_in(folder: Path) -> int:
    """What the files in a folder take on disk; a snapshot may be replaced meanwhile."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += BLOCK * path.stat().st_blocks
        except FileNotFoundError:
            continue
    return total


def _free(folder: Path) -> int:
    """Free space for this user where a folder is, or will be."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(there).free
