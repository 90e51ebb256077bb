"""A whole service over PostgreSQL, and the server restarted under it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import start_service, stop_service, wait_all_ready
from tests.drawing import jpeg
from tests.indexes.store.forks import wait_for
from tests.postgres_server import PostgresServer


def add(client: httpx.Client, image_id: int) -> httpx.Response:
    return client.put(f"/v1/images/{image_id}", files={"image": jpeg(image_id)})


def search(client: httpx.Client, image_id: int) -> httpx.Response:
    return client.post("/v1/search", files={"image": jpeg(image_id)}).raise_for_status()


def found(answer: httpx.Response) -> int:
    best: int = answer.json()["hits"][0]["image_id"]
    return best


def test_a_service_goes_on_while_its_database_restarts(
    tmp_path: Path,
    postgres: PostgresServer,
    new_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AMBIENCE_STORE", new_database())
    service = start_service(tmp_path / "data")
    try:
        wait_all_ready(service)
        with service.client() as client:
            for image_id in (1, 2):
                add(client, image_id).raise_for_status()
                answer = search(client, image_id)
                assert found(answer) == image_id
                assert "X-Ambience-Stale" not in answer.headers
                assert answer.headers["X-Ambience-Answered"] == "color,local,phash"
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
            # Each replica finds its own way back.
            wait_for(lambda: "X-Ambience-Stale" not in search(client, 3).headers, 60)
            assert found(search(client, 3)) == 3
            assert client.delete("/v1/images/3").status_code == 204
            assert found(search(client, 2)) == 2
    finally:
        stop_service(service)
    assert not (tmp_path / "data" / "store").exists()
