"""/v1/retrievers, the search of one retriever, and queries refused with the field's name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import Service
from tests.deployments.conftest import ALL
from tests.deployments.http.test_v1_search import ask, hits_of, search
from tests.deployments.pictures import field_part, ids, image_part, picture, post_form, problem_of
from tests.drawing import encoded, scene


def test_every_retriever_says_how_it_stands(library: httpx.Client) -> None:
    hits_of(search(library, picture(1)))
    rows = library.get("/v1/retrievers").json()["retrievers"]
    rows = [row for row in rows if row["kind"] == "retriever"]
    assert [row["name"] for row in rows] == ["color", "local", "phash"]
    for row in rows:
        assert row["kind"] == "retriever"
        assert row["state"] == "ready"
        assert row["count"] == len(ALL)
        assert row["bytes"] > 0
        assert row["applied_seq"] > 0
        assert len(row["fingerprint"]) == 16
    assert rows[2]["index"] == "binary-flat"


def test_k_bounds_the_hits(library: httpx.Client) -> None:
    for name in ("phash", "color"):
        hits = hits_of(ask(library, name, image_id=1, k=3))
        assert (hits[0]["image_id"], hits[0]["distance"]) == (1, 0)
        distances = [hit["distance"] for hit in hits]
        assert len(hits) == 3
        assert distances == sorted(distances)


def test_a_threshold_bounds_the_distance(library: httpx.Client) -> None:
    far = hits_of(ask(library, "color", image_id=1, k=10))[4]["distance"]
    hits = hits_of(ask(library, "color", image_id=1, distance_threshold=far))
    assert len(hits) == 4
    assert all(hit["distance"] < far for hit in hits)


@pytest.mark.parametrize("k", ["4", "4.0", " 4 "])
def test_numbers_of_a_form_may_be_written_in_any_way(library: httpx.Client, k: str) -> None:
    answer = ask(library, "color", image_part(picture(1)), field_part("k", k))
    assert len(hits_of(answer)) == 4


def test_one_retrievers_pages_follow_each_other(library: httpx.Client) -> None:
    whole = ids(hits_of(ask(library, "color", image_id=1, k=10)))
    first = ask(library, "color", image_id=1, k=6).json()
    second = ask(library, "color", image_id=1, k=6, cursor=first["next_cursor"]).json()
    assert ids(first["hits"]) + ids(second["hits"]) == whole
    assert second["next_cursor"] is None


def test_turned_pictures_are_found_under_dihedral_variants(library: httpx.Client) -> None:
    turned = image_part(encoded(scene(4).rotate(90, expand=True)))
    within = field_part("distance_threshold", 64)
    assert hits_of(ask(library, "phash", turned, within)) == []
    found = ask(library, "phash", turned, within, field_part("variants", "dihedral"))
    assert ids(hits_of(found)) == [4]


def test_local_hits_explain_themselves(library: httpx.Client) -> None:
    parts = [image_part(picture(4)), field_part("k", 3), field_part("explain", "true")]
    best = hits_of(ask(library, "local", *parts))[0]
    assert best["image_id"] == 4
    assert best["inliers"] == len(best["points"]) > 20
    assert len(best["homography"]) == 3


@pytest.mark.parametrize(
    ("name", "query", "field"),
    [
        ("phash", {"k": 0}, "k"),
        ("phash", {"k": 10_001}, "k"),
        ("phash", {"k": "x"}, "k"),
        ("phash", {"k": 1, "nonsense": 1}, "nonsense"),
        ("color", {"k": 1, "aqe_n": 3}, "aqe_n"),
        ("color", {"distance_threshold": -1}, "distance_threshold"),
        ("phash", {"k": 1, "variants": "upside down"}, "variants"),
        ("phash", {"k": 1, "filter": {"colour": "red"}}, "filter.colour"),
        ("phash", {"k": 1, "cursor": "nonsense"}, "cursor"),
        ("phash", {"k": 1, "min_seq": -1}, "min_seq"),
        ("local", {"k": 1, "use_ransac": "perhaps"}, "use_ransac"),
        ("local", {"k": 1, "k_clusters": 0}, "k_clusters"),
    ],
)
def test_a_parameter_at_fault_is_named(
    library: httpx.Client, name: str, query: dict[str, Any], field: str
) -> None:
    body = problem_of(ask(library, name, image_id=1, **query), 400)
    assert body["field"] == field
    assert field.rsplit(".", 1)[-1] in body["detail"]


def test_a_distance_search_without_any_bound_is_refused(library: httpx.Client) -> None:
    detail = problem_of(ask(library, "phash", image_id=1), 400)["detail"]
    assert "k or distance_threshold" in detail


@pytest.mark.parametrize("name", ["filter", "region"])
def test_json_in_a_form_field_that_is_no_json_is_named(library: httpx.Client, name: str) -> None:
    parts = [image_part(picture(1)), field_part("k", 1), field_part(name, "{not json")]
    for path in ("/v1/search", "/v1/retrievers/phash/search"):
        assert problem_of(post_form(library, path, *parts), 400)["field"] == name


def test_either_an_image_or_an_image_id_is_given(library: httpx.Client) -> None:
    both = ask(library, "phash", image_part(picture(1)), field_part("image_id", 1))
    for answer in (both, ask(library, "phash", k=1)):
        assert problem_of(answer, 400)["field"] == "image"


def test_an_unknown_retriever_is_answered_with_the_known(library: httpx.Client) -> None:
    for answer in (
        ask(library, "nonsense", image_id=1, k=1),
        search(library, picture(1), retrievers={"nonsense": 1}),
    ):
        detail = problem_of(answer, 404)["detail"]
        assert "nonsense" in detail
        assert "color, local, phash" in detail


def test_an_unknown_image_is_not_found(library: httpx.Client) -> None:
    assert problem_of(ask(library, "phash", image_id=999, k=1), 404)["field"] == "image_id"
    answer = library.post("/v1/search", json={"image_ids": [999]})
    assert problem_of(answer, 404)["field"] == "image_ids"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 1001}, "k"),
        ({"k": None}, "k"),
        ({"nonsense": 1}, "nonsense"),
        ({"image_ids": [-1]}, "image_ids.0"),
        ({"image_ids": [2**47]}, "image_ids.0"),
        ({"image_ids": list(range(17))}, "image_ids"),
        ({"retrievers": {}}, "retrievers"),
        ({"retrievers": {"phash": -1}}, "retrievers.phash"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"filter": {"ids": ["x"]}}, "filter.ids.0"),
        ({"negative": {"image_ids": "x"}}, "negative.image_ids"),
        ({"text": "a cat"}, "text"),
        ({"negative": {"text": "a cat"}}, "text"),
        ({"region": [0, 0, 10, 10], "image_ids": [1]}, "region"),
        ({}, "image"),
    ],
)
def test_a_query_at_fault_is_refused_with_its_field(
    library: httpx.Client, query: dict[str, Any], field: str
) -> None:
    asked = {"image_ids": [1]} | query if query and "region" not in query else query
    assert problem_of(library.post("/v1/search", json=asked), 400)["field"] == field


@pytest.mark.parametrize("body", ["{", "[]", "1", '"x"', "", "{'a': 1}", '{"k": NaN}'])
def test_a_body_that_is_no_json_object_is_refused(library: httpx.Client, body: str) -> None:
    headers = {"content-type": "application/json"}
    problem_of(library.post("/v1/search", content=body, headers=headers), 400)


@pytest.mark.parametrize("query", ["{", "[]", "1", "NaN"])
def test_a_query_field_that_is_no_json_object_is_named(library: httpx.Client, query: str) -> None:
    answer = post_form(library, "/v1/search", image_part(picture(1)), field_part("query", query))
    assert problem_of(answer, 400)["field"] == "query"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing/here", 404), ("PATCH", "/v1/images", 405), ("GET", "/v1/search", 405)],
)
def test_an_unknown_route_is_a_problem_too(
    library: httpx.Client, method: str, path: str, status: int
) -> None:
    problem_of(library.request(method, path), status)


def test_many_searches_at_once_answer_as_one_by_one(library: httpx.Client) -> None:
    def found(number: int) -> list[dict[str, Any]]:
        return hits_of(search(library, picture(number % 10), k=5))

    alone = [found(number) for number in range(10)]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(found, range(24)))
    assert together == [alone[number % 10] for number in range(24)]


def test_a_search_is_answered_while_pictures_are_added(service: Service) -> None:
    def add(number: int) -> int:
        with service.client() as client:
            return client.put(
                f"/v1/images/{number}", files=[image_part(picture(number % 5))]
            ).status_code

    with service.client() as client, ThreadPoolExecutor(4) as threads:
        adding = [threads.submit(add, number) for number in range(20)]
        while not all(one.done() for one in adding):
            hits_of(search(client, picture(1), k=3))
        assert {one.result() for one in adding} == {201}
