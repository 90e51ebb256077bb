"""Hosts and origins of requests: the middleware alone, and the whole application."""

from __future__ import annotations

import httpx
import pytest

from deployments.http.admission.middleware import Admission
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from tests.deployments.http.admission.test_middleware import small_app
from tests.deployments.pictures import problem_of

pytestmark = pytest.mark.anyio
HOST = "127.0.0.1:44444"
DELETE = "/delete_all_image_features"


def over(bound: str, **args: object) -> httpx.AsyncClient:
    app = Admission(small_app(), IngressArgs.model_validate(args), bound=bound)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://unused")


async def status(http: httpx.AsyncClient, host: str, **headers: str) -> int:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await http.post(DELETE, headers={"Host": host, **given})
    if answer.status_code != 200:
        problem_of(answer, 403)
    return answer.status_code


@pytest.mark.parametrize(
    ("bound", "host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:44444", 200),
        ("127.0.0.1", "127.0.0.2", 200),
        ("127.0.0.1", "localhost:44444", 200),
        ("127.0.0.1", "LocalHost.", 200),
        ("127.0.0.1", "[::1]:44444", 200),
        ("127.0.0.1", "ambience:44444", 200),
        ("127.0.0.1", "evil.example", 403),
        ("127.0.0.1", "127.0.0.1.evil.example", 403),
        ("127.0.0.1", "127.0.0.1@evil.example", 403),
        ("127.0.0.1", "evil.example#127.0.0.1", 403),
        ("127.0.0.1", "localhost.evil.example", 403),
        ("127.0.0.1", "evil-ambience", 403),
        ("127.0.0.1", "192.168.1.5:44444", 403),
        ("127.0.0.1", "", 403),
        ("192.168.1.5", "192.168.1.5:44444", 200),
        ("192.168.1.5", "192.168.1.6:44444", 403),
        ("nas.home", "nas.home:44444", 200),
        ("0.0.0.0", "192.168.1.5:44444", 200),
        ("0.0.0.0", "[fd00::1]:44444", 200),
        ("0.0.0.0", "evil.example", 403),
        ("::", "192.168.1.5", 200),
        ("::", "evil.example", 403),
    ],
)
async def test_only_names_of_the_service_are_hosts(bound: str, host: str, expected: int) -> None:
    async with over(bound) as http:
        assert await status(http, host) == expected


async def test_reading_under_a_foreign_host_is_refused_too() -> None:
    async with over("127.0.0.1") as http:
        for path in ("/", "/v1/images", "/metrics", "/docs"):
            refused = await http.get(path, headers={"Host": "evil.example"})
            assert "allowed_hosts" in problem_of(refused, 403)["detail"]


async def test_two_hosts_are_refused() -> None:
    async with over("127.0.0.1") as http:
        hosts = [("Host", "127.0.0.1"), ("Host", "evil.example")]
        problem_of(await http.post(DELETE, headers=hosts), 403)


async def test_configured_hosts_are_allowed() -> None:
    hosts = ["photos.example.org", ".svc.cluster.local"]
    async with over("127.0.0.1", allowed_hosts=hosts) as http:
        assert await status(http, "photos.example.org") == 200
        assert await status(http, "Photos.Example.org:443") == 200
        assert await status(http, "ambience.default.svc.cluster.local:8000") == 200
        assert await status(http, "more.photos.example.org") == 403
        assert await status(http, "svc.cluster.local.evil.example") == 403
        assert await status(http, "ambience") == 403
    async with over("127.0.0.1", allowed_hosts=["*"]) as http:
        assert await status(http, "any.example") == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Origin": f"http://{HOST}"}, 200),
        ({"Origin": f"http://{HOST}", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://localhost:44444"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "http://127.0.0.1:99999999"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": f"http://{HOST}", "Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
async def test_a_page_of_another_origin_changes_nothing(
    headers: dict[str, str], expected: int
) -> None:
    async with over("127.0.0.1") as http:
        assert await status(http, HOST, **headers) == expected
        for method in ("PUT", "PATCH", "DELETE"):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await http.request(method, "/v1/images/7", headers={"Host": HOST, **given})
            assert (answer.status_code == 403) == (expected == 403), method
        # A link from another site, or an image in it, reads.
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        assert (await http.get("/", headers={"Host": HOST, **given})).status_code == 200


async def test_a_page_behind_a_proxy_with_a_name_of_its_own_is_the_services_own() -> None:
    host = "photos.example.org"
    async with over("127.0.0.1", allowed_hosts=[host]) as http:
        assert await status(http, host, Origin=f"https://{host}") == 200
        assert await status(http, host, Origin=f"http://{host}") == 200
        assert await status(http, f"{host}:443", Origin=f"https://{host}") == 200
        assert await status(http, host, Origin=f"https://{host}:8443") == 403
        assert await status(http, host, Origin=f"https://evil.{host}") == 403


async def test_a_configured_origin_may_change_something_from_another_site() -> None:
    origin = "https://gallery.example"
    async with over("127.0.0.1", cors_origins=[origin]) as http:
        assert await status(http, HOST, Origin=origin, Sec_Fetch_Site="cross-site") == 200
        assert await status(http, HOST, Origin="https://evil.example") == 403
    async with over("127.0.0.1", cors_origins=["*"]) as http:
        assert await status(http, HOST, Origin="https://any.example") == 200


async def test_a_form_on_another_site_deletes_nothing(gateway: Gateway) -> None:
    form = {"image_id": (None, "7")}
    evil = {"Host": "evil.example", "Origin": "https://evil.example"}
    transport = httpx.ASGITransport(make_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        problem_of(await http.post(DELETE, files=form, headers=evil), 403)
        problem_of(await http.post(DELETE, files=form, headers={"Origin": evil["Origin"]}), 403)
        problem_of(await http.post(DELETE, files=form, headers={"Host": evil["Host"]}), 403)
        # As the gallery sends it, from its container or from this machine.
        for host in ("ambience:44444", HOST):
            answer = await http.post(DELETE, json={"image_id": 7}, headers={"Host": host})
            assert answer.status_code == 200
