"""Every error becomes application/problem+json."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query

from deployments.http import problems
from models import errors
from models.errors import AmbienceError, MalformedQuery
from tests.deployments.pictures import image_part, post_form, problem_of

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AmbienceError)
]


async def raised(error: Exception) -> httpx.Response:
    """Return the response of a route that raises this error."""
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail(number: int = Query(0)) -> int:
        if number:
            return number
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        if isinstance(error, LookupError):
            return await client.get("/", params={"number": "x"})
        return await client.get("/")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_each_error_of_ours_has_its_status_title_and_field(kind: type[AmbienceError]) -> None:
    answer = await raised(kind("what to do", "k"))
    position = {"position": 0} if kind is MalformedQuery else {}
    assert problem_of(answer, kind.status) == position | {
        "type": problems.type_of(kind),
        "title": kind.title,
        "status": kind.status,
        "detail": "what to do",
        "field": "k",
    }
    assert ("retry-after" in answer.headers) == (kind.status == 503)


@pytest.mark.anyio
async def test_an_error_without_a_field_has_none() -> None:
    assert "field" not in problem_of(await raised(errors.InvalidInput("what to do")), 400)


@pytest.mark.anyio
async def test_an_invalid_parameter_is_named() -> None:
    assert problem_of(await raised(LookupError()), 400)["field"] == "number"


@pytest.mark.anyio
async def test_an_http_error_of_the_framework_keeps_its_headers() -> None:
    answer = await raised(HTTPException(425, "not yet", {"X-Later": "9"}))
    assert problem_of(answer, 425)["title"] == "Too Early"
    assert answer.headers["x-later"] == "9"


@pytest.mark.anyio
async def test_a_status_without_more_to_say_has_no_type_of_its_own() -> None:
    assert problem_of(await raised(HTTPException(418, "tea")), 418)["type"] == "about:blank"


def test_the_type_of_every_problem_leads_to_its_explanation(
    shared_service_client: httpx.Client,
) -> None:
    answers = {
        "/problems/image-not-found": shared_service_client.get("/v1/images/99999999"),
        "/problems/invalid-input": shared_service_client.get("/v1/images/x"),
        "/problems/broken-picture": post_form(
            shared_service_client, "/v1/search", image_part(b"\xff\xd8\xff")
        ),
        "/problems/not-found": shared_service_client.get("/nothing/here"),
        "/problems/method-not-allowed": shared_service_client.patch("/v1/images"),
        "/problems/unknown-name": shared_service_client.get("/problems/nonsense"),
    }
    for kind, answer in answers.items():
        assert problem_of(answer, answer.status_code)["type"] == kind
        page = shared_service_client.get(kind)
        assert page.headers["content-type"].startswith("text/plain")
        assert page.text.startswith(answer.json()["title"])


def test_a_method_that_a_path_does_not_take_is_told_all_that_it_takes(
    shared_service_client: httpx.Client,
) -> None:
    for path, methods in {
        "/v1/images": "GET, HEAD, POST",
        "/v1/images/7": "DELETE, GET, HEAD, PATCH, PUT",
        "/v1/search": "POST",
        "/healthz": "GET, HEAD",
    }.items():
        answer = shared_service_client.request("TRACE", path)
        assert problem_of(answer, 405)["title"] == "Method Not Allowed"
        assert answer.headers["allow"] == methods


@pytest.mark.anyio
async def test_an_unforeseen_error_is_logged_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = problem_of(await raised(ZeroDivisionError("a secret path")), 500)
    assert "secret" not in str(body)
    assert "a secret path" in caplog.text


def test_documented_errors_refer_to_the_problem_schema() -> None:
    shown = problems.documented(400, 503)
    assert list(shown) == [400, 503, "default"]
    assert shown[503]["description"] == "Service Unavailable"
    assert list(shown[400]["content"]) == ["application/problem+json"]


def test_the_headers_of_errors_are_documented() -> None:
    shown = problems.documented(400, 401, 503)
    named = {status: set(response.get("headers", {})) for status, response in shown.items()}
    assert named == {
        400: set(),
        401: {"WWW-Authenticate"},
        503: {"Retry-After"},
        "default": {"Allow", "Retry-After"},
    }
