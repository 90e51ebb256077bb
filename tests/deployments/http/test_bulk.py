"""Many images at once, and what has changed, over HTTP with real retrievers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import ImportCheckArgs, IngressArgs
from indexes.store.base import ImageWrite, Receipt
from indexes.store.url import open_store
from tests.conftest import Service
from tests.deployments import served
from tests.deployments.pictures import (
    field_part,
    image_part,
    mirrored,
    picture,
    post_form,
    problem_of,
    resized,
)


def add_many(
    client: httpx.Client, pictures: list[bytes], items: Any = None, **options: Any
) -> httpx.Response:
    parts = [image_part(one) for one in pictures]
    if items is not None:
        parts.append(field_part("items", items if isinstance(items, str) else json.dumps(items)))
    return client.post("/v1/images:batch", files=parts, **options)


def changes(client: httpx.Client, after: int, **params: Any) -> Any:
    answer = client.get("/v1/changes", params={"after": after, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def head_of(client: httpx.Client) -> int:
    head: int = client.get("/v1/changes").json()["head"]
    return head


def test_each_picture_of_a_batch_has_an_outcome_of_its_own(client: httpx.Client) -> None:
    items = [{"image_id": 7, "metadata": {"album": "a"}}, {}, {}]
    answer = add_many(client, [picture(1), b"no picture", picture(2)], items)
    assert answer.status_code == 200
    first, second, third = answer.json()["items"]
    assert (first["status"], first["image_id"]) == (201, 7)
    assert set(first["retrievers"]) == {"color", "local", "phash"}
    assert second["status"] == 415
    assert second["problem"]["field"] == "image"
    assert third["status"] == 201
    assert client.get("/v1/images/7").json()["metadata"] == {"album": "a"}
    hits = post_form(client, "/v1/search", image_part(picture(2))).json()["hits"]
    assert hits[0]["image_id"] == third["image_id"]


def test_a_batch_with_a_key_is_added_once(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "a batch"}
    pictures = [picture(1), picture(2)]
    first = add_many(client, pictures, headers=headers).json()["items"]
    again = add_many(client, pictures, headers=headers).json()["items"]
    assert [row["image_id"] for row in first] == [row["image_id"] for row in again]
    assert [row["status"] for row in (*first, *again)] == [201, 201, 200, 200]
    assert client.get("/v1/images").json()["total"] == 2
    other = add_many(client, [picture(3), picture(2)], headers=headers).json()["items"]
    assert [row["status"] for row in other] == [422, 200]


def test_a_batch_is_added_in_order_and_together(client: httpx.Client) -> None:
    head = head_of(client)
    items = [{"image_id": 5}, {"image_id": 5}, {}, {"image_id": 5}]
    pictures = [picture(1), picture(2), b"no picture", picture(2)]
    rows = add_many(client, pictures, items).json()["items"]
    assert [row["status"] for row in rows] == [201, 200, 415, 200]
    assert [row["seq"] for row in rows if "seq" in row][:2] == [head + 1, head + 2]
    assert client.get("/v1/images").json()["total"] == 1
    again = add_many(client, [picture(2), picture(3)], [{"image_id": 5}, {}]).json()["items"]
    assert [row["status"] for row in again] == [200, 201]


def test_of_two_copies_in_a_batch_one_is_added(client: httpx.Client) -> None:
    head = head_of(client)
    pictures = [picture(1), mirrored(1), b"no picture", resized(1), picture(2)]
    headers = {"Idempotency-Key": "copies"}
    answer = add_many(client, pictures, params={"unless": "same"}, headers=headers)
    rows = answer.json()["items"]
    assert [row["status"] for row in rows] == [201, 409, 415, 409, 201]
    first = rows[0]["image_id"]
    assert [row["problem"]["image_id"] for row in (rows[1], rows[3])] == [first, first]
    assert [row["seq"] for row in (rows[0], rows[4])] == [head + 1, head + 2]
    assert client.get("/v1/images").json()["total"] == 2
    again = add_many(client, pictures, params={"unless": "same"}, headers=headers).json()["items"]
    assert [row["status"] for row in again] == [200, 409, 415, 409, 200]
    assert head_of(client) == head + 2


def test_of_a_batch_what_was_deleted_to_stay_away_is_refused_and_the_rest_is_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"lmdb:{tmp_path / 'store'}"
    args = IngressArgs(store=store, import_check=ImportCheckArgs(adds=True))
    gateway, sizes = Gateway(args, "ambience"), list[int]()
    gateway.directory.complete = True
    with served.ended():
        handle = served.serve_here("phash", {"extractor": "phash", "store": store})

        async def meet() -> None:
            await served.until(handle, "ready")
            await served.join(gateway, "phash", handle)

        asyncio.run(meet())
        client = TestClient(make_app(gateway), "http://localhost")
        client.put("/v1/images/7", files=[image_part(picture(1))]).raise_for_status()
        client.delete("/v1/images/7?remember=true").raise_for_status()
        real = gateway.store.put_many

        def counted(writes: Sequence[ImageWrite]) -> list[Receipt]:
            sizes.append(len(writes))
            return real(writes)

        monkeypatch.setattr(gateway.store, "put_many", counted)
        parts = [image_part(one) for one in (picture(2), mirrored(1), picture(2))]
        rows = client.post("/v1/images:batch", files=parts).json()["items"]
    gateway.close()
    assert [row["status"] for row in rows] == [201, 409, 201]
    assert rows[1]["problem"]["title"] == "Banned picture"
    assert sizes == [2]


@pytest.mark.parametrize(
    ("count", "items", "field", "says"),
    [
        (0, None, "image", "send 1 to 100 pictures, not 0"),
        (101, None, "image", "send 1 to 100 pictures, not 101"),
        (1, "{", "items", "not JSON"),
        (1, [{}, {}], "items", "2 for 1 pictures"),
        (1, [{"image_id": -1}], "0.image_id", "greater than or equal to 0"),
        (1, [{"id": 1}], "0.id", "Extra inputs"),
    ],
)
def test_a_batch_that_is_none_is_refused_by_field(
    client: httpx.Client, count: int, items: Any, field: str, says: str
) -> None:
    answer = add_many(client, [picture(1)] * count, items or ("" if not count else None))
    problem = problem_of(answer, 400)
    assert problem["field"] == field
    assert says in problem["detail"]


def test_many_are_deleted_at_once(client: httpx.Client) -> None:
    add_many(client, [picture(1), picture(2)], [{"image_id": 1}, {"image_id": 2}])
    answer = client.post("/v1/images:delete", json={"ids": [2, 5, 2]})
    assert answer.json() == {"deleted": [2], "unknown": [5]}
    assert [row["image_id"] for row in client.get("/v1/images").json()["images"]] == [1]
    for wrong in ({}, {"ids": []}, {"ids": [-1]}, {"ids": list(range(1001))}, {"ids": "1"}):
        assert "ids" in problem_of(client.post("/v1/images:delete", json=wrong), 400)["field"]


def test_changes_tell_adds_deletes_and_annotations_in_order(client: httpx.Client) -> None:
    start = head_of(client)
    items = [{"image_id": number} for number in (1, 2, 3)]
    for number, item in zip((1, 2, 3), items, strict=True):
        add_many(client, [picture(number)], [item])
    client.delete("/v1/images/2")
    edit = {"annotations": {"note": {"text": "a hill"}}}
    client.patch("/v1/images/1", json=edit)
    told = changes(client, start)
    assert [(row["image_id"], row["deleted"]) for row in told["changes"]] == [
        (3, False),
        (2, True),
        (1, False),
    ]
    assert told["changes"][2]["image"]["annotations"]["note"]["text"] == "a hill"
    assert "image" not in told["changes"][1]
    nothing = {"changes": [], "head": told["head"]}
    assert changes(client, told["head"]) == nothing
    assert client.get("/v1/changes").json() == nothing
    seen, after = [], start
    while (page := changes(client, after, limit=1))["changes"]:
        seen += [row["image_id"] for row in page["changes"]]
        after = page["head"]
    assert set(seen) == {1, 2, 3}
    assert after == told["head"]


def test_a_question_can_wait_for_a_change(client: httpx.Client) -> None:
    head = head_of(client)
    began = time.monotonic()
    assert changes(client, head, wait=0.5)["changes"] == []
    assert time.monotonic() - began >= 0.5
    adding = threading.Timer(
        0.5, lambda: client.put("/v1/images/9", files=[image_part(picture(9))])
    )
    adding.start()
    told = changes(client, head, wait=25)
    adding.join()
    assert [row["image_id"] for row in told["changes"]] == [9]


def test_a_place_that_the_log_does_not_reach_is_gone(client: httpx.Client) -> None:
    problem = problem_of(client.get("/v1/changes", params={"after": 2**61}), 410)
    assert problem["title"] == "Changes gone"
    assert problem["field"] == "after"


def test_a_consumer_keeps_the_log(client: httpx.Client, service: Service) -> None:
    head = head_of(client)
    kept = {"consumer": "my-gallery", "after": head}
    assert client.post("/v1/changes:keep", json=kept).status_code == 204
    store = open_store(f"lmdb:{service.data / 'store'}")
    try:
        assert store.marks()["changes:my-gallery"] == head
    finally:
        store.close()
    for field, wrong in (("consumer", "a b"), ("consumer", ""), ("after", -1), ("after", None)):
        answer = client.post("/v1/changes:keep", json={**kept, field: wrong})
        assert problem_of(answer, 400)["field"] == field


def test_a_page_of_another_site_keeps_no_log(client: httpx.Client) -> None:
    kept = {"consumer": "evil", "after": 0}
    foreign = {"Origin": "https://evil.example"}
    assert client.post("/v1/changes:keep", json=kept, headers=foreign).status_code == 403
    question = client.get("/v1/changes", params={"consumer": "evil"})
    assert problem_of(question, 400)["field"] == "consumer"
