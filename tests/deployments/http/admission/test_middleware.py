"""Keys, rates and limits of requests and bodies: the middleware alone, over a small application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from deployments.http import problems
from deployments.http.admission.middleware import Admission
from deployments.http.admission.receiving import FORM_OVERHEAD_BYTES
from deployments.settings import IngressArgs
from tests.deployments.pictures import problem_of

pytestmark = pytest.mark.anyio


def small_app() -> FastAPI:
    """Return an application that answers the size of the body; `/slow` waits for `/healthz`."""
    app = FastAPI()
    problems.install(app)
    go = asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        await go.wait()

    @app.get("/healthz")
    async def healthz() -> None:
        go.set()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def size(request: Request, path: str) -> dict[str, object]:
        return {"path": path, "bytes": len(await request.body())}

    return app


def admission(**args: object) -> Admission:
    return Admission(small_app(), IngressArgs.model_validate(args))


def client(app: Admission, address: str = "10.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 2**18


async def test_a_full_service_answers_503_and_when_to_come_again() -> None:
    app = admission(max_requests=2)
    async with client(app) as http:
        slow = [asyncio.create_task(http.get("/slow")) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert app.in_flight == 2
        refused = await http.get("/other")
        assert "2 requests" in problem_of(refused, 503)["detail"]
        assert refused.headers["retry-after"] == "1"
        # Health checks are always answered; this one also lets the slow requests finish.
        assert (await http.get("/healthz")).status_code == 200
        assert [answer.status_code for answer in await asyncio.gather(*slow)] == [200, 200]
        assert (await http.get("/other")).status_code == 200
    assert app.in_flight == 0


async def test_a_client_over_its_rate_answers_429_and_others_are_served() -> None:
    app = admission(requests_per_minute=3)
    async with client(app) as http, client(app, "10.0.0.2") as other:
        statuses = [(await http.get("/")).status_code for _ in range(7)]
        # A new minute may have begun between the requests.
        assert statuses.count(200) in (3, 4, 5, 6)
        assert 429 in statuses
        assert statuses[:3] == [200, 200, 200]
        assert (await other.get("/")).status_code == 200
        problem_of(await http.get("/"), 429)
        assert (await http.get("/healthz")).status_code == 200


async def test_a_body_announced_too_large_is_refused_before_it_is_sent() -> None:
    headers = {"content-length": str(2**20 + FORM_OVERHEAD_BYTES + 1)}
    async with client(admission(max_upload_bytes=2**20)) as http:
        answer = await http.post("/", content=b"x", headers=headers)
    assert problem_of(answer, 413)["field"] == "image"


async def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large() -> None:
    async with client(admission(max_upload_bytes=2**20)) as http:
        problem_of(await http.post("/", content=chunks(9)), 413)
        answer = await http.post("/", content=chunks(8))
    assert answer.json()["bytes"] == 2**21


async def test_a_body_that_never_ends_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    app = admission(upload_deadline=0.2)
    async with client(app) as http:
        problem_of(await http.post("/", content=endless()), 408)
    assert app.in_flight == 0


async def test_a_slow_answer_to_a_whole_body_is_waited_for() -> None:
    app = admission(upload_deadline=0.1)
    async with client(app) as http:
        slow = asyncio.create_task(http.get("/slow"))
        await asyncio.sleep(0.3)
        assert not slow.done()
        await http.get("/healthz")
        assert (await slow).status_code == 200


async def test_a_draining_service_closes_its_connections() -> None:
    app = admission()
    async with client(app) as http:
        assert "connection" not in (await http.get("/")).headers
        app.draining.set()
        assert (await http.get("/")).headers["connection"] == "close"
