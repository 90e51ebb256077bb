"""Connections of the service's listener, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from deployments.http.admission import connections
from deployments.http.admission.connections import BoundedConnection
from deployments.http.admission.middleware import Admission
from deployments.settings import IngressArgs
from tests.deployments.http.admission.test_middleware import small_app

MIB = 2**20
ANNOUNCED = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


class Server:
    """The middleware over a small application, served as the ingress serves."""

    def __init__(self, **args: object) -> None:
        self.app = Admission(small_app(), IngressArgs.model_validate(args))
        config = uvicorn.Config(
            self.app, http=BoundedConnection, lifespan="off", log_config=None, access_log=False
        )
        self.server = uvicorn.Server(config)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        try:
            yield self
        finally:
            self.server.should_exit = self.server.force_exit = True
            self.thread.join()
            self.socket.close()

    def connection(self, send: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))
        made.sendall(send)
        return made

    def post(self, size: int = 1000) -> int:
        answer = httpx.post(f"http://127.0.0.1:{self.port}/", content=b"x" * size)
        return answer.status_code


@contextlib.contextmanager
def closed(opened: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_two_hundred_slow_uploads_keep_nobody_out(source: str) -> None:
    with Server().running() as server:
        slow = [server.connection(ANNOUNCED % (60 * MIB), source) for _ in range(200)]
        with closed(slow):
            time.sleep(0.2)
            assert [server.post() for _ in range(50)] == [200] * 50
            assert server.post(5 * MIB) == 200


def test_two_hundred_connections_that_send_half_a_header_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(connections, "CONNECTIONS_PER_CLIENT", 50)
    with Server().running() as server:
        slow = [server.connection(b"POST / HTTP/1.1\r\nHo") for _ in range(200)]
        with closed(slow):
            assert [server.post() for _ in range(20)] == [200] * 20
            assert sum(map(is_open, slow)) <= 50
            time.sleep(0.7)
            assert sum(map(is_open, slow)) == 0


def test_the_limit_of_open_files_is_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "max_connections", lambda: 40)
    with Server().running() as server:
        opened = [server.connection(source=f"127.0.0.{1 + one % 20}") for one in range(120)]
        with closed(opened):
            assert [server.post() for _ in range(20)] == [200] * 20
            assert sum(map(is_open, opened)) <= 40


def test_a_header_without_end_is_cut_off() -> None:
    with Server().running() as server:
        endless = server.connection(b"GET / HTTP/1.1\r\nX: ")
        with closed([endless]), pytest.raises((ConnectionResetError, BrokenPipeError)):
            endless.sendall(b"x" * 16 * MIB)


def test_a_connection_is_kept_for_the_next_request() -> None:
    with (
        Server().running() as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as http,
    ):
        assert [http.post("/", content=b"x").status_code for _ in range(5)] == [200] * 5
        (one,) = server.server.server_state.connections
        assert isinstance(one, BoundedConnection)
        assert len(http._transport._pool.connections) == 1  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_large_bodies_that_are_refused_get_their_answers_and_are_not_kept() -> None:
    with Server(max_receiving_bytes=64 * MIB).running() as server:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
            sent = (http.post("/", content=bytes(60 * MIB)) for _ in range(4))
            statuses = [answer.status_code for answer in await asyncio.gather(*sent)]
        assert set(statuses) == {503}
        assert server.app.receiver.held == 0
        assert server.post(4 * MIB) == 200
    with Server(max_upload_bytes=MIB).running() as server:
        assert server.post(40 * MIB) == 413
