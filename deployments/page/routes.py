"""The route of the search page."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter()
PAGE = Path(__file__).with_name("index.html")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Choose a picture, see thumbnails and scores."""
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _policy()}
    return FileResponse(PAGE, media_type="text/html", headers=headers)


@cache
def _policy() -> str:
    """A Content-Security-Policy that allows the page's own script and style, by their hashes."""
    text = PAGE.read_text()
    return (
        f"default-src 'none'; script-src {_hashes(text, 'script')}; "
        f"style-src {_hashes(text, 'style')}; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


def _hashes(text: str, element: str) -> str:
    inside = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    digests = (hashlib.sha256(one.encode()).digest() for one in inside)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
