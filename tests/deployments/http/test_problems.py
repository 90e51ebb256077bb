"""Every error becomes application/problem+json."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query

from deployments.http import problems
from models import errors
from models.errors import AmbienceError
from tests.deployments.pictures import problem_of

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
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        if isinstance(error, LookupError):
            return await client.get("/", params={"number": "x"})
        return await client.get("/")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_each_error_of_ours_has_its_status_title_and_field(kind: type[AmbienceError]) -> None:
    answer = await raised(kind("what to do", "k"))
    assert problem_of(answer, kind.status) == {
        "type": "about:blank",
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
    answer = await raised(HTTPException(405, "not so", {"Allow": "GET"}))
    assert problem_of(answer, 405)["title"] == "Method Not Allowed"
    assert answer.headers["allow"] == "GET"


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
