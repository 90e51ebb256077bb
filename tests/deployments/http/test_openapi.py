"""The OpenAPI document is complete, and the service answers as documented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from tests.conftest import Service

PROBLEM = "application/problem+json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def document(gateway: Gateway) -> dict[str, Any]:
    """The OpenAPI document."""
    shown: dict[str, Any] = make_app(gateway).openapi()
    return shown


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def body_properties(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield from content["schema"].get("properties", {}).items()


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    assert len(document["paths"]) > 30
    for name, operation in operations(document):
        assert operation.get("summary"), name
        assert operation.get("description") or "/v1/" not in name, name


def test_every_parameter_is_described(document: dict[str, Any]) -> None:
    bare = [
        (name, parameter["name"])
        for name, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]
    bare += [
        (name, key)
        for name, operation in operations(document)
        for key, schema in body_properties(operation)
        if not (schema.get("description") or schema.get("items", {}).get("description"))
    ]
    assert bare == []


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    wrong = [
        (name, status)
        for name, operation in operations(document)
        for status, response in operation["responses"].items()
        if not status.startswith("2") and list(response.get("content", {})) != [PROBLEM]
    ]
    assert wrong == []
    silent = [name for name, one in operations(document) if "default" not in one["responses"]]
    assert silent == ["GET /healthz", "GET /metrics"]
    problem = document["components"]["schemas"]["Problem"]
    assert all(shown.get("description") for shown in problem["properties"].values())


def test_every_operation_that_takes_pictures_documents_their_errors(
    document: dict[str, Any],
) -> None:
    for name, operation in operations(document):
        if any(key == "image" for key, _ in body_properties(operation)):
            assert {"400", "413", "415", "503"} <= operation["responses"].keys(), name


def test_the_document_and_its_page_are_served(shared_service_client: httpx.Client) -> None:
    assert shared_service_client.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "swagger" in shared_service_client.get("/docs").text


def test_requests_made_from_the_document_are_answered_as_documented(
    shared_service: Service,
) -> None:
    schema = schemathesis.openapi.from_url(f"{shared_service.url}/openapi.json")
    entries_named = schema.include(path_regex="^/v1/", method=["GET", "POST"])
    tried = []
    for result in entries_named.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=10,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answered(case: schemathesis.Case) -> None:
            answer = case.call_and_validate(checks=CHECKS, timeout=60)
            assert str(answer.status_code) in case.operation.definition.raw["responses"]

        answered()
        tried.append(operation.label)
    assert len(tried) == 8
