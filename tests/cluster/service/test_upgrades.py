"""Replicas that are killed or replaced while requests come in."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

from cluster.service.data_folder import service_processes
from tests.conftest import AMBIENCE, Service, light_config, wait_all_ready
from tests.drawing import jpeg

CHEAP = {"phash": 1.0, "color": 1.0}
"""Retrievers of a load without `local`, whose queries take 0.1 s of CPU each: at several times as
many requests it leaves the cores to the replicas whose start the tests wait for."""


class Load:
    """Searches from several threads until told to stop; keeps every answer.

    `retrievers` are those that it searches, by default all; a thread waits for `pause` seconds
    between two searches.
    """

    def __init__(
        self,
        service: Service,
        threads: int = 3,
        retrievers: dict[str, float] | None = None,
        pause: float = 0,
    ) -> None:
        self.answers: list[tuple[Any, ...]] = []
        self._query = json.dumps({"retrievers": retrievers} if retrievers else {})
        self._pause = pause
        self._stop = threading.Event()
        self._service = service
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int, condition: Callable[[], bool] = lambda: True) -> None:
        """Wait until `count` answers have come and the condition holds."""
        until = time.monotonic() + 120
        while len(self.answers) < count or not condition():
            assert time.monotonic() < until, f"{len(self.answers)} answers; the condition fails"
            time.sleep(0.05)

    def ask(self, client: httpx.Client) -> tuple[Any, ...]:
        """Run one search; return its status, the missing retrievers and the ids found."""
        try:
            files = {"image": jpeg(0, 320, 240)}
            answer = client.post("/v1/search", files=files, data={"query": self._query})
            missing = answer.headers.get("X-Ambience-Missing", "")
            ids = [hit["image_id"] for hit in answer.json().get("hits", [])]
            return answer.status_code, missing, ids
        except httpx.HTTPError as exc:
            return 0, repr(exc), []

    def _run(self) -> None:
        with self._service.client() as client:
            while not self._stop.is_set():
                self.answers.append(self.ask(client))
                self._stop.wait(self._pause)

    @property
    def failed(self) -> list[tuple[Any, ...]]:
        return [answer for answer in self.answers if answer[0] != 200]


def replica(service: Service, name: str) -> psutil.Process:
    """Return the process of an application's only replica."""
    found = replicas(service, name)
    assert len(found) == 1, found
    return next(iter(found.values()))


def replicas(service: Service, name: str) -> dict[int, psutil.Process]:
    """Return the processes of an application's replicas, by process id."""
    title = f"ServeReplica:{name}:"
    found = service_processes(service.data)
    return {p.pid: p for p in found if title in " ".join(p.cmdline())}


def states(client: httpx.Client) -> dict[str, dict[str, Any]]:
    rows = client.get("/v1/retrievers").json()["retrievers"]
    return {row["name"]: row for row in rows}


def add_some(client: httpx.Client, count: int = 4) -> None:
    for seed in range(count):
        body = jpeg(seed, 320, 240)
        client.put(f"/v1/images/{seed}", files={"image": body}).raise_for_status()


def test_a_killed_replica_costs_its_own_results_only_and_comes_back(
    service: Service, client: httpx.Client
) -> None:
    add_some(client)
    with Load(service, 1, CHEAP, pause=0.03) as load:
        load.wait_for(10)
        replica(service, "color").kill()
        load.wait_for(60)
        # Both changes are acknowledged while color is down; color must apply them later.
        client.put("/v1/images/9", files={"image": jpeg(9, 320, 240)}).raise_for_status()
        client.delete("/v1/images/3").raise_for_status()
        load.wait_for(80, lambda: states(client)["color"]["state"] == "ready")
    assert load.failed == []
    assert all(0 in ids for _, _, ids in load.answers)
    answer = client.post(
        "/v1/retrievers/color/search", files={"image": jpeg(9, 320, 240)}, data={"k": "10"}
    )
    assert answer.json()["hits"][0]["image_id"] == 9
    assert {hit["image_id"] for hit in answer.json()["hits"]} == {0, 1, 2, 9}


def test_a_replica_that_hangs_is_named_as_missing_while_the_others_answer(
    service: Service, client: httpx.Client
) -> None:
    add_some(client, 2)
    hanging = replica(service, "color")
    hanging.suspend()
    try:
        answer = client.post("/v1/search", files={"image": jpeg(1, 320, 240)})
    finally:
        hanging.resume()
    assert answer.status_code == 200
    assert answer.headers["X-Ambience-Missing"].startswith("color;reason=")
    assert set(answer.headers["X-Ambience-Answered"].split(",")) == {"phash", "local"}
    assert answer.json()["hits"][0]["image_id"] == 1
    wait_all_ready(service)


def test_a_picture_added_while_a_retriever_is_away_is_completed_by_itself(
    service: Service, client: httpx.Client
) -> None:
    replica(service, "local").kill()
    added = client.put("/v1/images/5", files={"image": jpeg(5)}).json()
    assert added["retrievers"]["phash"] == {"state": "indexed"}
    assert added["retrievers"]["local"]["state"] == "pending"
    assert added["retrievers"]["local"]["reason"]
    until = time.monotonic() + 120
    while client.get("/v1/images/5").json()["retrievers"]["local"]["state"] != "indexed":
        assert time.monotonic() < until
        time.sleep(0.1)
    wait_all_ready(service)
    answer = client.post("/v1/retrievers/local/search", files={"image": jpeg(5)}, data={"k": "3"})
    assert answer.json()["hits"][0]["image_id"] == 5


def test_the_import_check_waits_for_a_killed_phash(service: Service, client: httpx.Client) -> None:
    add_some(client, 2)
    replica(service, "phash").kill()
    answer = client.post(
        "/reverse_search", data={"find_duplicate": "1"}, files={"image": jpeg(1, 320, 240)}
    )
    assert answer.status_code == 200
    assert answer.json()["duplicate"][0]["image_id"] == 1


def test_a_killed_ingress_is_back_on_its_port(service: Service, client: httpx.Client) -> None:
    add_some(client, 2)
    process = replica(service, "ambience")
    process.kill()
    process.wait(10)
    until = time.monotonic() + 120
    with service.client() as fresh:
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if fresh.get("/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        hits = fresh.post("/v1/search", files={"image": jpeg(1, 320, 240)}).json()["hits"]
    assert hits[0]["image_id"] == 1


def test_redeploying_what_changed_fails_no_request(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    """Only one retriever and the ingress change. The service keeps the edited configuration."""
    add_some(client)
    before = {name: replica(service, name).pid for name in ("ambience", "phash", "color", "local")}
    config = yaml.safe_load(light_config().read_text())
    config["applications"][0]["args"]["max_requests"] = 60
    color = next(one for one in config["applications"] if one["name"] == "color")
    color["args"]["completion_interval"] = 1.5
    edited = tmp_path / "edited.yaml"
    edited.write_text(yaml.safe_dump(config))
    with Load(service, 1, CHEAP, pause=0.03) as load:
        load.wait_for(20)
        deploy(service, edited)
        seen = len(load.answers)
        load.wait_for(
            seen + 50,
            lambda: (
                before["ambience"] not in replicas(service, "ambience")
                and all(len(replicas(service, name)) == 1 for name in before)
            ),
        )
    assert load.failed == []
    assert all(0 in ids for _, _, ids in load.answers)
    assert not any(missing for _, missing, _ in load.answers)
    after = {name: replica(service, name).pid for name in before}
    assert {name for name in before if before[name] != after[name]} == {"ambience", "color"}


def test_a_deploy_of_other_extractor_options_is_refused(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    add_some(client, 1)
    config = yaml.safe_load(light_config().read_text())
    local = next(one for one in config["applications"] if one["name"] == "local")
    local["args"]["options"] = {"max_keypoints": 100}
    edited = tmp_path / "edited.yaml"
    edited.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [str(AMBIENCE), "deploy", "--config", str(edited)],
        env=service.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "new feature space" in done.stderr
    assert "--reindex" in done.stderr


def deploy(service: Service, config: Path) -> None:
    subprocess.run(
        [str(AMBIENCE), "deploy", "--config", str(config)],
        env=service.environment(),
        check=True,
        capture_output=True,
        timeout=240,
    )
