"""Every error as problem+json (RFC 9457)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from models.errors import AmbienceError, DuplicatePicture

logger = logging.getLogger(__name__)
HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="ambience"'},
    429: {"Retry-After": "60"},
    503: {"Retry-After": "1"},
}
"""Headers of our errors, by status: what the client needs, or when it may come again."""


class Problem(BaseModel):
    """An error, as application/problem+json."""

    type: str = Field("about:blank", description="A URI for this kind of problem.")
    title: str = Field(description="What kind of problem it is.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong, and what to do.")
    field: str | None = Field(None, description="The request's field at fault.")
    image_id: int | None = Field(None, description="The stored image of which this is a copy.")


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(error: AmbienceError) -> ProblemResponse:
    """The response for an error."""
    image_id = error.image_id if isinstance(error, DuplicatePicture) else None
    return _response(
        error.status, error.title, error.detail, error.field, HEADERS.get(error.status), image_id
    )


def install(app: FastAPI) -> None:
    """Turn every error of this app into a problem, and document its schema."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        return document

    setattr(app, "openapi", openapi)  # noqa: B010

    @app.exception_handler(AmbienceError)
    async def _own_series(_: Request, exc: AmbienceError) -> ProblemResponse:
        return problem(exc)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, exc: RequestValidationError) -> ProblemResponse:
        first = exc.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return _response(400, "Invalid input", f"{name}: {first['msg']}", name or None)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, exc: HTTPException) -> ProblemResponse:
        title = HTTPStatus(exc.status_code).phrase
        return _response(exc.status_code, title, str(exc.detail), None, dict(exc.headers or {}))

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, exc: Exception) -> ProblemResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
        detail = "an unforeseen error; the service's log has its trace"
        return _response(500, "Internal error", detail, None)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these error statuses, and for any other status."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    phrases: dict[int | str, str] = {status: HTTPStatus(status).phrase for status in statuses}
    phrases["default"] = "Any other error"
    return {
        status: {"description": phrase, "content": content} for status, phrase in phrases.items()
    }


def _response(
    status: int,
    title: str,
    detail: str,
    name: str | None,
    headers: dict[str, str] | None = None,
    image_id: int | None = None,
) -> ProblemResponse:
    body = Problem(title=title, status=status, detail=detail, field=name, image_id=image_id)
    return ProblemResponse(body.model_dump(exclude_none=True), status, headers)
