"""A gateway in this process, with a store and a decoder of its own, and no Ray to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployments.gateway import Gateway
from deployments.settings import IngressArgs
from tests.conftest import Service


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the service does."""
    return "asyncio"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that has not met any retriever, with a short deadline."""
    args = IngressArgs(store=f"lmdb:{tmp_path / 'store'}", deadline=0.3)
    made = Gateway(args, "ambience")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def shared_service_client(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the shared service as it is, for requests that change nothing."""
    with shared_service.client() as client:
        yield client
