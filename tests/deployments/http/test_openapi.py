"""The OpenAPI document is complete, and the service answers as documented."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deployments.http.admission.headers import HEADERS
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from tests.conftest import Service
from tests.deployments.pictures import field_part, image_part, picture, post_form

PROBLEM = "application/problem+json"
FORM = "multipart/form-data"
QUERIES = ("SearchQuery", "RetrieverQuery")
PAGES = ("ImageList", "SearchResults", "RetrieverResults")
OWN_HEADERS = {"server-timing", "etag", "cache-control", "retry-after", "allow", "www-authenticate"}
REFUSED = "|".join(
    (
        r"\w+: (not JSON|Invalid JSON)",
        r"(query|body|items|filter|metadata).*(Input should be|must be|Extra inputs|Field req)",
        r"the upload is empty|.*(damaged|truncated)|this is ",
        r"cursor: pass on",
        r"give (an image|either an image)|image: give two pictures|query: ",
        r"(body: )?give text or composed, not both",
        r"no retriever that searches by words|none of these retrievers|these retrievers search",
        r"annotations: give annotations or metadata",
        r"filter.(tags|larger)|tags\.|tag: |keep: |automatic|region",
        r"composed: ",
    )
)
"""Details of refusals that no schema can express; docs/reference/http.md lists their kinds."""
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


def exact(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with answers that may hold only the fields that it lists."""
    closed = copy.deepcopy(document)
    for schema in closed["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return closed


def check(document: dict[str, Any], answer: httpx.Response) -> None:
    """Fail unless an answer has a status, headers, type of content and body that are documented."""
    method, path = answer.request.method.lower(), answer.request.url.path
    path = next(
        one for one in document["paths"] if re.fullmatch(re.sub("{.*?}", "[^/]+", one), path)
    )
    declared = document["paths"][path][method]["responses"][str(answer.status_code)]
    own = {name for name in answer.headers if name.startswith("x-") or name in OWN_HEADERS}
    own -= {name.lower() for name in HEADERS}  # These are for browsers, and on every answer.
    assert own <= {name.lower() for name in declared.get("headers", {})}, path
    content = declared.get("content", {})
    if not content:
        assert answer.content == b"", path
        return
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in content, path
    if kind.endswith("json"):
        schema = content[kind]["schema"] | {"components": document["components"]}
        jsonschema_rs.validator_for(schema).validate(answer.json())


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
        if status[0] not in "23"
        and list(response.get("content", {})) != [PROBLEM]
        and not (status == "500" and name.startswith("POST /calculate_"))
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
            # In a batch, what is wrong with one picture is said inside the answer.
            own = set() if name.endswith("/images:batch") else {"415"}
            assert {"400", "413", "503"} | own <= operation["responses"].keys(), name


def test_the_ids_of_operations_are_short_and_unique(document: dict[str, Any]) -> None:
    named = {operation["operationId"]: name for name, operation in operations(document)}
    assert len(named) == len(list(operations(document)))
    assert named["search"] == "POST /v1/search"
    assert named["add_image"] == "POST /v1/images"
    assert named["phash_get_similar_images_by_id"] == "POST /phash_get_similar_images_by_id"
    assert max(map(len, named)) < 60


def test_cursors_are_strings_both_ways(document: dict[str, Any]) -> None:
    listed = document["paths"]["/v1/images"]["get"]["parameters"]
    (given,) = (one["schema"] for one in listed if one["name"] == "cursor")
    schemas = document["components"]["schemas"]
    cursors = [given, *(schemas[name]["properties"]["cursor"] for name in QUERIES)]
    cursors += [schemas[name]["properties"]["next_cursor"] for name in PAGES]
    assert all({kind["type"] for kind in one["anyOf"]} == {"string", "null"} for one in cursors)


def test_conditional_requests_are_documented(document: dict[str, Any]) -> None:
    of = {
        operation["operationId"]: {one["name"] for one in operation.get("parameters", [])}
        for _, operation in operations(document)
    }
    assert {"If-Match", "If-None-Match"} <= of["put_image"]
    assert "If-Match" in of["edit_image"] & of["delete_image"]
    assert "If-None-Match" in of["get_image"] & of["get_thumbnail"]
    assert "Idempotency-Key" in of["add_image"]


def test_no_operation_takes_json_or_a_form(document: dict[str, Any]) -> None:
    # Generators of clients keep the JSON alone, or generate a module that can't be imported.
    bodies = {
        operation["operationId"]: set(operation.get("requestBody", {}).get("content", {}))
        for _, operation in operations(document)
    }
    assert {"application/json", FORM} not in bodies.values()
    assert bodies["search"] == bodies["search_retriever"] == {"application/json"}
    assert bodies["search_upload"] == bodies["search_retriever_upload"] == {FORM}


def test_no_answer_has_a_body_a_header_or_a_field_that_is_not_documented(
    library: httpx.Client,
) -> None:
    document = exact(library.get("/openapi.json").json())
    image, key = image_part(picture(3)), {"image_id": 3, "k": 5}
    for answer in (
        library.get("/v1/images", params={"limit": 2}),
        library.get("/v1/images/3"),
        library.get("/v1/images/3", headers={"If-None-Match": "*"}),
        library.get("/v1/images/3/thumbnail"),
        library.get("/v1/retrievers"),
        library.get("/readyz"),
        post_form(library, "/v1/search", image, field_part("query", '{"explain": true}')),
        post_form(library, "/v1/search/upload", image),
        library.post("/v1/retrievers/local/search", json={**key, "explain": True}),
        post_form(library, "/v1/retrievers/phash/search/upload", image, field_part("k", 5)),
        post_form(library, "/v1/check", image, image),
        library.get("/v1/tombstones"),
        library.get("/v1/jobs"),
        library.post("/v1/compare", json={"image_ids": [3, 4]}),
        post_form(library, "/v1/compare/upload", image, image),
        post_form(library, "/v1/thumbnail", image),
        library.get("/v1/usage"),
        post_form(library, "/reverse_search", image),
        post_form(library, "/reverse_search", field_part("find_duplicate", 1), image),
        library.post("/phash_get_similar_images_by_id", json=key),
        library.post("/color_get_similar_images_by_id", json=key),
        library.post("/local_features_get_similar_images_by_id", json=key),
        library.post("/delete_phash_features", json={"image_id": 999}),
        library.post("/delete_all_image_features", json={"image_id": 999}),
        post_form(library, "/calculate_all_image_features", image, field_part("image_id", 3)),
        post_form(library, "/calculate_color_features", image, field_part("image_id", 3)),
    ):
        assert answer.status_code < 400 or answer.text.endswith("is already in the db")
        check(document, answer)


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
            if answer.status_code == 400:
                detail = answer.json()["detail"]
                assert re.match(REFUSED, detail), (case.operation.label, detail)

        answered()
        tried.append(operation.label)
    assert len(tried) == 27
