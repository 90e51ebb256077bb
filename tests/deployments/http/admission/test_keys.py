"""API keys: the middleware alone over a small application, and what the documents say of them."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
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
        for path in ("/", "/docs", "/openapi.json", "/problems/forbidden"):
            assert (await http.get(path)).status_code == 200, path
        problem_of(await http.get("/v1/images"), 401)
