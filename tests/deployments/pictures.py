"""Pictures for tests over HTTP, and forms in the shape that the gallery's client sends them."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx
from PIL import Image, ImageOps

from tests.drawing import encoded, jpeg, scene

Part = tuple[str, tuple[str | None, bytes | str] | tuple[str, bytes, str]]


@cache
def picture(seed: int) -> bytes:
    """Return a scene as a JPEG, always with the same bytes."""
    return jpeg(seed)


@cache
def mirrored(seed: int) -> bytes:
    """Return the mirror image of the scene."""
    return encoded(ImageOps.mirror(scene(seed)))


@cache
def resized(seed: int) -> bytes:
    """Return a smaller, more compressed copy of the scene."""
    return encoded(scene(seed).resize((400, 300), Image.Resampling.LANCZOS), quality=70)


@cache
def sideways(seed: int) -> bytes:
    """Return the scene as a camera held sideways stores it: turned, with EXIF orientation 6."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(scene(seed).transpose(Image.Transpose.ROTATE_90), exif=exif)


def image_part(data: bytes) -> Part:
    """Return the file part as form-data on Node sends it."""
    return ("image", ("document", data, "application/octet-stream"))


def field_part(name: str, value: object) -> Part:
    """Return a form field; numbers travel as strings."""
    return (name, (None, str(value)))


def post_form(client: httpx.Client, path: str, *parts: Part) -> httpx.Response:
    """Send a multipart request with its parts in this order."""
    return client.post(path, files=list(parts))


def put(client: httpx.Client, image_id: int, data: bytes, metadata: str | None = None) -> Any:
    """Add an image under an id by /v1 and return the answer."""
    parts = [image_part(data)]
    if metadata is not None:
        parts.append(field_part("metadata", metadata))
    answer = client.put(f"/v1/images/{image_id}", files=parts)
    answer.raise_for_status()
    return answer.json()


def ids(rows: list[dict[str, Any]]) -> list[int]:
    """Return the image ids of these rows, in order."""
    return [row["image_id"] for row in rows]


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the problem of an answer, which must have this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body
