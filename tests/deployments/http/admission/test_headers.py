"""Security headers of every answer."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway

pytestmark = pytest.mark.anyio


async def answers(gateway: Gateway) -> list[httpx.Response]:
    app = make_app(gateway)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        paths = ("/", "/docs", "/openapi.json", "/healthz", "/v1/images", "/broken", "/x")
        refused = http.post("/v1/search", headers={"Origin": "https://evil.example"})
        return await asyncio.gather(*(http.get(path) for path in paths), refused)


async def test_every_answer_has_security_headers(gateway: Gateway) -> None:
    found = await answers(gateway)
    assert {answer.status_code for answer in found} == {200, 403, 404, 500}
    for answer in found:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["referrer-policy"] == "no-referrer"
        policies = answer.headers.get_list("content-security-policy")
        assert len(policies) == 1
        assert "default-src 'none'" in policies[0]
        assert "frame-ancestors 'none'" in policies[0]


async def test_the_page_runs_its_own_scripts_only(gateway: Gateway) -> None:
    policy = (await answers(gateway))[0].headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    assert "http" not in policy


async def test_the_documents_load_nothing_from_outside(gateway: Gateway) -> None:
    docs = (await answers(gateway))[1]
    assert "http" not in docs.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
    assert len(loaded) >= 3
    transport = httpx.ASGITransport(make_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for path in loaded:
            assert path.startswith("/docs/files/")
            assert (await http.get(path)).status_code == 200
