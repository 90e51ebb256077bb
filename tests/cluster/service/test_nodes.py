"""A cluster of several nodes over PostgreSQL: nodes are killed and added under load."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cluster.service import environment
from tests.cluster.service.test_upgrades import Load
from tests.conftest import ROOT, Service, free_port, light_config
from tests.drawing import jpeg
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
TOKEN = {"RAY_AUTH_TOKEN": "a-word-of-the-tests-of-many-letters"}
LIMIT = 240.0
"""Seconds to wait for any condition: a limit, not a measurement."""


class Cluster:
    """The process that runs the nodes, and the service on them."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        port = free_port()
        environment_of = os.environ | environment.RAY_ENVIRONMENT | TOKEN
        environment_of |= {
            "AMBIENCE_STORE": store,
            "AMBIENCE_DATA": str(folder / "data"),
            "AMBIENCE_PORT": str(port),
            environment.MARK: str(folder / "data"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        self.ray_folder = tempfile.TemporaryDirectory(prefix="ambience-nodes-")
        self.log = folder / "nodes.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.service.nodes", self.ray_folder.name],
                env=environment_of,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.service = Service(f"http://127.0.0.1:{port}", folder / "data", self._process, self.log)
        self._answer()

    def __call__(self, *command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def deploy(self, phash: int) -> None:
        """Deploy the light configuration: phash on `phash` nodes, the ingress on the head only."""
        config = yaml.safe_load(light_config().read_text())
        for application in config["applications"]:
            settings = application["deployments"][0]
            if application["name"] == "ambience":
                settings["ray_actor_options"] = {"num_cpus": 0.02, "resources": {"head": 0.01}}
            elif application["name"] == "phash":
                settings |= {"num_replicas": phash, "max_replicas_per_node": 1}
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        self("deploy", str(path))

    def deploy_over_lmdb(self) -> None:
        """Deploy one more retriever, on two nodes and over an LMDB folder."""
        path = self.folder / "config.yaml"
        config = yaml.safe_load(path.read_text())
        phash = next(one for one in config["applications"] if one["name"] == "phash")
        over_lmdb = copy.deepcopy(phash) | {"name": "embedded"}
        over_lmdb["args"]["store"] = f"lmdb:{self.folder / 'lmdb'}"
        over_lmdb["deployments"][0]["num_replicas"] = 2
        config["applications"].append(over_lmdb)
        path = self.folder / "over-lmdb.yaml"
        path.write_text(yaml.safe_dump(config))
        self("deploy", str(path))

    def wait_for_phash_on(self, nodes: list[str]) -> float:
        """Wait until phash replicas run on exactly these nodes; return the seconds it took."""
        began = time.monotonic()
        wait_for(lambda: bool(self("replicas", "phash") == nodes))
        return time.monotonic() - began

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.ray_folder.cleanup()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-4000:]
        return json.loads(line)


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("nodes"), postgres.new_database())
    try:
        made("add", "a")
        made("add", "b")
        made.deploy(phash=3)
        with made.service.client() as client:

            def is_ready() -> bool:
                with suppress(httpx.HTTPError):
                    rows = client.get("/v1/retrievers").json()["retrievers"]
                    return len(rows) == 3 and all(row["state"] == "ready" for row in rows)
                return False

            wait_for(is_ready)
            for image_id in range(4):
                add(client, image_id)
        made.wait_for_phash_on(["a", "b", "head"])
        yield made
    finally:
        made.stop()


def add(client: httpx.Client, image_id: int) -> None:
    file = jpeg(image_id, 320, 240)
    client.put(f"/v1/images/{image_id}", files={"image": file}).raise_for_status()


def found_by_phash(client: httpx.Client, image_id: int) -> list[int]:
    """Return the ids at distance 0; several requests in a row must agree on them."""
    answers = set()
    for _ in range(6):
        answer = client.post(
            "/v1/retrievers/phash/search",
            files={"image": jpeg(image_id, 320, 240)},
            data={"distance_threshold": "1"},
        ).raise_for_status()
        answers.add(tuple(hit["image_id"] for hit in answer.json()["hits"]))
    assert len(answers) == 1
    return list(answers.pop())


def test_a_killed_node_fails_no_request_and_loses_nothing(cluster: Cluster) -> None:
    with Load(cluster.service) as load, cluster.service.client() as client:
        load.wait_for(20)
        cluster("kill", "a")
        killed_at = len(load.answers)
        for image_id in range(10, 16):
            add(client, image_id)
            assert found_by_phash(client, image_id) == [image_id]
        client.delete("/v1/images/3").raise_for_status()
        cluster.wait_for_phash_on(["b", "head"])
        load.wait_for(killed_at + 60)
        cluster("add", "c")
        seconds = cluster.wait_for_phash_on(["b", "c", "head"])
        load.wait_for(len(load.answers) + 20)
        print(f"\n{len(load.answers)} answers; phash on the new node after {seconds:.1f} s")
        for image_id in range(10, 16):
            assert found_by_phash(client, image_id) == [image_id]
        assert found_by_phash(client, 3) == []
    assert load.failed == []
    assert all(0 in ids for _, _, ids in load.answers)


def test_scaling_a_retriever_up_and_down_fails_no_request(cluster: Cluster) -> None:
    with Load(cluster.service) as load, cluster.service.client() as client:
        load.wait_for(20)
        cluster.deploy(phash=1)
        wait_for(lambda: len(cluster("replicas", "phash")) == 1)
        add(client, 20)
        assert found_by_phash(client, 20) == [20]
        cluster.deploy(phash=3)
        wait_for(lambda: len(cluster("replicas", "phash")) == 3)
        add(client, 21)
        assert found_by_phash(client, 21) == [21]
        assert found_by_phash(client, 20) == [20]
        load.wait_for(len(load.answers) + 20)
    assert load.failed == []
    assert not any("phash" in missing for _, missing, _ in load.answers)


def test_lmdb_on_a_second_node_is_refused_saying_what_to_do(cluster: Cluster) -> None:
    cluster.deploy_over_lmdb()
    wait_for(lambda: "postgresql://" in cluster("message", "embedded"))
    assert "is a folder of another node" in cluster("message", "embedded")
    assert len(cluster("replicas", "embedded")) <= 1
    with cluster.service.client() as client:
        add(client, 30)
        assert found_by_phash(client, 30) == [30]
