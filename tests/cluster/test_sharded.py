"""A retriever that is split, split in another way, and joined again while requests come in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.test_upgrades import Load, deploy, replicas, states
from tests.conftest import Service, light_config, wait_all_ready
from tests.drawing import jpeg

PICTURES = 12


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def split(folder: Path, deployments: dict[str, list[dict[str, Any]]], **shards: int) -> Path:
    """The light configuration with so many shards of these retrievers."""
    config = yaml.safe_load(light_config().read_text())
    for application in config["applications"]:
        name = application["name"]
        if name in shards:
            application["args"]["shards"] = shards[name]
            application["deployments"] = deployments.get(name, [])
    path = folder / f"{shards}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def answers(client: httpx.Client) -> list[Any]:
    """What each retriever says of some queries, by picture and by id."""
    found = []
    for name, asked in {
        "color": {"k": "4"},
        "phash": {"distance_threshold": "250", "k": "7", "mirrored": "true"},
        "local": {"k": "5"},
    }.items():
        url = f"/v1/retrievers/{name}/search"
        picture = client.post(url, files={"image": jpeg(3, 320, 240)}, data=asked)
        stored = client.post(url, json={"image_id": 5, "k": 3})
        found += [picture.raise_for_status().json(), stored.raise_for_status().json()]
    cursor = found[0]["next_cursor"]
    picture = {"image": jpeg(3, 320, 240)}
    page = client.post(
        "/v1/retrievers/color/search", files=picture, data={"k": "4", "cursor": cursor}
    )
    return [*found, page.raise_for_status().json()]


@pytest.fixture
def filled(service: Service, client: httpx.Client) -> Iterator[Service]:
    for seed in range(PICTURES):
        body = jpeg(seed, 320, 240)
        client.put(f"/v1/images/{seed}", files={"image": body}).raise_for_status()
    yield service
    deploy(service, light_config())
    wait_all_ready(service)
    wait_for(lambda: "shards" not in states(client)["color"])


def test_the_number_of_shards_changes_under_load_and_every_answer_is_whole(
    filled: Service, client: httpx.Client, tmp_path: Path
) -> None:
    truth = answers(client)
    ingress = set(replicas(filled, "ambience"))
    with Load(filled) as load:
        load.wait_for(20)
        expected = load.answers[0]
        for shards in (3, 2, 1):
            deploy(filled, split(tmp_path, {}, color=shards, local=shards))
            seen = len(load.answers)
            wait_for(lambda: states(client)["color"].get("shards", 1) == shards)  # noqa: B023
            assert answers(client) == truth
            load.wait_for(seen + 20)
            assert states(client)["color"]["count"] == PICTURES
            assert client.put("/v1/images/99", files={"image": jpeg(99)}).status_code == 201
            assert client.delete("/v1/images/99").status_code == 204
    assert load.failed == []
    assert {missing for _, missing, _ in load.answers} == {""}
    added = [ids for _, _, ids in load.answers if 99 not in ids]
    assert {tuple(ids) for ids in added} == {tuple(expected[2])}
    assert set(replicas(filled, "ambience")) == ingress


def test_a_shard_that_is_away_costs_its_own_pictures_only(
    filled: Service, client: httpx.Client, tmp_path: Path
) -> None:
    shard = [{"name": "Retriever-1-of-2", "num_replicas": 2}]
    deploy(filled, split(tmp_path, {"color": shard}, color=2))
    wait_for(lambda: states(client)["color"].get("shards", 1) == 2)
    found = replicas(filled, "color")
    single = [p for p in found.values() if "Retriever-0-of-2" in " ".join(p.cmdline())]
    assert (len(found), len(single)) == (3, 1)
    single[0].suspend()
    try:
        answer = client.post(
            "/v1/retrievers/color/search", files={"image": jpeg(3, 320, 240)}, data={"k": "20"}
        )
        shown = states(client)["color"]
    finally:
        single[0].resume()
    assert answer.status_code == 200
    assert answer.headers["X-Ambience-Missing"].startswith("color/0;reason=")
    assert {hit["image_id"] for hit in answer.json()["hits"]} == {1, 3, 5, 7, 9, 11}
    assert shown["state"] == "unavailable"
    assert shown["reason"].startswith("color/0: ")
