"""`?unless=same`: adds that a stored copy refuses, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from deployments.ingress.copies import add_check
from deployments.ingress.gateway import Gateway
from deployments.ingress.report import Report
from models.errors import Unavailable
from tests.conftest import Service
from tests.deployments.pictures import image_part, mirrored, picture, problem_of, put, resized
from tests.drawing import encoded, scene

UNLESS_SAME = {"unless": "same"}


def add(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/v1/images", params=UNLESS_SAME, files=[image_part(data)])


def test_a_copy_is_refused_and_the_answer_names_the_image(client: httpx.Client) -> None:
    put(client, 7, picture(3))
    for copy in (picture(3), mirrored(3), resized(3)):
        problem = problem_of(add(client, copy), 409)
        assert problem["image_id"] == 7
        assert "image 7" in problem["detail"]
        assert problem["field"] == "image"
    added = add(client, picture(4))
    assert added.status_code == 201
    assert len(client.get("/v1/images").json()["images"]) == 2


def test_an_image_may_be_replaced_by_a_copy_of_itself(client: httpx.Client) -> None:
    put(client, 7, picture(3))
    again = client.put("/v1/images/7", params=UNLESS_SAME, files=[image_part(resized(3))])
    assert again.status_code == 200
    other = client.put("/v1/images/8", params=UNLESS_SAME, files=[image_part(picture(3))])
    assert problem_of(other, 409)["image_id"] == 7


def test_after_a_delete_the_picture_is_taken_again(client: httpx.Client) -> None:
    first = add(client, picture(3)).json()["image_id"]
    client.delete(f"/v1/images/{first}").raise_for_status()
    assert add(client, mirrored(3)).status_code == 201


def test_of_eight_copies_that_are_added_at_once_one_is_taken(
    service: Service, client: httpx.Client
) -> None:
    for seed in range(5):
        copies = [encoded(scene(seed), quality=quality) for quality in range(60, 100, 5)]
        with ThreadPoolExecutor(8) as threads:
            clients = [service.client() for _ in copies]
            answers = list(threads.map(add, clients, copies))
        taken = [answer.json()["image_id"] for answer in answers if answer.status_code == 201]
        assert len(taken) == 1, [answer.status_code for answer in answers]
        refused = [answer for answer in answers if answer.status_code != 201]
        assert {problem_of(answer, 409)["image_id"] for answer in refused} == set(taken)
    assert len(client.get("/v1/images").json()["images"]) == 5


def test_another_condition_is_refused_by_name(client: httpx.Client) -> None:
    answer = client.post("/v1/images", params={"unless": "alike"}, files=[image_part(picture(3))])
    assert problem_of(answer, 400)["field"] == "unless"


@pytest.mark.anyio
async def test_without_phash_nobody_knows_whether_it_is_a_copy(gateway: Gateway) -> None:
    with pytest.raises(Unavailable, match="phash"):
        await add_check(gateway, None, b"", Report(), unless_same=True)
