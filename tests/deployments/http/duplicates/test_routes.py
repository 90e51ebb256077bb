"""`/v1/duplicates`: groups in pages, decisions and their undo, rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import pytest

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from indexes.duplicates.catalogue import followed_write
from indexes.store.base import Store
from models.types import FileFacts
from tests.deployments.http.test_openapi import check, exact
from tests.deployments.pictures import problem_of
from tests.indexes.duplicates.collection import add, add_pairs, pair

pytestmark = pytest.mark.anyio


class Web(NamedTuple):
    """A client, and the document that its answers must agree with."""

    client: httpx.AsyncClient
    document: dict[str, Any]


TAKEN = 1_600_000_000.5


@pytest.fixture
def store(gateway: Gateway) -> Store:
    """A store with two groups: 0 and 1 of the same bytes, 2, 3 and 4 of one picture."""
    store = gateway.store
    add(store, 0, "a", facts=FileFacts("JPEG", 1000, TAKEN, 12, 90))
    add(store, 1, "a", facts=FileFacts("JPEG", 1000, TAKEN, 12, 90), upload_name="b.jpg")
    for at in (2, 3, 4):
        add(store, at, facts=FileFacts("PNG", 100 * at), metadata={"tags": [f"t{at}"]})
    regions = (((1, 2, 3, 4), (5, 6, 7, 8)),)
    add_pairs(
        store,
        pair(store, 0, 1, "bytes", relation="identical", confidence=1.0),
        pair(store, 2, 3, "edited", relation="edited", regions=regions, overlap=(1.0, 0.9)),
        pair(store, 2, 4, "edited", changes=("mirrored",), enlarged=4),
    )
    store.write_records(followed_write(store, 3))
    return store


@pytest.fixture
async def web(gateway: Gateway, store: Store) -> AsyncIterator[Web]:  # noqa: ARG001
    """A client of the gateway's routes."""
    app = make_app(gateway)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Web(client, exact(app.openapi()))


async def listed(web: Web, **params: Any) -> dict[str, Any]:
    answer = await web.client.get("/v1/duplicates", params=params)
    assert answer.status_code == 200, answer.text
    check(web.document, answer)
    shown: dict[str, Any] = answer.json()
    return shown


async def decided(web: Web, decision: str, *image_ids: int, **more: Any) -> dict[str, Any]:
    body = {"decision": decision, "image_ids": image_ids, **more}
    answer = await web.client.post("/v1/duplicates/decisions", json=body)
    assert answer.status_code == 200, answer.text
    check(web.document, answer)
    made: dict[str, Any] = answer.json()
    return made


def ids_of(shown: dict[str, Any]) -> list[list[int]]:
    return [[image["image_id"] for image in group["images"]] for group in shown["groups"]]


async def test_groups_come_level_by_level_with_what_is_to_win(web: Web) -> None:
    shown = await listed(web)
    assert ids_of(shown) == [[0, 1], [2, 3, 4]]
    levels = {row["level"]: row for row in shown["levels"]}
    assert list(levels)[:3] == ["bytes", "pixels", "reencode"]
    assert levels["bytes"] == {"level": "bytes", "groups": 1, "images": 2, "bytes": 1000}
    assert levels["edited"] == {"level": "edited", "groups": 1, "images": 3, "bytes": 700}
    assert levels["crop"] == {"level": "crop", "groups": 0, "images": 0, "bytes": 0}
    assert (shown["head"], shown["pending"]) == (3, 2)
    second = shown["groups"][1]
    assert second["images"][0]["best"]
    assert second["images"][0]["tags"] == ["t2"]
    assert second["images"][2]["reasons"] == ["fewer pixels: 3996×2996"]
    assert second["pairs"][0]["regions"] == [{"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]}]
    upload = shown["groups"][0]["images"][1]
    assert (upload["upload_name"], upload["taken"]) == ("b.jpg", "2020-09-13T12:26:40.500Z")
    assert upload["created"] == "1970-01-01T00:16:40Z"


async def test_groups_come_in_pages(web: Web) -> None:
    first = await listed(web, limit=1)
    second = await listed(web, limit=1, cursor=first["next_cursor"])
    assert ids_of(first) + ids_of(second) == [[0, 1], [2, 3, 4]]
    assert ids_of(await listed(web, limit=1, cursor=second["next_cursor"])) == []
    assert ids_of(await listed(web, level="edited")) == [[2, 3, 4]]
    assert ids_of(await listed(web, level="burst")) == []


async def test_a_decided_group_is_gone_and_comes_back_when_it_is_undone(web: Web) -> None:
    made = await decided(web, "different", 0, 1)
    assert (made["level"], made["state"], made["keep"]) == ("bytes", "done", [0, 1])
    assert ids_of(await listed(web)) == [[2, 3, 4]]
    undone = await web.client.delete(f"/v1/duplicates/decisions/{made['decision_id']}")
    assert undone.json()["state"] == "undone"
    assert ids_of(await listed(web)) == [[0, 1], [2, 3, 4]]
    again = await web.client.delete(f"/v1/duplicates/decisions/{made['decision_id']}")
    assert problem_of(again, 409)["field"] == "decision_id"
    assert (await web.client.delete("/v1/duplicates/decisions/never")).status_code == 404


async def test_a_deletion_is_undone(web: Web, store: Store) -> None:
    made = await decided(web, "delete", 2, 3, 4, keep=[2, 4])
    assert made["deleted"] == [3]
    assert (await web.client.get("/v1/images/3")).status_code == 404
    assert (await web.client.get("/v1/images/2")).json()["metadata"] == {"tags": ["t2", "t3"]}
    assert ids_of(await listed(web)) == [[0, 1], [2, 4]]
    undone = (await web.client.delete(f"/v1/duplicates/decisions/{made['decision_id']}")).json()
    assert undone["restored"] == {"3": 3}
    image = store.image(3)
    assert image is not None
    assert image.facts == FileFacts("PNG", 300)
    assert ids_of(await listed(web)) == [[0, 1], [2, 3, 4]]


async def test_the_history_is_told_from_the_newest_in_pages(web: Web) -> None:
    first = await decided(web, "keep_all", 0, 1)
    await asyncio.sleep(0.002)
    second = await decided(web, "keep_larger", 2, 3)
    answer = await web.client.get("/v1/duplicates/decisions", params={"limit": 1})
    check(web.document, answer)
    page = answer.json()
    assert [one["decision_id"] for one in page["decisions"]] == [second["decision_id"]]
    page = (
        await web.client.get("/v1/duplicates/decisions", params={"cursor": page["next_cursor"]})
    ).json()
    assert [one["decision_id"] for one in page["decisions"]] == [first["decision_id"]]
    assert page["next_cursor"] is None


async def test_rules_are_read_and_edited(web: Web) -> None:
    rules = (await web.client.get("/v1/duplicates/rules")).json()
    assert rules["best"] == ["pixels", "not_recompressed", "metadata", "oldest"]
    assert [row["level"] for row in rules["levels"]][:2] == ["bytes", "pixels"]
    refused = await web.client.put("/v1/duplicates/rules/bytes", json={"automatic": True})
    assert problem_of(refused, 409)["field"] == "automatic"
    await web.client.put("/v1/duplicates/rules/bytes", json={"needed": 1})
    await decided(web, "delete", 0, 1)
    automatic = await web.client.put("/v1/duplicates/rules/bytes", json={"automatic": True})
    check(web.document, automatic)
    assert automatic.json()["automatic"]
    edited = await web.client.put("/v1/duplicates/rules/best", json={"order": ["oldest", "pixels"]})
    assert edited.json()["best"] == ["oldest", "pixels"]
    assert (await listed(web))["pending"] > 4


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "decisions", {"decision": "burn", "image_ids": [0, 1]}, "decision"),
        ("POST", "decisions", {"decision": "delete", "image_ids": [0]}, "image_ids"),
        ("POST", "decisions", {"decision": "delete", "image_ids": [0, -1]}, "image_ids.1"),
        ("POST", "decisions", {"decision": "delete", "image_ids": [0, 0]}, "image_ids"),
        ("POST", "decisions", {"decision": "delete", "image_ids": [0, 1], "keep": []}, "keep"),
        ("POST", "decisions", {"decision": "keep_all", "image_ids": [0, 1], "keep": [0]}, "keep"),
        ("POST", "decisions", {"decision": "keep_all", "image_ids": [0, 1], "hep": 1}, "hep"),
        ("PUT", "rules/best", {"order": []}, "order"),
        ("PUT", "rules/best", {"order": ["pixels", "pixels"]}, "order"),
        ("PUT", "rules/best", {"order": ["beauty"]}, "order.0"),
        ("PUT", "rules/bytes", {"needed": 0}, "needed"),
        ("PUT", "rules/never", {"needed": 1}, "level"),
    ],
)
async def test_what_is_wrong_is_named(
    web: Web, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await web.client.request(method, f"/v1/duplicates/{path}", json=body)
    assert problem_of(answer, 400)["field"] == field


async def test_wrong_parameters_are_named(web: Web) -> None:
    for query, field in [("level=x", "level"), ("limit=0", "limit"), ("of=1", "of")]:
        answer = await web.client.get(f"/v1/duplicates?{query}")
        assert problem_of(answer, 400)["field"] == field
    for path in ("", "/decisions"):
        for cursor in ("é", "none", "00.0000000000000000.000000000000000"):
            answer = await web.client.get(f"/v1/duplicates{path}", params={"cursor": cursor})
            assert problem_of(answer, 400)["field"] == "cursor"
