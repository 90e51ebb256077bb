"""A client of an application in this process, without retrievers."""

from __future__ import annotations

import httpx
import pytest
from fastapi.testclient import TestClient

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway


@pytest.fixture
def client(gateway: Gateway) -> httpx.Client:
    return TestClient(make_app(gateway), base_url="http://localhost")
