"""Bodies that arrive slowly, or too many at once: the middleware over a small application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.http.admission import middleware, receiving
from deployments.http.admission.middleware import Admission
from deployments.settings import IngressArgs
from tests.deployments.http.admission.test_middleware import admission, chunks, client
from tests.deployments.pictures import problem_of

pytestmark = pytest.mark.anyio
MIB = 2**20
SMALL = {"content-length": "65536"}


@pytest.fixture(autouse=True)
def _refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.0)


async def stuck(first: bytes = b"") -> AsyncIterator[bytes]:
    """A body that begins and never ends."""
    yield first
    await asyncio.sleep(60)


async def trickle(rate: float) -> AsyncIterator[bytes]:
    """A body of so many bytes a second."""
    while True:
        yield b"x" * int(rate / 20)
        await asyncio.sleep(0.05)


def hold(http: httpx.AsyncClient, count: int, size: int) -> list[asyncio.Task[httpx.Response]]:
    """Begin requests that announce a body and send none of it."""
    headers = {"content-length": str(size)}
    return [
        asyncio.create_task(http.post("/", content=stuck(), headers=headers)) for _ in range(count)
    ]


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_bodies_that_have_not_arrived_hold_no_place() -> None:
    app = admission(max_requests=2)
    async with client(app, "10.6.6.6") as evil, client(app) as http:
        slow = hold(evil, 60, 1000)
        await asyncio.sleep(0.05)
        assert app.in_flight == 0
        for _ in range(5):
            assert (await http.post("/", content=b"small")).status_code == 200
        await end(slow)
    assert app.receiver.held == 0


async def test_a_client_holds_a_bounded_number_and_its_slowest_bodies_give_way() -> None:
    app = admission(max_uploads_per_client=8)
    async with client(app) as http:
        slow = hold(http, 20, 1000)
        await asyncio.sleep(receiving.YIELD_SECONDS + 0.05)
        # Others of the same address, such as all behind one proxy, go on.
        for _ in range(12):
            assert (await http.post("/", content=b"small")).status_code == 200
        await asyncio.sleep(0.2)
        displaced = [task.result() for task in slow if task.done()]
        assert len(displaced) == 13
        for answer in displaced:
            assert "slow body" in problem_of(answer, 503)["detail"]
        await end(slow)


async def test_bodies_that_arrive_quickly_do_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "YIELD_RATE", 10_000)
    app = admission(max_uploads_per_client=2)
    async with client(app) as http:
        quick = [
            asyncio.create_task(http.post("/", content=trickle(100_000), headers=SMALL))
            for _ in range(2)
        ]
        await asyncio.sleep(receiving.YIELD_SECONDS + 0.2)
        answer = problem_of(await http.post("/", content=b"small"), 503)
        assert "2 bodies of this client" in answer["detail"]
        await end(quick)


async def test_a_body_below_the_least_rate_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "GRACE_SECONDS", 0.2)
    app = admission(min_upload_rate=10_000)
    async with client(app) as http:
        async with asyncio.timeout(5):
            problem_of(await http.post("/", content=stuck(b"x")), 408)
            answer = problem_of(await http.post("/", content=trickle(2_000)), 408)
        assert "10000 bytes a second" in answer["detail"]
        # Above it a body may take as long as it likes, up to the deadline.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await http.post("/", content=trickle(40_000))
    assert app.receiver.held == 0


async def test_over_the_budget_nothing_of_a_body_is_kept() -> None:
    app = admission(max_receiving_bytes=32 * MIB)

    async def counted() -> AsyncIterator[bytes]:
        async for chunk in chunks(60):
            assert app.receiver.held == 20 * MIB
            yield chunk

    async with client(app) as http, client(app, "10.0.0.2") as other:
        slow = hold(other, 1, 20 * MIB)
        await asyncio.sleep(0.02)
        assert app.receiver.held == 20 * MIB
        refused = await http.post("/", content=counted(), headers={"content-length": str(15 * MIB)})
        assert "bytes" in problem_of(refused, 503)["detail"]
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert app.receiver.held == 20 * MIB
        # The last quarter is kept for small bodies.
        for _ in range(8):
            assert (await http.post("/", content=b"x" * MIB)).status_code == 200
        await end(slow)
    assert app.receiver.held == 0


async def test_slow_large_bodies_give_way_to_others() -> None:
    app = admission(max_receiving_bytes=32 * MIB)
    async with client(app) as http, client(app, "10.0.0.2") as other:
        slow = hold(other, 2, 12 * MIB)
        await asyncio.sleep(receiving.YIELD_SECONDS + 0.2)
        answer = await http.post("/", content=b"x" * 11 * MIB)
        assert answer.json()["bytes"] == 11 * MIB
        await asyncio.sleep(0.2)
        assert [task.done() for task in slow].count(True) == 1
        await end(slow)


async def test_a_body_of_unknown_length_is_counted_as_it_arrives() -> None:
    app = admission(max_receiving_bytes=8 * MIB)
    async with client(app) as http:
        assert (await http.post("/", content=chunks(23))).status_code == 200
        problem_of(await http.post("/", content=chunks(25)), 503)
    assert app.receiver.held == 0


async def test_a_body_counts_until_its_request_ends() -> None:
    app = admission(max_receiving_bytes=8 * MIB)
    async with client(app) as http:
        working = asyncio.create_task(http.request("GET", "/slow", content=b"x" * 5 * MIB))
        await asyncio.sleep(0.1)
        assert app.receiver.held == 5 * MIB
        problem_of(await http.post("/", content=b"x" * 2 * MIB), 503)
        await http.get("/healthz")
        assert (await working).status_code == 200
        assert (await http.post("/", content=b"x" * 2 * MIB)).status_code == 200
    assert app.receiver.held == 0


async def test_a_client_that_leaves_holds_nothing() -> None:
    args = IngressArgs()
    app = Admission(lambda *_: pytest.fail("it was never whole"), args)
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": None}
    await app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert app.receiver.held == app.in_flight == 0
