"""Read request bodies: multipart or JSON, with numbers as numbers or strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from models.errors import InvalidInput, invalid_field

# Uploads stay in memory: their size is limited, and a temporary file costs more than the decode.
MultiPartParser.spool_max_size = 64 * 2**20
Model = TypeVar("Model", bound=BaseModel)
MAX_NAME = 255
MOST_PICTURES = 100
MAX_FIELD_BYTES = 4 * 2**20
JSON_FIELDS = ("image_ids", "negative", "retrievers", "filter", "region")
"""Fields of a search that hold JSON in a form."""


@dataclass(slots=True)
class Body:
    """The fields of a request and its uploaded pictures."""

    fields: dict[str, Any] = field(default_factory=dict)
    images: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """File names of the pictures of a form."""

    def image(self) -> bytes:
        """The one uploaded picture. Raises InvalidInput when there is none or more than one."""
        if len(self.images) != 1:
            raise InvalidInput(f"image: send one picture, not {len(self.images)}", "image")
        return self.images[0]

    def upload_name(self) -> str | None:
        """The name of the uploaded file; without folders and control characters, and cut."""
        given = self.names[0] if self.names else None
        base = (given or "").replace("\\", "/").rpartition("/")[2]
        return "".join(filter(str.isprintable, base))[:MAX_NAME].strip() or None

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that have a value; `""` counts as absent."""
        return {
            name: self.fields[name] for name in names if self.fields.get(name) not in ("", None)
        }


async def read_body(request: Request) -> Body:
    """The fields and pictures of a multipart, form or JSON body; an `image/*` body is a picture.

    Raises InvalidInput.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return Body(images=[await request.body()])
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _read_form(request)
    data = await request.body()
    if not data:
        raise InvalidInput("the request has no body: send multipart/form-data or JSON")
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(f"the body is neither multipart nor JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise InvalidInput("the JSON body must be an object")
    return Body(fields)


def refuse_unknown_parameters(request: Request) -> None:
    """Raises InvalidInput that names a query parameter which the route does not have."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise InvalidInput(f"{name[:100]}: no such query parameter; there are: {there}", name)


async def _read_form(request: Request) -> Body:
    body = Body()
    try:
        async with request.form(max_part_size=MAX_FIELD_BYTES) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "image":
                        raise InvalidInput(f"{name}: only `image` may be a file", name)
                    body.images.append(await value.read())
                    body.names.append(value.filename)
                elif name == "image":
                    raise InvalidInput("image: send it as a file part, with a file name", "image")
                else:
                    body.fields[name] = value
    except MultiPartException as exc:
        raise InvalidInput(f"the multipart body is malformed: {exc.message}") from exc
    return body


def validated(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """Fields as a model. Raises InvalidInput that names the first invalid field."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as exc:
        raise invalid_field(exc.errors()) from exc


def parsed(model: type[Model], text: str | bytes, field_name: str) -> Model:
    """A JSON text as a model. Raises InvalidInput that names the invalid field."""
    try:
        return model.model_validate_json(text)
    except ValidationError as exc:
        raise invalid_field(exc.errors(), field_name) from exc


def decoded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a multipart request, with those that hold JSON parsed. Raises InvalidInput."""
    return {
        key: _json(value, key) if key in JSON_FIELDS and isinstance(value, str) else value
        for key, value in fields.items()
        if value != ""
    }


def _json(text: str, name: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(f"{name}: not JSON: {exc}", name) from exc


def json_object(value: Any, name: str) -> dict[str, Any]:
    """A JSON object, or the text of one. Raises InvalidInput."""
    if isinstance(value, str):
        value = _json(value, name)
    if not isinstance(value, dict):
        raise InvalidInput(f"{name}: must be a JSON object", name)
    return value


def items_of(body: Body, model: type[Model]) -> list[Model]:
    """What the field `items`, a JSON list, says of each picture. Raises InvalidInput that names the
    first invalid field, and for no or more than MOST_PICTURES pictures."""
    count = len(body.images)
    if not 1 <= count <= MOST_PICTURES:
        raise InvalidInput(f"image: send 1 to {MOST_PICTURES} pictures, not {count}", "image")
    given = body.given("items").get("items")
    if given is None:
        return [model() for _ in body.images]
    try:
        items = TypeAdapter(list[model]).validate_python(orjson.loads(given))  # type: ignore[valid-type]
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(f"items: not JSON: {exc}", "items") from exc
    except ValidationError as exc:
        raise invalid_field(exc.errors(), "items") from exc
    if len(items) != count:
        raise InvalidInput(f"items: {len(items)} for {count} pictures", "items")
    return list(items)


def image_id_of(fields: Mapping[str, Any]) -> int:
    """An image id as a number or a string. Raises InvalidInput (the gallery sends its NaN as
    null)."""
    given = fields.get("image_id")
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise InvalidInput("image_id: send a whole number", "image_id")
    try:
        return whole_number(given)
    except ValueError as exc:
        raise InvalidInput(f"image_id: {str(given)[:40]!r} is no whole number", "image_id") from exc


def whole_number(given: float | str) -> int:
    """A whole number as the old services took it: 44, 44.0, "44" or "44.0". Raises ValueError."""
    if isinstance(given, int):
        return given
    if isinstance(given, str):
        given = given.strip().removesuffix(".0")
        return int(given)
    if not given.is_integer():
        raise ValueError(given)
    return int(given)
