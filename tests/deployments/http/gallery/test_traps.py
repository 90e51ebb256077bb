"""Situations in which the gallery's client would fail if a route handled them differently."""

from __future__ import annotations

import json
import time

import httpx
import psutil
import pytest

from deployments.directory.entry import DirectoryEntry
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from tests.conftest import Service, wait_all_ready
from tests.deployments.http.gallery.test_services import (
    RESULT_KEYS,
    VERIFIED,
    calculate,
    calculate_all,
    find_duplicates,
    reverse_search,
    similar,
)
from tests.deployments.pictures import (
    ids,
    image_part,
    picture,
    post_form,
    problem_of,
    put,
    resized,
    sideways,
)

DEADLINE_SECONDS = 30


def test_a_reverse_search_has_no_keys_but_the_known_and_no_empty_ones(
    client: httpx.Client,
) -> None:
    assert reverse_search(client, picture(1)) == {}
    put(client, 1, picture(1))
    found = reverse_search(client, picture(1))
    assert found.keys() <= RESULT_KEYS
    assert all(isinstance(rows, list) and rows for rows in found.values())


def test_timings_and_missing_retrievers_travel_in_headers(client: httpx.Client) -> None:
    put(client, 1, picture(1))
    answer = post_form(client, "/reverse_search", image_part(picture(1)))
    assert answer.headers["x-ambience-answered"] == "color,local,phash"
    missing = answer.headers["x-ambience-missing"]
    assert 'global;reason="not deployed"' in missing
    assert 'image_text;reason="not deployed"' in missing
    assert "phash;dur=" in answer.headers["server-timing"]


def test_fewer_images_than_k_give_fewer_rows_and_never_an_id_of_minus_one(
    client: httpx.Client,
) -> None:
    put(client, 1, picture(1))
    put(client, 2, picture(2))
    for service in ("phash", "color", "local_features"):
        rows = similar(client, service, picture(1), k=100).json()
        assert 1 <= len(rows) <= 2
        assert set(ids(rows)) <= {1, 2}


def test_an_empty_collection_gives_empty_lists(client: httpx.Client) -> None:
    for service in ("phash", "color", "local_features"):
        assert similar(client, service, picture(1), k=100).json() == []


def test_a_recycled_id_finds_the_new_picture_only(client: httpx.Client) -> None:
    calculate_all(client, 7, picture(1))
    assert client.post("/delete_all_image_features", json={"image_id": 7}).status_code == 200
    calculate_all(client, 7, picture(2))
    assert find_duplicates(client, picture(1)).json() == {}
    assert ids(find_duplicates(client, picture(2)).json()["duplicate"]) == [7]
    assert similar(client, "phash", picture(1), distance_threshold=64).json() == []
    assert similar(client, "color", picture(2), k=1).json() == [{"image_id": 7, "distance": 0}]
    (row,) = similar(client, "local_features", picture(2), k=1).json()
    assert row["image_id"] == 7
    assert similar(client, "local_features", picture(1), **VERIFIED).json() == []


def test_ids_recycled_again_and_again_never_show_an_older_picture(client: httpx.Client) -> None:
    for seed in range(6):
        calculate_all(client, 7, picture(seed))
        assert similar(client, "color", picture(seed), k=5).json() == [
            {"image_id": 7, "distance": 0}
        ]
        client.post("/delete_all_image_features", json={"image_id": 7})
        assert similar(client, "color", picture(seed), k=5).json() == []


def test_a_picture_before_its_exif_rotation_is_a_duplicate_of_it_after(
    client: httpx.Client,
) -> None:
    put(client, 1, picture(1))
    (duplicate,) = find_duplicates(client, sideways(1)).json()["duplicate"]
    assert duplicate["image_id"] == 1
    # This route tries no symmetries of the picture, so only its EXIF orientation can make it match.
    (row,) = similar(client, "phash", sideways(1), distance_threshold=64).json()
    assert row | {"why": "same"} == duplicate


def test_a_picture_added_sideways_is_found_upright(client: httpx.Client) -> None:
    put(client, 1, sideways(1))
    assert ids(similar(client, "phash", picture(1), distance_threshold=64).json()) == [1]
    image = client.get("/v1/images/1").json()
    assert (image["width"], image["height"]) == (640, 480)


def test_adds_and_deletes_reach_the_local_features(client: httpx.Client) -> None:
    calculate_all(client, 1, picture(1))
    assert ids(similar(client, "local_features", picture(1), k=5).json()) == [1]
    client.post("/delete_all_image_features", json={"image_id": 1})
    assert similar(client, "local_features", picture(1), k=5).json() == []


def test_the_array_of_a_delete_comes_after_it_is_complete(client: httpx.Client) -> None:
    for image_id in range(5):
        calculate_all(client, image_id, picture(image_id))
    for image_id in range(5):
        answer = client.post("/delete_all_image_features", json={"image_id": image_id})
        assert {row["status"] for row in answer.json()} == {"fulfilled"}
        assert client.get(f"/v1/images/{image_id}").status_code == 404
        assert find_duplicates(client, picture(image_id)).json() == {}


def test_a_delete_that_is_refused_sends_no_array(client: httpx.Client) -> None:
    for image_id in (None, "x", -1, 2**47):
        answer = client.post("/delete_all_image_features", json={"image_id": image_id})
        assert isinstance(problem_of(answer, 400), dict)


def test_calculate_all_of_a_known_id_with_other_content_replaces(client: httpx.Client) -> None:
    calculate_all(client, 7, picture(1))
    answer = calculate_all(client, 7, picture(2))
    assert {row["status"] for row in answer.json()} == {"fulfilled"}
    assert find_duplicates(client, picture(1)).json() == {}
    assert ids(find_duplicates(client, picture(2)).json()["duplicate"]) == [7]


def test_calculate_all_of_a_known_id_with_the_same_content_writes_nothing(
    client: httpx.Client,
) -> None:
    calculate_all(client, 7, picture(1))
    before = client.get("/v1/images/7").json()
    seq = put(client, 8, picture(2))["seq"]
    answer = calculate_all(client, 7, picture(1))
    assert answer.status_code == 200
    assert {row["status"] for row in answer.json()} == {"fulfilled"}
    assert client.get("/v1/images/7").json() == before
    assert put(client, 9, picture(3))["seq"] == seq + 1


def test_calculate_all_after_one_service_adds_what_is_missing(client: httpx.Client) -> None:
    calculate(client, "phash", 7, picture(1))
    calculate_all(client, 7, picture(1))
    assert sorted(client.get("/v1/images/7").json()["retrievers"]) == ["color", "local", "phash"]


@pytest.mark.parametrize(
    "quoted", [json.dumps({"image_id": "5", "k": "100"}), '{"image_id":5,"k":100}']
)
def test_numbers_arrive_as_numbers_or_strings(client: httpx.Client, quoted: str) -> None:
    put(client, 5, picture(5))
    answer = client.post(
        "/color_get_similar_images_by_id",
        content=quoted,
        headers={"content-type": "application/json"},
    )
    assert answer.json() == [{"image_id": 5, "distance": 0}]


def test_a_file_part_of_any_content_type_is_taken(client: httpx.Client) -> None:
    for kind in ("application/octet-stream", "image/jpeg", "text/plain"):
        part = ("image", ("document", picture(1), kind))
        assert client.post("/reverse_search", files=[part]).status_code == 200


def test_the_import_check_never_says_no_duplicate_while_phash_is_gone(service: Service) -> None:
    with service.client() as client:
        put(client, 1, picture(1))
        _kill_replica(service, "phash")
        began = time.monotonic()
        answer = find_duplicates(client, resized(1))
        took = time.monotonic() - began
    wait_all_ready(service)
    if answer.status_code == 200:
        assert ids(answer.json()["duplicate"]) == [1]
    else:
        problem_of(answer, 503)
        assert took > DEADLINE_SECONDS - 2
    assert took < DEADLINE_SECONDS + 5


@pytest.mark.anyio
async def test_the_import_check_waits_for_phash_and_then_answers_503(gateway: Gateway) -> None:
    began = time.monotonic()
    answer = await _check(gateway)
    assert problem_of(answer, 503)["detail"] == "phash: not deployed"
    assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - began >= gateway.args.deadline


@pytest.mark.anyio
async def test_the_import_check_may_be_told_to_block_instead(gateway: Gateway) -> None:
    gateway.args = gateway.args.model_copy(update={"import_check_unavailable": "block"})
    answer = await _check(gateway)
    assert answer.status_code == 200
    assert answer.json() == {"duplicate": []}


@pytest.mark.anyio
async def test_every_url_of_a_settled_array_is_one_of_a_route(gateway: Gateway) -> None:
    for name in ("phash", "local", "copy", "text"):
        gateway.directory._entries[name] = DirectoryEntry(name)
    async with _client(gateway) as http:
        rows = (await http.post("/delete_all_image_features", json={"image_id": 7})).json()
        assert len(rows) == 4
        for row in rows:
            assert (await http.options(row["url"])).status_code == 405, row["url"]


@pytest.mark.anyio
async def test_an_add_before_any_retriever_is_known_is_not_acknowledged(gateway: Gateway) -> None:
    parts = [image_part(picture(1)), ("image_id", (None, "7"))]
    async with _client(gateway) as client:
        answer = await client.post("/calculate_all_image_features", files=parts)
    problem_of(answer, 503)
    assert gateway.store.count() == 0


def _client(gateway: Gateway) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(make_app(gateway))
    return httpx.AsyncClient(transport=transport, base_url="http://ambience")


async def _check(gateway: Gateway) -> httpx.Response:
    parts = [("find_duplicate", (None, "1")), image_part(picture(1))]
    async with _client(gateway) as client:
        return await client.post("/reverse_search", files=parts)


def _kill_replica(service: Service, application: str) -> None:
    """Kill the only replica with SIGKILL, as the kernel does when memory runs out."""
    replicas = [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"ServeReplica:{application}:" in " ".join(process.info["cmdline"] or ())
        and process.environ().get("AMBIENCE_DATA") == str(service.data)
    ]
    assert len(replicas) == 1
    replicas[0].kill()
