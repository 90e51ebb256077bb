"""The access log: its lines, and its rotation by several processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import orjson
import pytest

from deployments.http.access_log import KEPT, AccessLog
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from tests.deployments.http.admission.test_middleware import small_app

pytestmark = pytest.mark.anyio

WRITE = """
import logging, sys
from pathlib import Path
from deployments.http.access_log import SharedRotatingFile
handler = SharedRotatingFile(Path(sys.argv[1]), 20_000)
for number in range(500):
    line = f"{sys.argv[2]} {number} " + "x" * 50
    handler.handle(logging.makeLogRecord({"msg": line}))
"""


def client(gateway: Gateway, **args: object) -> httpx.AsyncClient:
    gateway.args = gateway.args.model_copy(update=args)
    transport = httpx.ASGITransport(make_app(gateway), client=("10.0.0.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_each_request_is_a_line(gateway: Gateway, tmp_path: Path) -> None:
    async with client(gateway) as http:
        await http.get("/v1/images?file_name=secret")
        await http.post("/v1/search", json={"text": "secret"})
        await http.get("/healthz")
        await http.get("/a%0Ab")
    first, second, third = (tmp_path / "access.log").read_text().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 10\.0\.0\.7 GET /v1/images 200 [\d.]+ms.*", first
    )
    assert " POST /v1/search " in second
    assert " GET /a%0Ab 404 " in third
    assert "secret" not in (tmp_path / "access.log").read_text()


async def test_lines_are_json_on_demand(gateway: Gateway, tmp_path: Path) -> None:
    async with client(gateway, access_log="json") as http:
        await http.post("/v1/search", headers={"Origin": "https://evil.example"}, json={})
        await http.get("/v1/images")
    refused, listed = map(orjson.loads, (tmp_path / "access.log").read_bytes().splitlines())
    assert (refused["method"], refused["path"], refused["status"]) == ("POST", "/v1/search", 403)
    assert listed["status"] == 200
    assert listed["ms"] > 0


async def test_the_log_can_be_off(gateway: Gateway, tmp_path: Path) -> None:
    async with client(gateway, access_log="off") as http:
        await http.get("/v1/images")
    assert not (tmp_path / "access.log").exists()


async def test_a_log_that_cannot_be_written_fails_no_request(tmp_path: Path) -> None:
    app = AccessLog(small_app(), "text", tmp_path / "none" / "access.log", 1000)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/")).status_code == 200


def test_several_processes_share_and_rotate_one_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(writer)])
        for writer in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    names = {path.name, *(f"{path.name}.{number}" for number in range(1, KEPT + 1))}
    assert {one.name for one in tmp_path.iterdir()} == names
    for one in tmp_path.iterdir():
        lines = one.read_text().splitlines()
        assert one.stat().st_size < 21_000
        assert all(re.fullmatch(r"[012] \d+ x{50}", line) for line in lines)
    latest = {
        line.split()[1] for one in tmp_path.iterdir() for line in one.read_text().splitlines()
    }
    assert "499" in latest
