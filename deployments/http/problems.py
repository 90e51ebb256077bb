"""Every error as problem+json (RFC 9457), of a type that names it and leads to its explanation."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from deployments.http.openapi import bodies, header
from deployments.schemas import Answer
from models.errors import (
    AmbienceError,
    DuplicatePicture,
    MalformedQuery,
    UnknownName,
    invalid_field,
)

router = APIRouter()
logger = logging.getLogger(__name__)
HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="ambience"'},
    429: {"Retry-After": "60"},
    503: {"Retry-After": "1"},
}
"""Headers of our errors, by status: what the client needs, or when it may come again."""


METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
TYPES = "/problems/"
INTERNAL = TYPES + "internal-error"
OF_THE_FRAMEWORK = {
    TYPES + "not-found": ("Not Found", "There is no such route: `/docs` lists all."),
    TYPES + "method-not-allowed": (
        "Method Not Allowed",
        "The route does not take this method: `Allow` lists those that it takes.",
    ),
    INTERNAL: (AmbienceError.title, "An unforeseen error: the service's log has its trace."),
}
"""Problems that no error class of ours stands for: type → title and explanation."""


CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
"""The content of an error, for OpenAPI."""
HEADER_MEANINGS = {
    "Allow": "Of a 405: the methods that the path takes.",
    "Retry-After": "Of a 429 or 503: seconds after which to try again.",
    "WWW-Authenticate": "How to send a key.",
}


class Problem(Answer):
    """An error, as application/problem+json."""

    type: str = Field(
        "about:blank",
        description="A URI reference that names this kind of problem and leads to its explanation.",
    )
    title: str = Field(description="What kind of problem it is.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong, and what to do.")
    field: str | None = Field(None, description="The request's field at fault.")
    image_id: int | None = Field(None, description="The stored image of which this is a copy.")
    position: int | None = Field(
        None, description="Of a composed query: number of characters before the one at fault."
    )


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def problem(error: AmbienceError) -> ProblemResponse:
    """The response for an error."""
    return _response(_described(error), HEADERS.get(error.status))


def problem_of(error: AmbienceError) -> dict[str, Any]:
    """An error as JSON inside another answer."""
    return _described(error).model_dump(exclude_none=True)


def _described(error: AmbienceError) -> Problem:
    return Problem(
        type=type_of(type(error)),
        title=error.title,
        status=error.status,
        detail=error.detail,
        field=error.field,
        image_id=error.image_id if isinstance(error, DuplicatePicture) else None,
        position=error.position if isinstance(error, MalformedQuery) else None,
    )


def type_of(kind: type[AmbienceError]) -> str:
    """The type of a problem: a path made of the name of its class, where it is explained."""
    # A class without a title of its own is a problem of its parent's type.
    named = next(one for one in kind.__mro__ if "title" in vars(one))
    if named is AmbienceError:
        return INTERNAL
    return TYPES + re.sub(r"(?<!^)(?=[A-Z])", "-", named.__name__).lower()


def explanations() -> dict[str, tuple[str, str]]:
    """The title of each type of problem, and what it means."""
    found, todo = dict(OF_THE_FRAMEWORK), AmbienceError.__subclasses__()
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if "title" in vars(kind):
            found[type_of(kind)] = (kind.title, " ".join((kind.__doc__ or "").split()))
    return found


@router.get("/problems/{name}", include_in_schema=False)
async def explain(name: str) -> PlainTextResponse:
    """The explanation of a type of problem."""
    known = explanations()
    if TYPES + name not in known:
        raise UnknownName(f"there is no type of problem {name[:100]!r}", "name")
    return PlainTextResponse("{}\n\n{}\n".format(*known[TYPES + name]))


def install(app: FastAPI) -> None:
    """Turn every error of this app into a problem, and document its schema."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        schemas.update(bodies())
        return document

    setattr(app, "openapi", openapi)  # noqa: B010

    @app.exception_handler(AmbienceError)
    async def _own_series(_: Request, exc: AmbienceError) -> ProblemResponse:
        return problem(exc)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, exc: RequestValidationError) -> ProblemResponse:
        first = exc.errors()[0]
        # The first part of the place is where the field stands: path, query, header or body.
        return problem(invalid_field([first | {"loc": first["loc"][1:]}]))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, exc: HTTPException) -> ProblemResponse:
        title, headers = HTTPStatus(exc.status_code).phrase, dict(exc.headers or {})
        if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _methods(request)):
            headers["Allow"] = ", ".join(allowed)
        own = TYPES + title.lower().replace(" ", "-")
        kind = own if own in OF_THE_FRAMEWORK else "about:blank"
        body = Problem(type=kind, title=title, status=exc.status_code, detail=str(exc.detail))
        return _response(body, headers)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, exc: Exception) -> ProblemResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
        detail = "an unforeseen error; the service's log has its trace"
        body = Problem(type=INTERNAL, title=AmbienceError.title, status=500, detail=detail)
        return _response(body)


def _methods(request: Request) -> list[str]:
    """All methods of the path; the framework names those of the first route only."""
    methods = {
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these error statuses, and for any other status."""
    phrases: dict[int | str, str] = {status: HTTPStatus(status).phrase for status in statuses}
    phrases["default"] = "Any other error"
    return {
        status: {"description": phrase, "content": CONTENT, **_described_headers(status)}
        for status, phrase in phrases.items()
    }


def _described_headers(status: int | str) -> dict[str, Any]:
    names = ["Allow", "Retry-After"] if status == "default" else HEADERS.get(int(status), {})
    shown = {name: header(HEADER_MEANINGS[name]) for name in names}
    return {"headers": shown} if shown else {}


def _response(body: Problem, headers: dict[str, str] | None = None) -> ProblemResponse:
    return ProblemResponse(body.model_dump(exclude_none=True), body.status, headers)
