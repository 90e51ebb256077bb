"""The applications of `ambience manifest serve` behind Serve's proxy, as on a cluster.

The store is PostgreSQL. Ray has its default settings, except for the token of our clusters.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml

from cluster.manifests.printing import serve_config
from cluster.service.applications import read_config
from cluster.service.data_folder import end_leftovers
from cluster.service.environment import MARK, RAY_ENVIRONMENT
from tests.conftest import AMBIENCE, ROOT, START_SECONDS, free_port, light_config
from tests.deployments.http.test_metrics import PATIENCE_SECONDS, scraped
from tests.drawing import jpeg
from tests.indexes.store.forks import wait_for
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.soak
KEPT = ("ambience", "phash", "color")
PROGRAM = """
import sys, ray, yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

schema = ServeDeploySchema.model_validate(yaml.safe_load(open(sys.argv[1])))
ray.init(
    num_cpus=2, include_dashboard=False, object_store_memory=2**27, _temp_dir=sys.argv[2],
    _node_ip_address="127.0.0.1", log_to_driver=False,
)
print(ray.get_runtime_context().gcs_address, flush=True)
serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
_get_global_client().deploy_apps(schema)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


class Proxied(NamedTuple):
    """A service behind Serve's proxy."""

    url: str
    environment: dict[str, str]
    """Environment of commands run beside the service, as in a pod."""


def config_at(port: int, folder: Path) -> Path:
    config = read_config(light_config())
    kept = [one for one in config["applications"] if one["name"] in KEPT]
    http = {"host": "127.0.0.1", "port": port}
    path = folder / "cluster.yaml"
    path.write_text(serve_config(config | {"applications": kept, "http_options": http}))
    assert yaml.safe_load(path.read_text())["applications"][0]["args"]["listen"] is False
    return path


def environment(data: Path, store: str) -> dict[str, str]:
    """Return an environment without the Ray settings of `ambience serve`, but with a token."""
    plain = {name: value for name, value in os.environ.items() if name not in RAY_ENVIRONMENT}
    return plain | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), plain.get("PYTHONPATH", "")]),
        "AMBIENCE_STORE": store,
        "AMBIENCE_DATA": str(data),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-word-of-the-tests-of-many-letters",
        MARK: str(data),
    }


@pytest.fixture(scope="module")
def proxied(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Proxied]:
    data, port = tmp_path_factory.mktemp("proxied"), free_port()
    given = environment(data, postgres.new_database())
    with (
        tempfile.TemporaryDirectory(prefix="am", dir="/tmp") as temporary,
        (data / "log").open("w") as log,
    ):
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(config_at(port, data)), temporary],
            env=given,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            assert child.stdout is not None
            address = child.stdout.readline().strip()
            yield Proxied(f"http://127.0.0.1:{port}", given | {"RAY_ADDRESS": address})
        finally:
            child.kill()
            end_leftovers(data)


@pytest.fixture
def client(proxied: Proxied) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxied.url, timeout=60) as made:
        until = time.monotonic() + START_SECONDS
        while not ready(made):
            assert time.monotonic() < until
            time.sleep(0.2)
        yield made


def ready(client: httpx.Client) -> bool:
    try:
        rows = client.get("/v1/retrievers").raise_for_status().json()["retrievers"]
    except httpx.HTTPError:
        return False
    return sorted(row["name"] for row in rows if row["state"] == "ready") == ["color", "phash"]


def test_behind_serves_proxy_pictures_are_added_found_and_deleted(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    for seed in range(3):
        client.put(f"/v1/images/{seed}", files={"image": jpeg(seed)}).raise_for_status()
        answer = client.post("/v1/search", files={"image": jpeg(seed)})
        assert answer.headers["x-ambience-answered"] == "color,phash"
        assert answer.json()["hits"][0]["image_id"] == seed
    client.delete("/v1/images/1").raise_for_status()
    hits = client.post("/v1/search", files={"image": jpeg(1)}).json()["hits"]
    assert 1 not in [hit["image_id"] for hit in hits]
    broken = client.put("/v1/images/9", files={"image": b"no picture"})
    assert broken.status_code == 415
    assert broken.headers["content-type"] == "application/problem+json"


def test_behind_serves_proxy_the_metrics_of_all_replicas_are_read(client: httpx.Client) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    wanted = {("ambience_ready", "phash"), ("ambience_applied_lag", "color")}
    while not wanted <= scraped(client).keys():
        assert time.monotonic() < until
        time.sleep(0.5)


def test_a_backfill_beside_it_joins_the_cluster(
    client: httpx.Client, proxied: Proxied, tmp_path: Path
) -> None:
    (tmp_path / "77.jpg").write_bytes(jpeg(77))
    ran = subprocess.run(
        [
            *(str(AMBIENCE), "backfill", str(tmp_path), "--ids", "filename", "--json"),
            *("--workers", "1", "--config", str(light_config())),
        ],
        env=proxied.environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer = client.post("/v1/search", files={"image": jpeg(77)})
    assert answer.json()["hits"][0]["image_id"] == 77


def add(client: httpx.Client, image_id: int) -> httpx.Response:
    return client.put(f"/v1/images/{image_id}", files={"image": jpeg(image_id)})


def search(client: httpx.Client, image_id: int) -> httpx.Response:
    return client.post("/v1/search", files={"image": jpeg(image_id)}).raise_for_status()


def found(answer: httpx.Response) -> int:
    best: int = answer.json()["hits"][0]["image_id"]
    return best


def test_the_service_goes_on_while_its_database_restarts(
    client: httpx.Client, postgres: PostgresServer
) -> None:
    for image_id in (1, 2):
        add(client, image_id).raise_for_status()
        answer = search(client, image_id)
        assert found(answer) == image_id
        assert "X-Ambience-Stale" not in answer.headers
        assert answer.headers["X-Ambience-Answered"] == "color,phash"
    postgres.stop()
    try:
        answer = search(client, 2)
        assert found(answer) == 2
        assert answer.headers["X-Ambience-Stale"] == "true"
        refused = add(client, 3)
        assert refused.status_code == 503
        assert "can't be reached" in refused.json()["detail"]
        assert "can't be reached" in client.get("/readyz").json()["detail"]
    finally:
        postgres.start()
    wait_for(lambda: add(client, 3).status_code in (200, 201), 60)
    # Each replica reconnects on its own.
    wait_for(lambda: "X-Ambience-Stale" not in search(client, 3).headers, 60)
    assert found(search(client, 3)) == 3
    assert client.delete("/v1/images/3").status_code == 204
    assert found(search(client, 2)) == 2
