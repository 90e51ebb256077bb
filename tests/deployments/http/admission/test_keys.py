"""API keys: the middleware alone over a small application, and what the documents say of them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError

from deployments.http.access_log import AccessLog
from deployments.http.admission import keys
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.keys import read_keys
from deployments.settings import IngressArgs
from models.errors import InvalidInput
from tests.deployments.http.admission.test_middleware import admission, client
from tests.deployments.pictures import problem_of

pytestmark = pytest.mark.anyio
BOTH = {"read_keys": ["reader"], "write_keys": ["writer"]}


async def test_without_keys_in_the_configuration_everything_is_open() -> None:
    async with client(admission()) as http:
        assert (await http.post("/calculate_all_image_features")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "read", "write"),
    [
        ("GET", "/v1/images", 200, 200),
        ("POST", "/v1/search", 200, 200),
        ("POST", "/v1/retrievers/phash/search", 200, 200),
        ("POST", "/v1/compare/upload", 200, 200),
        ("POST", "/v1/thumbnail", 200, 200),
        ("POST", "/v1/check", 200, 200),
        ("GET", "/v1/jobs", 200, 200),
        ("POST", "/v1/jobs/1:cancel", 401, 200),
        ("DELETE", "/v1/tombstones/1", 401, 200),
        ("POST", "/reverse_search", 200, 200),
        ("POST", "/get_image_tags", 200, 200),
        ("POST", "/color_get_similar_images_by_id", 200, 200),
        ("PUT", "/v1/images/7", 401, 200),
        ("POST", "/v1/images", 401, 200),
        ("DELETE", "/v1/images/7", 401, 200),
        ("POST", "/calculate_all_image_features", 401, 200),
        ("POST", "/delete_all_image_features", 401, 200),
        ("POST", "/delete_phash_features", 401, 200),
    ],
)
async def test_a_read_key_searches_and_a_write_key_does_both(
    method: str, path: str, read: int, write: int
) -> None:
    async with client(admission(**BOTH)) as http:
        for key, expected in (("reader", read), ("writer", write), ("wrong", 401), ("", 401)):
            for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
                answer = await http.request(method, path, headers=headers)
                assert answer.status_code == expected, (method, path, key)
        refused = await http.request(method, path)
        problem_of(refused, 401)
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/healthz", "/"])
async def test_health_and_the_page_need_no_key(path: str) -> None:
    async with client(admission(**BOTH)) as http:
        assert (await http.get(path)).status_code == 200


async def test_the_request_that_asks_whether_a_key_may_be_sent_needs_none() -> None:
    async with client(admission(**BOTH)) as http:
        assert (await http.options("/v1/search")).status_code == 405


async def test_with_write_keys_alone_reading_is_open() -> None:
    async with client(admission(write_keys=["writer"])) as http:
        assert (await http.get("/v1/images")).status_code == 200
        problem_of(await http.delete("/v1/images/7"), 401)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("10.0.0.1", 200),
        ("172.18.3.4", 200),
        ("::ffff:172.18.3.4", 200),
        ("fd00::7", 200),
        ("10.0.0.2", 401),
        ("172.19.0.1", 401),
        ("fd01::7", 401),
        ("testclient", 401),
    ],
)
async def test_a_trusted_client_needs_no_key(address: str, status: int) -> None:
    trusted = ["10.0.0.1", "172.18.0.0/16", "fd00::/16"]
    async with client(admission(**BOTH, trusted_clients=trusted), address) as http:
        answer = await http.post("/calculate_all_image_features")
    assert answer.status_code == status


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
async def test_a_request_that_a_trusted_proxy_forwards_needs_a_key(header: str) -> None:
    app = admission(**BOTH, trusted_clients=["10.0.0.1"])
    async with client(app) as http:
        refused = await http.post("/calculate_all_image_features", headers={header: "10.0.0.1"})
    problem_of(refused, 401)


def named(name: str, secret: str, role: str = "read", **more: object) -> dict[str, object]:
    return {"name": name, "sha256": sha256(secret.encode()).hexdigest(), "role": role, **more}


NAMED = [named("a", "one"), named("b", "two", "write"), named("c", "three", "admin")]


async def statuses(http: httpx.AsyncClient, path: str, method: str = "GET") -> list[int]:
    """Statuses without a key, with a wrong one, and with those of NAMED."""
    keys = ("", "wrong", "one", "two", "three")
    answers = [await http.request(method, path, headers={"X-API-Key": key}) for key in keys]
    return [answer.status_code for answer in answers]


async def test_a_key_by_its_hash_does_what_its_role_may() -> None:
    async with client(admission(keys=NAMED)) as http:
        assert await statuses(http, "/v1/images") == [401, 401, 200, 200, 200]
        assert await statuses(http, "/v1/search", "POST") == [401, 401, 200, 200, 200]
        assert await statuses(http, "/v1/images/7", "DELETE") == [401, 401, 401, 200, 200]
        assert await statuses(http, "/metrics") == [401, 401, 401, 401, 200]
        assert await statuses(http, "/healthz") == [200] * 5
        # The hash itself is no key.
        stolen = {"X-API-Key": str(NAMED[1]["sha256"])}
        problem_of(await http.delete("/v1/images/7", headers=stolen), 401)
    async with client(admission(keys=NAMED[:2])) as http:
        assert await statuses(http, "/metrics") == [200] * 5


async def test_each_key_has_a_rate_of_its_own() -> None:
    keys = [named("a", "one", requests_per_minute=2), named("b", "two", requests_per_minute=50)]
    async with client(admission(keys=keys)) as http:
        slow = [(await http.get("/", headers={"X-API-Key": "one"})).status_code for _ in range(7)]
        assert slow[:2] == [200, 200]
        assert 429 in slow
        for _ in range(10):
            assert (await http.get("/", headers={"X-API-Key": "two"})).status_code == 200


async def test_a_file_of_keys_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0.0)
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([named("a", "one")]))
    monkeypatch.setenv("AMBIENCE_KEYS_FILE", str(path))
    async with client(admission()) as http:
        assert await statuses(http, "/v1/images") == [401, 401, 200, 401, 401]
        path.write_text(yaml.safe_dump([named("b", "two")]))
        assert await statuses(http, "/v1/images") == [401, 401, 401, 200, 401]
        path.write_text("- {name: c, secret: three}")
        assert await statuses(http, "/v1/images") == [401, 401, 401, 200, 401]
        path.unlink()
        assert await statuses(http, "/v1/images") == [401, 401, 401, 200, 401]
    assert "stay as they were" in caplog.text
    assert "three" not in caplog.text


async def test_the_log_names_the_key(tmp_path: Path) -> None:
    app = AccessLog(admission(keys=NAMED), "text", tmp_path / "access.log", 10_000)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        await http.get("/", headers={"X-API-Key": "two"})
        await http.get("/v1/images", headers={"X-API-Key": "wrong"})
    named, refused = (tmp_path / "access.log").read_text().splitlines()
    assert named.endswith("key=b")
    assert "key=" not in refused
    assert "two" not in named + refused


@pytest.mark.parametrize("keys", [[{"name": "a", "sha256": "hunter2"}], [{"key": "hunter2"}]])
def test_a_refused_configuration_shows_no_secret(keys: object, tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as refused:
        IngressArgs.model_validate({"keys": keys, "read_keys": ["hunter2", 7]})
    assert "hunter2" not in str(refused.value)
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump(keys))
    with pytest.raises(InvalidInput) as broken:
        read_keys(path)
    assert "hunter2" not in str(broken.value)
    assert "keys.yaml" in str(broken.value)


PROXIES = {"trusted_proxies": ["10.0.0.0/8"], "trusted_clients": ["172.18.0.7"]}


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        ("10.0.0.1", "172.18.0.7", 200),
        ("10.0.0.1", "172.18.0.7, 10.0.0.9", 200),
        ("10.0.0.1", "172.18.0.7, 1.2.3.4", 401),
        ("10.0.0.1", "nonsense", 401),
        ("10.0.0.1", "", 401),
        ("1.2.3.4", "172.18.0.7", 401),
        ("172.18.0.7", "172.18.0.7", 401),
    ],
)
async def test_a_trusted_proxy_names_the_client(peer: str, forwarded: str, status: int) -> None:
    async with client(admission(keys=NAMED, **PROXIES), peer) as http:
        answer = await http.delete("/v1/images/7", headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == status


async def test_rates_are_those_of_clients_behind_a_trusted_proxy() -> None:
    app = admission(requests_per_minute=3, trusted_proxies=["10.0.0.1"])
    async with client(app, "10.0.0.1") as proxy, client(app, "10.0.0.2") as other:
        sent = [await proxy.get("/", headers={"X-Forwarded-For": "1.1.1.1"}) for _ in range(7)]
        assert 429 in [answer.status_code for answer in sent]
        answer = await proxy.get("/", headers={"X-Forwarded-For": "2.2.2.2"})
        assert answer.status_code == 200
        # Others can't choose whose rate they use up.
        sent = [await other.get("/", headers={"X-Forwarded-For": str(at)}) for at in range(7)]
        assert 429 in [answer.status_code for answer in sent]


def test_what_is_no_address_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="trusted_clients"):
        IngressArgs.model_validate({"trusted_clients": ["gallery"]})


async def test_the_document_says_which_operations_need_a_key(gateway: Gateway) -> None:
    gateway.args = gateway.args.model_copy(update={"write_keys": ("writer",)})
    document = make_app(gateway).openapi()
    schemes = document["components"]["securitySchemes"]
    assert schemes["ApiKey"]["name"] == "X-API-Key"
    assert schemes["Bearer"]["scheme"] == "bearer"
    images = document["paths"]["/v1/images"]
    assert images["get"]["security"] == []
    assert images["post"]["security"] == [{"ApiKey": []}, {"Bearer": []}]
    assert "401" in images["post"]["responses"]
    assert "401" not in images["get"]["responses"]


async def test_the_documents_are_served_without_a_key(gateway: Gateway) -> None:
    gateway.args = gateway.args.model_copy(update={"read_keys": ("reader",)})
    transport = httpx.ASGITransport(make_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for path in (
            "/",
            "/docs",
            "/docs/files/swagger-ui.css",
            "/openapi.json",
            "/problems/forbidden",
        ):
            assert (await http.get(path)).status_code == 200, path
        problem_of(await http.get("/v1/images"), 401)


async def test_a_key_with_a_tag_is_refused_what_is_of_all_images() -> None:
    limited = {"name": "hikers", "sha256": sha256(b"limited").hexdigest(), "role": "write"}
    app = admission(keys=[{**limited, "tag": "hikers"}], trusted_clients=["10.0.0.2"])
    sent = {"X-API-Key": "limited"}
    for address in ("10.0.0.1", "10.0.0.2"):
        async with client(app, address) as http:
            for path in ("/v1/jobs", "/v1/changes", "/v1/changes:keep", "/v1/duplicates/rules"):
                told = problem_of(await http.post(path, headers=sent), 403)
                assert told["type"] == "/problems/key-limited"
            assert (await http.get("/v1/images", headers=sent)).status_code == 200
            # It would count all images.
            assert (await http.get("/metrics", headers=sent)).status_code == 401


def test_an_admin_key_has_no_tag(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    entry = {"name": "all", "sha256": "0" * 64, "role": "admin", "tag": "hikers"}
    file.write_text(yaml.safe_dump([entry]))
    with pytest.raises(InvalidInput, match="an admin key can't be limited to a tag"):
        read_keys(file)
