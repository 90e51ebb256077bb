"""Batch jobs over HTTP: what others see of a backfill, and that they can end it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import AMBIENCE, Service, light_config
from tests.deployments.pictures import problem_of
from tests.drawing import jpeg


def started(service: Service, pictures: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a backfill over the service's data folder."""
    return subprocess.Popen(
        [
            *(str(AMBIENCE), "backfill", str(pictures), "--config", str(light_config())),
            *("--workers", "1", *arguments),
        ],
        env=service.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def newest(client: httpx.Client) -> dict[str, Any]:
    """Return the job that began last."""
    found: list[dict[str, Any]] = client.get("/v1/jobs", params={"limit": 1}).json()["jobs"]
    return found[0] if found else {}


def reached(client: httpx.Client, process: subprocess.Popen[str], pictures: Path) -> dict[str, Any]:
    """Wait until the backfill has progress, and return its job."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        row = newest(client)
        if row.get("source") == str(pictures) and row["done"] and row["state"] == "running":
            return row
        time.sleep(0.1)
    raise AssertionError(f"no progress: {newest(client)}")


def test_a_backfill_is_seen_cancelled_and_resumed(
    service: Service, client: httpx.Client, tmp_path: Path
) -> None:
    count = 240
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(count):
        (pictures / f"{seed}.jpg").write_bytes(jpeg(seed, 160, 120))
    process = started(service, pictures, "--max-rate", "20")
    row = reached(client, process, pictures)
    assert (row["kind"], row["step"], row["total"]) == ("backfill", "indexing", count)

    asked = client.post(f"/v1/jobs/{row['job_id']}:cancel")
    assert asked.status_code == 202
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 1, printed + errors
    assert "cancelled" in errors
    assert newest(client)["state"] == "cancelled"
    there = client.get("/v1/images").json()["total"]
    assert 0 < there < count
    problem = problem_of(client.post(f"/v1/jobs/{row['job_id']}:cancel"), 409)
    assert "cancelled" in problem["detail"]

    again = started(service, pictures, "--json")
    printed, errors = again.communicate(timeout=120)
    assert json.loads(printed)["indexed"] >= count - there - 100, errors
    assert client.get("/v1/images").json()["total"] == count
    ended = newest(client)
    assert ended["state"] == "finished"
    assert ended["report"]["indexed"] == json.loads(printed)["indexed"]
    listed = subprocess.run(
        [str(AMBIENCE), "jobs"],
        env=service.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert row["job_id"] in listed.stdout
    assert "cancelled" in listed.stdout


def test_unknown_jobs_are_not_found(shared_service_client: httpx.Client) -> None:
    answer = shared_service_client.post("/v1/jobs/none:cancel")
    assert problem_of(answer, 404)["field"] == "job_id"
    assert problem_of(shared_service_client.get("/v1/jobs?limit=0"), 400)["field"] == "limit"
