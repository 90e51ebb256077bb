"""The routes of the page: its document, and its modules, styles and icon."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import Path

import xxhash
from fastapi import APIRouter, Request, Response

router = APIRouter()
STATIC = Path(__file__).with_name("static")
PAGE = STATIC / "index.html"
KINDS = {".js", ".css", ".svg"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The document; its links name the version of the files, so that browsers may keep those."""
    body = _document()
    tag = f'"{xxhash.xxh3_64_hexdigest(body)}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag, "Content-Security-Policy": POLICY}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="text/html", headers=headers)


@router.get("/static/{version}/{name:path}", include_in_schema=False)
async def file(request: Request, version: str, name: str) -> Response:
    """A file of the page. One of another version than asked for, as when the service is replaced
    while a page is open, is not kept."""
    found = _files().get(name)
    if found is None:
        return Response("no such file of the page\n", status_code=404, media_type="text/plain")
    kept = "public, max-age=31536000, immutable" if version == _version() else "no-cache"
    tag = f'"{xxhash.xxh3_64_hexdigest(found)}"'
    headers = {"Cache-Control": kept, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    kind = mimetypes.types_map.get(Path(name).suffix, "application/octet-stream")
    return Response(found, media_type=kind, headers=headers)


@cache
def _document() -> bytes:
    modules = [name for name in _files() if name.endswith(".js")]
    links = (f'<link rel="modulepreload" href="static/{{version}}/{name}">' for name in modules)
    text = PAGE.read_text().replace("{preloads}", "\n".join(links))
    return text.replace("{version}", _version()).encode()


@cache
def _files() -> dict[str, bytes]:
    """The files that the document links, by their paths."""
    paths = sorted(path for path in STATIC.rglob("*") if path.suffix in KINDS)
    return {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in paths}


@cache
def _version() -> str:
    """A digest of all files."""
    return xxhash.xxh3_64_hexdigest(b"\0".join(_files().values()))
