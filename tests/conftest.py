"""Shared fixtures: one real service for all tests over HTTP, and one PostgreSQL server."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from cluster.service.data_folder import end_leftovers
from cluster.service.ray_folder import remove_abandoned, short_tmp

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

    from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[1]
AMBIENCE = Path(sys.executable).with_name("ambience")
START_SECONDS = 240.0
USERS_OF_THE_SERVICE = (
    "tests/ambience/",
    "tests/cluster/cli/test_main.py",
    "tests/cluster/manifests/test_dashboards.py",
    "tests/cluster/service/test_running.py",
    "tests/cluster/service/test_sharded.py",
    "tests/cluster/service/test_upgrades.py",
    "tests/deployments/http/",
)
"""The only tests that may use `shared_service`; they run in one process, so it starts once."""
PAGE = "tests/deployments/page/"
"""Tests that share one served page and one browser."""
LIGHT = ("phash", "color", "local")
LIGHT_LOCAL = {"min_side": 240, "max_side": 240}
"""Options with which `local` takes a quarter of the time, enough for pictures that tests draw."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer | None) -> LoadFileScheduling:
    """Run each file in one process, and all users of the shared service in one process."""
    from xdist.scheduler import LoadFileScheduling

    class OneService(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            uses_service = nodeid.startswith(USERS_OF_THE_SERVICE)
            if nodeid.startswith(PAGE):
                return PAGE
            return "shared service" if uses_service else str(super()._split_scope(nodeid))

    return OneService(config, log)


@dataclass
class Service:
    """A running `ambience serve`."""

    url: str
    data: Path
    process: subprocess.Popen[str]
    log: Path
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that its clients send."""

    def client(self) -> httpx.Client:
        """Return a client of the service's HTTP API."""
        # To load the certificate authorities, which plain HTTP never asks, would take 30 ms of CPU.
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=60, verify=False)

    def environment(self) -> dict[str, str]:
        """Return the environment for commands that talk to the service."""
        return os.environ | {"AMBIENCE_DATA": str(self.data), "NO_COLOR": "1", "COLUMNS": "200"}


def python_path_with_annotators() -> str:
    """Return a PYTHONPATH that adds the annotators of `tests/annotators/` to `ambience`."""
    startup = ROOT / "tests" / "annotators" / "startup"
    return os.pathsep.join([str(startup), str(ROOT), os.environ.get("PYTHONPATH", "")])


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def light_config(*retrievers: str) -> Path:
    """Write the shipped configuration without applications that need weights or start slowly, or
    with these retrievers alone, and with fewer pixels for `local`."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    names = {"ambience", *(retrievers or LIGHT)}
    kept = [one for one in config["applications"] if one["name"] in names]
    for one in kept:
        if one["name"] == "local":
            one["args"]["options"] = LIGHT_LOCAL
    folder = tempfile.TemporaryDirectory(prefix="ambience-tests-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "light.yaml"
    path.write_text(yaml.safe_dump(config | {"applications": kept}))
    return path


def start_service(data: Path, *arguments: str, port: int | None = None) -> Service:
    """Start `ambience serve`, by default with the light configuration, and wait for readiness."""
    port = port or free_port()
    arguments = arguments or ("--config", str(light_config()))
    log = data.with_name(f"{data.name}.log")
    environment = os.environ | {"AMBIENCE_DATA": str(data), "AMBIENCE_PORT": str(port)}
    with log.open("a") as output:
        process = subprocess.Popen(
            [str(AMBIENCE), "serve", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    service = Service(f"http://127.0.0.1:{port}", data, process, log)
    until = time.monotonic() + START_SECONDS
    with service.client() as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if client.get("/readyz").status_code == 200:
                    return service
            time.sleep(0.2)
    stop_service(service)
    raise AssertionError(f"the service did not start:\n{log.read_text()[-4000:]}")


def stop_service(service: Service) -> int:
    """Stop the service as Ctrl-C does and return its exit status."""
    if service.process.poll() is None:
        os.killpg(service.process.pid, signal.SIGINT)
    return service.process.wait(60)


def kill_service(service: Service) -> None:
    """Kill the service, which is faster than a stop, where the stop itself is not tested."""
    service.process.kill()
    service.process.wait()
    end_leftovers(service.data)
    remove_abandoned(short_tmp())


def wait_all_ready(service: Service) -> None:
    """Wait until every retriever is ready."""
    until = time.monotonic() + START_SECONDS
    with service.client() as client:
        while time.monotonic() < until:
            rows = client.get("/v1/retrievers").json()["retrievers"]
            if len(rows) >= 3 and all(row["state"] == "ready" for row in rows):
                return
            time.sleep(0.2)
    raise AssertionError(f"not all retrievers became ready: {rows}")


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the service does."""
    return "asyncio"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A temporary directory of this test, set as TMPDIR: short enough for Ray's socket names."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield folder


@pytest.fixture(autouse=True)
def _only_its_users_use_the_shared_service(request: pytest.FixtureRequest) -> None:
    if "shared_service" in request.fixturenames:
        path = request.path.relative_to(ROOT).as_posix()
        assert path.startswith(USERS_OF_THE_SERVICE), f"{path} is not in USERS_OF_THE_SERVICE"


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the whole run."""
    service = start_service(tmp_path_factory.mktemp("service") / "data")
    try:
        wait_all_ready(service)
        yield service
    finally:
        kill_service(service)


@pytest.fixture
def service(shared_service: Service) -> Service:
    """The shared service, emptied of all images."""
    with shared_service.client() as client:
        while images := client.get("/v1/images", params={"limit": 1000}).json()["images"]:
            for image in images:
                client.delete(f"/v1/images/{image['image_id']}").raise_for_status()
    return shared_service


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    """A client of the shared, empty service."""
    with service.client() as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole run."""
    from tests.postgres_server import PostgresServer

    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def new_database(postgres: PostgresServer) -> Iterator[Callable[[], str]]:
    """A function that makes empty databases and returns their URLs."""
    made: list[str] = []

    def make() -> str:
        made.append(postgres.new_database())
        return made[-1]

    yield make
    for url in made:
        postgres.take_back(url)
