"""PATCH /v1/images/{id}, the annotations that GET shows, and filters by tag, without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.queries import Filter
from indexes.store.base import ANNOTATE, ImageWrite, Space
from models.errors import InvalidInput
from tests.deployments.pictures import problem_of

PHASH = Space("phash", "f")
CAPTION = {"text": "a dog on a beach", "fingerprint": "f"}
pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway's routes."""
    transport = httpx.ASGITransport(make_app(gateway), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made


@pytest.fixture
def generation(gateway: Gateway) -> int:
    """Generation of image 7, whose caption is pending."""
    wanted = frozenset({"phash", ANNOTATE + "caption"})
    write = ImageWrite(7, "0" * 64, 4, 3, wanted, {PHASH: b"x"}, metadata={"album": "a", "b": 1})
    return gateway.store.put(write).generation


async def edit(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.patch("/v1/images/7", json=changes)


async def shown(client: httpx.AsyncClient) -> Any:
    return (await client.get("/v1/images/7")).json()["annotations"]


@pytest.mark.usefixtures("generation")
async def test_what_is_still_to_come_says_why(client: httpx.AsyncClient) -> None:
    image = (await client.get("/v1/images/7")).json()
    assert image["annotations"] == {"caption": {"state": "pending", "reason": "not deployed"}}
    assert image["retrievers"] == {"phash": {"state": "indexed"}}
    listed = (await client.get("/v1/images")).json()["images"]
    assert listed == [image]


async def test_a_machines_annotation_is_shown(
    client: httpx.AsyncClient, gateway: Gateway, generation: int
) -> None:
    gateway.store.annotate(7, generation, {"caption": CAPTION}, "machine")
    assert await shown(client) == {"caption": CAPTION | {"by": "machine"}}


async def test_a_persons_edit_is_answered_kept_and_stands(
    client: httpx.AsyncClient, gateway: Gateway, generation: int
) -> None:
    answer = await edit(client, annotations={"caption": {"text": "Rex\nat sea"}})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("seq") == generation + 1
    assert body == (await client.get("/v1/images/7")).json()
    assert body["annotations"] == {"caption": {"text": "Rex\nat sea", "by": "person"}}
    gateway.store.annotate(7, generation, {"caption": CAPTION}, "machine")
    assert (await shown(client))["caption"]["text"] == "Rex\nat sea"


async def test_an_annotation_is_removed_by_null_and_stays_away(
    client: httpx.AsyncClient, gateway: Gateway, generation: int
) -> None:
    gateway.store.annotate(7, generation, {"caption": CAPTION}, "machine")
    assert (await edit(client, annotations={"caption": None})).status_code == 200
    gateway.store.annotate(7, generation, {"caption": CAPTION}, "machine")
    assert await shown(client) == {}


@pytest.mark.usefixtures("generation")
async def test_a_person_may_write_under_any_name(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    said = {"Großmutter": {"tags": ["dog", "sea", "dog"]}}
    assert (await edit(client, annotations=said)).status_code == 200
    assert await shown(client) == {
        "Großmutter": {"tags": ["dog", "sea"], "by": "person"},
        "caption": {"state": "pending", "reason": "not deployed"},
    }
    scope = await gateway.search_scope(Filter(tags=["sea"]))
    assert scope.allowed is not None
    assert scope.allowed.tolist() == [7]


@pytest.mark.usefixtures("generation")
async def test_metadata_are_changed_key_by_key(client: httpx.AsyncClient) -> None:
    answer = await edit(client, metadata={"album": None, "c": [1]})
    assert answer.json()["metadata"] == {"b": 1, "c": [1]}
    seq = answer.json()["seq"]
    again = await edit(client, metadata={"c": [1]}, annotations={"ocr": None})
    assert again.json()["seq"] == seq + 1
    unchanged = await edit(client, metadata={"c": [1]}, annotations={"ocr": None})
    assert unchanged.json()["seq"] == seq + 1


@pytest.mark.usefixtures("generation")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "annotations"),
        ({"annotation": {}}, "annotation"),
        ({"annotations": ["caption"]}, "annotations"),
        ({"annotations": {"caption": "Rex"}}, "annotations.caption"),
        ({"annotations": {"caption": {}}}, "annotations.caption"),
        ({"annotations": {"caption": {"text": " \n"}}}, "annotations.caption"),
        ({"annotations": {"caption": {"texts": "x"}}}, "annotations.caption.texts"),
        ({"annotations": {"caption": {"text": "x" * 10_001}}}, "annotations.caption.text"),
        ({"annotations": {"caption": {"text": "a\0b"}}}, "annotations.caption.text"),
        ({"annotations": {"caption": {"text": "a\x1b[31m"}}}, "annotations.caption.text"),
        ({"annotations": {"places365": {"tags": ["a"] * 201}}}, "annotations.places365.tags"),
        ({"annotations": {"places365": {"tags": ["a" * 201]}}}, "annotations.places365.tags.0"),
        ({"annotations": {"places365": {"tags": ["sea", ""]}}}, "annotations.places365.tags.1"),
        ({"annotations": {"places365": {"tags": ["sea", " "]}}}, "annotations.places365.tags"),
        ({"annotations": {"places365": {"tags": ["a\nb"]}}}, "annotations.places365.tags"),
        ({"annotations": {"a\nb": {"text": "x"}}}, "annotations.a\nb"),
        ({"metadata": []}, "metadata"),
    ],
)
async def test_what_can_not_be_kept_is_refused_by_its_field(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str
) -> None:
    problem = problem_of(await edit(client, **changes), 400)
    assert problem["field"].startswith(field)
    assert "caption" in await shown(client)


async def test_an_unknown_image_can_not_be_edited(client: httpx.AsyncClient) -> None:
    answer = await edit(client, annotations={"caption": {"text": "Rex"}})
    assert problem_of(answer, 404)["field"] == "image_id"


@pytest.mark.usefixtures("generation")
async def test_a_tag_that_no_image_has_is_refused(gateway: Gateway) -> None:
    with pytest.raises(InvalidInput, match="'sea'") as refused:
        await gateway.search_scope(Filter(tags=["sea"]))
    assert refused.value.field == "filter.tags"


@pytest.mark.parametrize("path", ["/get_image_tags", "/get_image_caption"])
async def test_the_gallery_is_told_that_no_annotator_is_deployed(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.post(path, files={"image": b"x"})
    assert "not deployed" in problem_of(answer, 503)["detail"]


async def test_an_annotator_that_is_not_there_is_refused_by_its_field(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post(
        "/v1/annotate", files={"image": b"x"}, data={"annotators": "caption, smell"}
    )
    assert problem_of(answer, 404)["field"] == "annotators"
