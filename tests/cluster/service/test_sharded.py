"""A retriever whose number of shards or replicas changes under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.service.test_upgrades import Load, deploy, replicas, states
from tests.conftest import Service, light_config, wait_all_ready
from tests.drawing import jpeg

pytestmark = pytest.mark.soak

PICTURES = 12
COLOR = "/v1/retrievers/color/search"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def edited(folder: Path, shards: int, *deployments: dict[str, Any]) -> Path:
    """Write the light configuration with these shards and deployment settings of `color`."""
    config = yaml.safe_load(light_config().read_text())
    color = next(one for one in config["applications"] if one["name"] == "color")
    color["args"]["shards"] = shards
    color["deployments"] = list(deployments)
    path = folder / f"{shards}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def answers(client: httpx.Client) -> list[Any]:
    """Return the answers of `color` to a picture, page by page, and to a stored image."""
    found = []
    cursor = ""
    for _ in range(3):
        asked = {"k": "4", "cursor": cursor}
        page = client.post(COLOR, files={"image": jpeg(3, 320, 240)}, data=asked)
        found.append(page.raise_for_status().json())
        cursor = found[-1]["next_cursor"]
    stored = client.post(COLOR, json={"image_id": 5, "distance_threshold": 1e7})
    return [*found, stored.raise_for_status().json()]


def shows(client: httpx.Client, **wanted: object) -> bool:
    """Return whether the listed state of `color` has these values."""
    row = {"shards": 1} | states(client)["color"]
    return all(row.get(name) == value for name, value in wanted.items())


@pytest.fixture
def filled(service: Service, client: httpx.Client) -> Iterator[Service]:
    for seed in range(PICTURES):
        body = jpeg(seed, 320, 240)
        client.put(f"/v1/images/{seed}", files={"image": body}).raise_for_status()
    yield service
    deploy(service, light_config())
    wait_all_ready(service)
    wait_for(partial(shows, client, shards=1))


@pytest.mark.timeout(900)
def test_the_number_of_shards_changes_under_load_and_every_answer_is_whole(
    filled: Service, client: httpx.Client, tmp_path: Path
) -> None:
    truth = answers(client)
    others = {name: set(replicas(filled, name)) for name in ("ambience", "phash", "local")}
    with Load(filled, 1) as load:
        load.wait_for(5)
        for shards in (3, 2):
            deploy(filled, edited(tmp_path, shards))
            wait_for(partial(shows, client, shards=shards, count=PICTURES, state="ready"))
            assert answers(client) == truth
            load.wait_for(len(load.answers) + 5)
    assert load.failed == []
    assert {missing for _, missing, _ in load.answers} == {""}
    assert {tuple(ids) for _, _, ids in load.answers} == {tuple(load.answers[0][2])}
    assert {name: set(replicas(filled, name)) for name in others} == others


@pytest.mark.timeout(900)
def test_a_shard_that_hangs_costs_its_own_pictures_only(
    filled: Service, client: httpx.Client, tmp_path: Path
) -> None:
    deploy(filled, edited(tmp_path, 2, {"name": "Retriever-1-of-2", "num_replicas": 2}))
    wait_for(partial(shows, client, shards=2, state="ready"))
    found = replicas(filled, "color").values()
    hanging = [process for process in found if "Retriever-0-of-2" in " ".join(process.cmdline())]
    assert (len(found), len(hanging)) == (3, 1)
    hanging[0].suspend()
    try:
        answer = client.post(COLOR, files={"image": jpeg(3, 320, 240)}, data={"k": "20"})
        shown = states(client)["color"]
    finally:
        hanging[0].resume()
    assert answer.status_code == 200
    assert answer.headers["X-Ambience-Missing"].startswith("color/0;reason=")
    assert {hit["image_id"] for hit in answer.json()["hits"]} == {1, 3, 5, 7, 9, 11}
    assert shown["state"] == "unavailable"
    assert shown["reason"].startswith("color/0: ")


@pytest.mark.timeout(900)
def test_replicas_come_and_go_under_load_and_each_has_every_add(
    filled: Service, client: httpx.Client, tmp_path: Path
) -> None:
    with Load(filled, 1) as load:
        load.wait_for(5)
        deploy(filled, edited(tmp_path, 1, {"name": "Retriever", "num_replicas": 3}))
        assert len(replicas(filled, "color")) == 3
        client.put("/v1/images/30", files={"image": jpeg(30, 320, 240)}).raise_for_status()
        for _ in range(12):
            answer = client.post(COLOR, files={"image": jpeg(30, 320, 240)}, data={"k": "1"})
            assert answer.json()["hits"][0]["image_id"] == 30
        client.delete("/v1/images/30").raise_for_status()
        deploy(filled, edited(tmp_path, 1, {"name": "Retriever", "num_replicas": 1}))
        wait_for(lambda: len(replicas(filled, "color")) == 1)
        load.wait_for(len(load.answers) + 5)
    assert load.failed == []
    assert {missing for _, missing, _ in load.answers} == {""}


AUTOSCALING = {
    "min_replicas": 1,
    "max_replicas": 2,
    # Searching twelve images takes only a small part of the request's time.
    "target_ongoing_requests": 0.05,
    "upscale_delay_s": 1,
    "downscale_delay_s": 3,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 2,
}


@pytest.mark.timeout(900)
def test_autoscaling_brings_a_replica_under_load_and_takes_it_away_after(
    filled: Service, tmp_path: Path
) -> None:
    deploy(filled, edited(tmp_path, 1, {"name": "Retriever", "autoscaling_config": AUTOSCALING}))
    assert len(replicas(filled, "color")) == 1
    with Load(filled, 4) as load:
        wait_for(lambda: len(replicas(filled, "color")) == 2)
        load.wait_for(len(load.answers) + 50)
    wait_for(lambda: len(replicas(filled, "color")) == 1)
    with Load(filled, 1) as after:
        after.wait_for(10)
    assert [*load.failed, *after.failed] == []
    assert {missing for _, missing, _ in [*load.answers, *after.answers]} == {""}
