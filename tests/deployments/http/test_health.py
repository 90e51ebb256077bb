"""Liveness and readiness: /healthz and /readyz."""

from __future__ import annotations

import httpx
import pytest

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from tests.deployments.pictures import problem_of


def test_a_running_service_is_alive_and_ready(shared_service_client: httpx.Client) -> None:
    assert shared_service_client.get("/healthz").json() == {"status": "alive"}
    assert shared_service_client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.anyio
async def test_a_service_without_phash_is_alive_but_not_ready(gateway: Gateway) -> None:
    transport = httpx.ASGITransport(make_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
    assert problem_of(answer, 503)["detail"] == "phash: not deployed"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.anyio
async def test_what_is_required_is_configured(gateway: Gateway) -> None:
    gateway.args = gateway.args.model_copy(update={"required": ("color", "local")})
    assert await gateway.unready() == {"color": "not deployed", "local": "not deployed"}
    gateway.args = gateway.args.model_copy(update={"required": ()})
    assert await gateway.unready() == {}
