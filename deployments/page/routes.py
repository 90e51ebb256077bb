"""The route of the search page."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter()
PAGE = Path(__file__).with_name("index.html")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Choose a picture, see thumbnails and scores."""
    return FileResponse(PAGE, media_type="text/html", headers={"Cache-Control": "no-cache"})
