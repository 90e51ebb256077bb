"""A gateway in this process, with its own store and decoder and without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray

from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from tests.conftest import Service
from tests.deployments import served
from tests.deployments.pictures import picture, put

ALL = list(range(10))
"""Ids of the images in `library`."""


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the files of what a test serves in this process in the test's own folder."""
    monkeypatch.setenv("AMBIENCE_DATA", str(tmp_path))


@pytest.fixture(autouse=True, scope="module")
def _ended_with_its_module() -> Iterator[None]:
    with served.ended():
        yield


@pytest.fixture(autouse=True)
def _ended_with_its_test() -> Iterator[None]:
    with served.ended():
        yield


@pytest.fixture(autouse=True)
def _without_ray() -> Iterator[None]:
    """Check that this process joins no cluster: Ray would end it together with that cluster."""
    yield
    assert not ray.is_initialized()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway without deployed applications and with a short deadline."""
    args = IngressArgs(store=f"lmdb:{tmp_path / 'store'}", deadline=0.3)
    made = Gateway(args, "ambience")
    made.directory.complete = True
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def shared_service_client(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the shared service in its current state, for requests that change nothing."""
    with shared_service.client() as client:
        yield client


@pytest.fixture
def library(shared_service_client: httpx.Client) -> httpx.Client:
    """A client of the shared service holding scenes 0 to 9 under their own ids.

    All are tagged `all`, even ones also `even`; the metadata `mod` is the id modulo 3.
    """
    client = shared_service_client
    wanted = {number: _metadata(number) for number in ALL}
    images = client.get("/v1/images", params={"limit": 1000}).json()["images"]
    if {image["image_id"]: image["metadata"] for image in images} == wanted:
        return client
    for image in images:
        client.delete(f"/v1/images/{image['image_id']}")
    for number in ALL:
        put(client, number, picture(number), json.dumps(wanted[number]))
    return client


def _metadata(number: int) -> dict[str, object]:
    return {"tags": ["even", "all"] if number % 2 == 0 else ["all"], "mod": number % 3}
