"""The examples of the OpenAPI document are requests that the service takes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from deployments.http.examples import EXAMPLES
from tests.deployments.pictures import field_part, image_part, picture

FORM, JSON = "multipart/form-data", "application/json"
NEEDS_STATE = {"cancel_job", "undo_decision", "forget", "get_tombstone_thumbnail"}
"""Operations on what only other requests make: their examples name nothing that is there."""

NOT_DEPLOYED = {"global", "image_text", "similar_by_text", "get_image_tags", "get_image_caption"}
"""Parts of the names of inherited routes whose retriever or annotator the shared service lacks."""


@pytest.fixture(scope="module")
def operations(shared_service_document: dict[str, Any]) -> dict[str, tuple[str, str, Any]]:
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in shared_service_document["paths"].items()
        for method, operation in methods.items()
        if path not in ("/healthz", "/readyz", "/metrics")
    }


@pytest.fixture(scope="module")
def shared_service_document(shared_service: Any) -> dict[str, Any]:
    with shared_service.client() as client:
        document: dict[str, Any] = client.get("/openapi.json").json()
        return document


def test_every_operation_has_an_example(operations: dict[str, Any]) -> None:
    assert EXAMPLES.keys() == operations.keys()
    for name, (_, _, operation) in operations.items():
        missing = {
            one["name"]
            for one in operation.get("parameters", [])
            if one["in"] == "path" and "example" not in one
        }
        assert not missing, name
        known = {one["name"] for one in operation.get("parameters", [])}
        assert EXAMPLES[name].parameters.keys() <= known, name
        body = operation.get("requestBody", {}).get("content", {})
        assert JSON not in body or body[JSON]["example"], name


def parameters_of(operation: dict[str, Any], where: str) -> dict[str, Any]:
    """The examples of an operation's parameters in the path or in the query."""
    return {
        one["name"]: one["example"]
        for one in operation.get("parameters", [])
        if one["in"] == where and "example" in one
    }


def body_of(name: str, operation: dict[str, Any]) -> dict[str, Any]:
    """The example of an operation's body, with a picture in a form."""
    content = operation.get("requestBody", {}).get("content", {})
    if JSON in content:
        return {"json": content[JSON]["example"]}
    if FORM not in content:
        return {}
    said = content[FORM].get("example", {})
    number = 3 if name == "put_image" else 40
    return {"files": [image_part(picture(number)), *(field_part(*one) for one in said.items())]}


def tidy(name: str, answer: httpx.Response, library: httpx.Client) -> None:
    """Leave the library as other tests expect it."""
    if name.startswith("calculate"):
        library.delete("/v1/images/40")
    if name in ("add_image", "add_images"):
        for row in answer.json().get("items", [answer.json()]):
            assert library.delete(f"/v1/images/{row['image_id']}").status_code == 204
    if name == "decide_duplicates":
        undone = library.delete(f"/v1/duplicates/decisions/{answer.json()['decision_id']}")
        assert undone.status_code < 300


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_answered(
    name: str, operations: dict[str, tuple[str, str, Any]], library: httpx.Client
) -> None:
    method, path, operation = operations[name]
    path = path.format(**parameters_of(operation, "path"))
    query, body = parameters_of(operation, "query"), body_of(name, operation)
    answer = library.request(method, path, params=query, **body)
    if name in NEEDS_STATE:
        assert answer.status_code in (204, 404), answer.text
    elif any(one in name for one in NOT_DEPLOYED):
        assert answer.status_code in (200, 404, 503), answer.text
    else:
        assert answer.status_code < 300, answer.text
    tidy(name, answer, library)
