"""The examples of the OpenAPI document are requests that the service takes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from deployments.http.examples import EXAMPLES
from tests.deployments.pictures import field_part, image_part, picture

FORM, JSON = "multipart/form-data", "application/json"
NEEDS_STATE = {"cancel_job", "undo_decision", "forget"}
"""Operations on what only other requests make: their examples name nothing that is there."""


@pytest.fixture(scope="module")
def operations(shared_service_document: dict[str, Any]) -> dict[str, tuple[str, str, Any]]:
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in shared_service_document["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/v1/")
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_answered(
    name: str, operations: dict[str, tuple[str, str, Any]], library: httpx.Client
) -> None:
    method, path, operation = operations[name]
    query = dict[str, Any]()
    for parameter in operation.get("parameters", []):
        if "example" in parameter:
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", str(parameter["example"]))
            else:
                query[parameter["name"]] = parameter["example"]
    content = operation.get("requestBody", {}).get("content", {})
    body: dict[str, Any] = {}
    if JSON in content:
        body = {"json": content[JSON]["example"]}
    elif FORM in content:
        said = content[FORM].get("example", {})
        number = 3 if name == "put_image" else 40
        body = {"files": [image_part(picture(number)), *(field_part(*one) for one in said.items())]}
    answer = library.request(method, path, params=query, **body)
    if name in NEEDS_STATE:
        assert answer.status_code in (204, 404), answer.text
    else:
        assert answer.status_code < 300, answer.text
    # What other tests find in the library is as it was.
    if name in ("add_image", "add_images"):
        rows = answer.json().get("items", [answer.json()])
        for row in rows:
            assert library.delete(f"/v1/images/{row['image_id']}").status_code == 204
    if name == "decide_duplicates":
        undone = library.delete(f"/v1/duplicates/decisions/{answer.json()['decision_id']}")
        assert undone.status_code < 300
