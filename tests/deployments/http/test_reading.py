"""Request bodies: multipart and JSON, numbers as numbers or strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from deployments.http import problems
from deployments.http.reading import Body, image_id_of, parsed, read_body, validated
from deployments.queries import SearchQuery
from models.errors import InvalidInput

MULTIPART = "multipart/form-data; boundary=x"


async def sent(content: bytes, kind: str | None) -> httpx.Response:
    """Return, as a response, what `read_body` makes of this body."""
    app = FastAPI()
    problems.install(app)

    @app.post("/")
    async def echo(request: Request) -> dict[str, Any]:
        body = await read_body(request)
        return {"fields": body.fields, "images": [data.decode() for data in body.images]}

    headers = {"content-type": kind} if kind else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post("/", content=content, headers=headers)


def part(disposition: str, content: str) -> bytes:
    return f"--x\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n".encode()


@pytest.mark.anyio
async def test_fields_and_pictures_are_read_in_any_order() -> None:
    picture = part('name="image"; filename="document"', "bytes")
    number = part('name="image_id"', "7")
    for content in (picture + number, number + picture):
        answer = await sent(content + b"--x--\r\n", MULTIPART)
        assert answer.json() == {"fields": {"image_id": "7"}, "images": ["bytes"]}


@pytest.mark.anyio
async def test_json_is_read_whatever_it_is_called() -> None:
    for kind in ("application/json", "text/plain", "application/json; charset=utf-8", None):
        answer = await sent(b'{"k": "", "image_id": 5}', kind)
        assert answer.json()["fields"] == {"k": "", "image_id": 5}


@pytest.mark.anyio
async def test_a_form_without_files_is_read() -> None:
    answer = await sent(b"k=5&text=a+cat", "application/x-www-form-urlencoded")
    assert answer.json()["fields"] == {"k": "5", "text": "a cat"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", None),
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"image_id": NaN}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"garbage", MULTIPART),
        (b"--x\r\n\r\nno name\r\n--x--\r\n", MULTIPART),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n", MULTIPART),
        (part('name="image"; filename="a"', "b") + b"--x--", "multipart/form-data"),
    ],
)
async def test_a_body_that_can_not_be_read_is_a_400(content: bytes, kind: str | None) -> None:
    answer = await sent(content, kind)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.anyio
async def test_a_file_of_another_name_is_refused_by_its_name() -> None:
    answer = await sent(part('name="photo"; filename="a"', "b") + b"--x--\r\n", MULTIPART)
    assert answer.status_code == 400
    assert answer.json()["field"] == "photo"


@pytest.mark.anyio
async def test_a_picture_that_is_no_file_part_is_refused() -> None:
    answer = await sent(part('name="image"', "bytes") + b"--x--\r\n", MULTIPART)
    assert answer.status_code == 400
    assert answer.json()["field"] == "image"


@pytest.mark.anyio
async def test_a_field_that_is_too_large_is_refused() -> None:
    content = part('name="text"', "x" * (4 * 2**20 + 1)) + b"--x--\r\n"
    assert (await sent(content, MULTIPART)).status_code == 400


@pytest.mark.parametrize("given", [0, 7, "7", " 7 ", 2**47])
def test_an_image_id_is_a_number_or_a_string_of_one(given: object) -> None:
    assert image_id_of({"image_id": given}) == int(str(given))


@pytest.mark.parametrize(
    "fields", [{}, *({"image_id": value} for value in (None, "", "x", "NaN", 1.5, True, [1], {}))]
)
def test_anything_else_is_no_image_id(fields: Mapping[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        image_id_of(fields)
    assert caught.value.field == "image_id"


def test_empty_fields_count_as_absent() -> None:
    body = Body({"k": "", "distance_threshold": None, "aqe_n": 0, "other": 1})
    assert body.given("k", "distance_threshold", "aqe_n", "aqe_alpha") == {"aqe_n": 0}


@pytest.mark.parametrize("images", [[], [b"a", b"b"]])
def test_exactly_one_picture_is_asked_for(images: list[bytes]) -> None:
    with pytest.raises(InvalidInput, match=f"not {len(images)}"):
        Body(images=images).image()


def test_a_field_at_fault_is_named_by_its_path() -> None:
    with pytest.raises(InvalidInput) as caught:
        validated(SearchQuery, {"negative": {"image_ids": [1, -1]}})
    assert caught.value.field == "negative.image_ids.1"


def test_text_that_is_no_json_names_the_field_it_came_in() -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed(SearchQuery, "{", "query")
    assert caught.value.field == "query"


def test_a_misspelt_field_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        validated(SearchQuery, {"imageids": [1]})
    assert caught.value.field == "imageids"
