"""HEAD, entity tags and conditional requests over HTTP, as caches and clients use them."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from tests.conftest import Service
from tests.deployments.pictures import image_part, picture, problem_of, put


@pytest.mark.parametrize("path", ["/", "/v1/images", "/v1/images/3", "/v1/images/3/thumbnail"])
def test_head_answers_as_get_without_a_body(library: httpx.Client, path: str) -> None:
    get, head = library.get(path), library.head(path)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length", "etag"):
        assert head.headers.get(name) == get.headers.get(name), name


def test_head_of_what_is_not_there_has_the_status_of_get(library: httpx.Client) -> None:
    assert library.head("/v1/images/12345").status_code == 404
    assert library.head("/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/v1/images/3", "/v1/images/3/thumbnail"])
def test_what_a_client_has_already_is_not_sent_again(library: httpx.Client, path: str) -> None:
    etag = library.get(path).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = library.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert again.headers["cache-control"] == "no-cache"
    assert library.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_replaced_image_has_another_tag(client: httpx.Client) -> None:
    for path in ("/v1/images/7", "/v1/images/7/thumbnail"):
        put(client, 7, picture(1))
        etag = client.get(path).headers["etag"]
        put(client, 7, picture(2))
        changed = client.get(path, headers={"If-None-Match": etag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != etag


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/images", "after"),
        ("GET", "/v1/images/3", "fields"),
        ("GET", "/v1/retrievers", "name"),
        ("POST", "/v1/search", "k"),
        ("DELETE", "/v1/images/77", "force"),
    ],
)
def test_an_unknown_query_parameter_is_refused_by_name(
    library: httpx.Client, method: str, path: str, name: str
) -> None:
    problem = problem_of(library.request(method, path, params={name: "5"}), 400)
    assert problem["field"] == name
    assert "no such query parameter" in problem["detail"]


def edit(client: httpx.Client, image_id: int, text: str, **headers: str) -> httpx.Response:
    """Write a caption as a person, under these headers."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"annotations": {"caption": {"text": text}}}
    return client.patch(f"/v1/images/{image_id}", json=body, headers=shown)


def test_a_write_of_an_image_that_has_changed_since_it_was_read_is_refused(
    client: httpx.Client,
) -> None:
    put(client, 7, picture(1))
    etag = client.get("/v1/images/7").headers["etag"]
    edit(client, 7, "edited by another").raise_for_status()
    stale = {"If-Match": etag}
    problem_of(edit(client, 7, "mine", If_Match=etag), 412)
    problem_of(client.delete("/v1/images/7", headers=stale), 412)
    again = client.put("/v1/images/7", files=[image_part(picture(2))], headers=stale)
    problem_of(again, 412)
    image = client.get("/v1/images/7").json()
    assert image["annotations"]["caption"]["text"] == "edited by another"
    fresh = client.get("/v1/images/7").headers["etag"]
    assert edit(client, 7, "mine", If_Match=f'"0-other", {fresh}').status_code == 200
    fresh = client.get("/v1/images/7").headers["etag"]
    assert client.delete("/v1/images/7", headers={"If-Match": fresh}).status_code == 204


def test_of_concurrent_edits_of_one_version_one_succeeds(
    service: Service, client: httpx.Client
) -> None:
    put(client, 7, picture(1))
    for turn in range(5):
        etag = client.get("/v1/images/7").headers["etag"]
        edits = [
            partial(edit, service.client(), 7, f"{turn}, {at}", If_Match=etag) for at in range(8)
        ]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda send: send(), edits))
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


def test_a_write_may_expect_that_there_is_an_image_or_that_there_is_none(
    client: httpx.Client,
) -> None:
    part = [image_part(picture(1))]
    problem_of(client.put("/v1/images/7", files=part, headers={"If-Match": "*"}), 412)
    created = client.put("/v1/images/7", files=part, headers={"If-None-Match": "*"})
    assert created.status_code == 201
    problem_of(client.put("/v1/images/7", files=part, headers={"If-None-Match": "*"}), 412)
    assert client.put("/v1/images/7", files=part, headers={"If-Match": "*"}).status_code == 200
    odd = client.put("/v1/images/7", files=part, headers={"If-None-Match": '"1-a"'})
    assert problem_of(odd, 400)["field"] == "If-None-Match"


def test_a_repeated_add_with_its_key_adds_the_picture_once(client: httpx.Client) -> None:
    key = {"Idempotency-Key": f"import {uuid.uuid4()}"}
    part = [image_part(picture(1))]
    first = client.post("/v1/images", files=part, headers=key)
    assert first.status_code == 201
    for params in ({}, {"unless": "same"}):
        again = client.post("/v1/images", files=part, headers=key, params=params)
        assert again.status_code == 200
        assert again.json() == first.json()
    other = client.post("/v1/images", files=[image_part(picture(2))], headers=key)
    assert problem_of(other, 422)["field"] == "Idempotency-Key"
    assert client.get("/v1/images").json()["total"] == 1
    assert client.post("/v1/images", files=part).status_code == 201


def test_adds_with_one_key_at_once_add_one_picture(service: Service, client: httpx.Client) -> None:
    key = {"Idempotency-Key": f"import {uuid.uuid4()}"}
    clients = [service.client() for _ in range(8)]

    def add(one: httpx.Client) -> int:
        answer = one.post("/v1/images", files=[image_part(picture(1))], headers=key)
        answer.raise_for_status()
        return int(answer.json()["image_id"])

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(add, clients))) == 1
    assert client.get("/v1/images").json()["total"] == 1


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/*"])
def test_a_picture_may_be_the_whole_body(client: httpx.Client, kind: str) -> None:
    headers = {"Content-Type": kind}
    added = client.put("/v1/images/7", content=picture(1), headers=headers)
    assert added.status_code == 201
    found = client.post("/v1/search", content=picture(1), headers=headers).json()
    assert [hit["image_id"] for hit in found["hits"]] == [7]
    problem_of(client.post("/v1/search", content=b"no picture", headers=headers), 415)


def test_a_list_has_its_total_and_takes_conditions(library: httpx.Client) -> None:
    def listed(**params: str | int | list[str]) -> tuple[list[int], int]:
        answer = library.get("/v1/images", params=params).raise_for_status().json()
        return [image["image_id"] for image in answer["images"]], answer["total"]

    assert listed(limit=3) == ([0, 1, 2], 10)
    assert listed(tag="even", limit=2) == ([0, 2], 5)
    assert listed(tag="even", cursor=2) == ([4, 6, 8], 5)
    assert listed(tag=["even", "all"], metadata='{"mod": 0}') == ([0, 6], 2)
    assert listed(tag="unknown") == ([], 0)
    assert listed(file_name="3.online") == ([3], 1)
    assert listed(added_after="2001-01-01", limit=2) == ([0, 1], 10)
    assert listed(added_after="2101-01-01") == ([], 0)
    assert problem_of(library.get("/v1/images?added_after=now"), 400)["field"] == "added_after"
    assert problem_of(library.get("/v1/images?metadata=7"), 400)["field"] == "metadata"
