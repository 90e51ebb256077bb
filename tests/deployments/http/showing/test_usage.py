"""`GET /v1/usage`: what the collection takes on disk, and how it grows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest

from deployments.ingress.gateway import Gateway
from deployments.settings import snapshots_folder
from tests.indexes.pictures import picture

DAY = 86_400


def test_a_large_preview_counts_as_preview_and_as_part_of_the_store(
    client: httpx.Client, gateway: Gateway
) -> None:
    before = client.get("/v1/usage").json()
    gateway.store.put(picture(1, preview=os.urandom(1 << 20)))
    after = client.get("/v1/usage").json()
    assert after["images"] == before["images"] + 1
    assert 1 << 20 <= after["preview_bytes"] - before["preview_bytes"] < 1.1 * (1 << 20)
    assert after["store_bytes"] >= before["store_bytes"] + (1 << 20)


def test_snapshots_count_as_the_file_system_counts_them(client: httpx.Client) -> None:
    assert client.get("/v1/usage").json()["snapshot_bytes"] == 0
    snapshots_folder().mkdir(parents=True)
    for name in ("phash@1.snapshot", "local@1.snapshot"):
        (snapshots_folder() / name).write_bytes(os.urandom(500_000))
    found = client.get("/v1/usage").json()
    assert 1_000_000 <= found["snapshot_bytes"] < 1_100_000
    assert found["free_bytes"] > 0


def test_a_data_folder_that_is_not_made_yet_is_measured(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path / "not" / "yet"))
    assert client.get("/v1/usage").json()["free_bytes"] > 0


def test_each_image_counts_on_the_day_on_which_it_was_added(
    client: httpx.Client, gateway: Gateway
) -> None:
    midnight = time.time() // DAY * DAY
    moments = [midnight, midnight - 1, midnight - DAY, midnight - 364 * DAY, midnight - 365 * DAY]
    for image_id, created in enumerate(moments):
        gateway.store.put(picture(image_id, created=created))
    added = client.get("/v1/usage", params={"days": 365}).json()["added"]
    assert len(added) == 365
    assert (added[-1], added[-2], added[0]) == (1, 2, 1)
    assert sum(added) == 4
    gateway.store.delete(1)
    assert client.get("/v1/usage", params={"days": 2}).json()["added"] == [1, 1]
    assert client.get("/v1/usage").json()["added"] == []
    answer = client.get("/v1/usage", params={"days": 366})
    assert answer.status_code == 400
    assert "days" in answer.json()["detail"]
