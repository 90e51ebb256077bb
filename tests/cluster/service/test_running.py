"""A running service: what it prints, where it listens, and what starts beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from cluster.service.data_folder import job_log, running_service, service_log, service_processes
from cluster.service.environment import RAY_ENVIRONMENT
from cluster.service.ray_folder import RayFolder, ray_folder, token_file
from tests.cluster.jobs.test_backfill import backfill, fill
from tests.cluster.service.test_supervisor import ambience
from tests.conftest import Service
from tests.drawing import jpeg

WARNING = "WARNING: 99 PYTHON worker processes have been started"
PUBLISH = """
import sys, time, ray
from ray._private.utils import publish_error_to_driver
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
worker = ray._private.worker.global_worker
publish_error_to_driver("worker_pool_large", sys.argv[2], gcs_client=worker.gcs_client)
time.sleep(1)
"""
"""Program that sends a warning to all drivers, as a raylet does when there are many workers."""


def joining(data: Path) -> dict[str, str]:
    """Return the environment of a process that joins the service's Ray."""
    token = token_file(running_service(data).ray_folder)
    return os.environ | RAY_ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(token)}


def listening(data: Path) -> dict[str, set[str]]:
    """Return the listening addresses of the service's processes, each with the process names."""
    found: dict[str, set[str]] = {}
    for process in service_processes(data):
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.setdefault(connection.laddr.ip, set()).add(process.name())
    return found


def test_it_says_where_it_is_and_what_to_try_first(shared_service: Service) -> None:
    until = time.monotonic() + 30
    while "ready at" not in shared_service.log.read_text() and time.monotonic() < until:
        time.sleep(0.2)
    said = shared_service.log.read_text()
    assert f"ambience is ready at {shared_service.url}" in said
    assert "ambience backfill" in said


def test_every_socket_of_every_process_is_on_loopback(shared_service: Service) -> None:
    addresses = listening(shared_service.data)
    assert len(addresses) >= 1
    outside = {
        address: names
        for address, names in addresses.items()
        if address not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    }
    assert outside == {}


def test_no_process_of_rays_runs_that_only_clusters_use(shared_service: Service) -> None:
    commands = [" ".join(one.cmdline()) for one in service_processes(shared_service.data)]
    unused = ("log_monitor.py", "monitor.py", "dashboard.py")
    assert [command for command in commands if any(name in command for name in unused)] == []
    assert any("raylet" in command for command in commands)


def test_a_second_service_over_the_same_folder_names_the_first(shared_service: Service) -> None:
    done = ambience("serve", data=shared_service.data, AMBIENCE_PORT="1")
    assert done.returncode == 1
    assert f"in use by the service at {shared_service.url}" in done.stderr
    assert "ambience stop" in done.stderr
    assert httpx.get(f"{shared_service.url}/readyz").status_code == 200


def test_the_port_of_another_service_is_refused(shared_service: Service, tmp_path: Path) -> None:
    port = shared_service.url.rsplit(":", 1)[1]
    done = ambience("serve", data=tmp_path / "data", AMBIENCE_PORT=port)
    assert done.returncode == 1
    assert "AMBIENCE_PORT" in done.stderr


def test_a_warning_of_rays_about_many_workers_goes_to_the_services_log(
    shared_service: Service,
) -> None:
    address = running_service(shared_service.data).ray_address
    publish = [sys.executable, "-c", PUBLISH, address, WARNING]
    subprocess.run(publish, env=joining(shared_service.data), check=True, timeout=60)
    until = time.monotonic() + 20
    while WARNING not in service_log(shared_service.data).read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "worker processes" not in shared_service.log.read_text()
    assert "ambience is ready at" in shared_service.log.read_text()


def test_a_running_services_folder_stays_when_another_process_starts(
    shared_service: Service,
) -> None:
    folder = Path(running_service(shared_service.data).ray_folder)
    with ray_folder() as own:
        assert isinstance(own, RayFolder)
        assert Path(own.path).is_dir()
    assert folder.is_dir()
    assert not Path(own.path).exists()


def test_a_backfill_beside_it_is_seen_at_once_and_prints_nothing_of_rays(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    fill(tmp_path / "pictures", 5, first=40)
    (tmp_path / "pictures" / "cat.jpg").write_bytes(jpeg(1))
    (tmp_path / "pictures" / "60.jpg").write_bytes(jpeg(60))
    client.put("/v1/images/60", files={"image": jpeg(60)}).raise_for_status()
    (tmp_path / "pictures" / "50.jpg").write_bytes(jpeg(50)[:500])
    said = backfill(tmp_path / "pictures", service.data, "--ids", "filename")
    assert (said["indexed"], said["already"]) == (5, 1)
    assert client.get("/v1/images/60").json()["file_name"] == "60.jpg"
    assert "logging.cc" in job_log(service.data).read_text()
    reasons = {Path(one["path"]).name: one["reason"] for one in said["bad"]}
    assert reasons.keys() == {"cat.jpg", "50.jpg"}
    assert "no image id" in reasons["cat.jpg"]
    listed = (service.data / "backfill-bad-files.tsv").read_text()
    assert "50.jpg\t" in listed
    hits = client.post("/v1/search", files={"image": jpeg(42, 160, 120)}).json()["hits"]
    assert hits[0]["image_id"] == 42
    assert set(hits[0]["retrievers"]) >= {"phash", "color"}
    assert client.get("/v1/images/42").json()["file_name"] == "42.jpg"
    again = backfill(tmp_path / "pictures", service.data, "--ids", "filename")
    assert again["indexed"] == 0
    assert again["already"] == 6
