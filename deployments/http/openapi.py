"""What FastAPI does not know of the routes, for /docs: bodies that they parse, and headers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from deployments.queries import RetrieverQuery, SearchQuery
from deployments.schemas import ImageEdit, ImagesToDelete, KeptChanges

IMAGE = {"type": "string", "format": "binary", "description": "The picture's bytes."}
_METADATA = {"type": "string", "description": "A JSON object kept with the picture."}


def _body(content: dict[str, Any], required: bool = True) -> dict[str, Any]:
    shown = {kind: {"schema": schema} for kind, schema in content.items()}
    return {"requestBody": {"required": required, "content": shown}}


def _form(required: list[str], **properties: Any) -> dict[str, Any]:
    shown = {"type": "object", "required": required, "properties": properties}
    return {**shown, "additionalProperties": False}


_MORE = {"additionalProperties": True}
_OWN = {
    "k": {"type": "integer", "minimum": 1, "description": "At most this many hits."},
    "distance_threshold": {"type": "number", "description": "Only hits strictly nearer."},
    "explain": {"type": "boolean", "description": "local: homography and matched points."},
    "aqe_n": {
        "type": "integer",
        "minimum": 1,
        "description": "Vectors: expand the query by this many nearest pictures; with aqe_alpha.",
    },
    "aqe_alpha": {
        "type": "number",
        "minimum": 0,
        "description": "Vectors: weigh each of them by its cosine to this power; with aqe_n.",
    },
}
_COMPONENTS = "#/components/schemas/{model}"


def bodies() -> dict[str, Any]:
    """The schemas of JSON bodies, by name, as the document's components."""
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation")
        for model in (SearchQuery, RetrieverQuery, ImageEdit, ImagesToDelete, KeptChanges)
    ]
    _, shown = models_json_schema(models, ref_template=_COMPONENTS)
    schemas: dict[str, Any] = shown["$defs"]
    # A retriever's own parameters stand beside the fields of every search.
    schemas["RetrieverQuery"] |= {"properties": _retriever_fields(), "additionalProperties": True}
    return schemas


def _retriever_fields() -> dict[str, Any]:
    fields = RetrieverQuery.model_json_schema(ref_template=_COMPONENTS)["properties"]
    return {**fields, **_OWN}


def _in_form(field: dict[str, Any]) -> dict[str, Any]:
    """A field of a JSON body as a form has it: never null; arrays and objects as JSON."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind != {"type": "null"}]
    simple = len(kinds) == 1 and kinds[0].get("type") not in (None, "array", "object")
    kind = kinds[0] if simple else {"type": "string", "contentMediaType": "application/json"}
    return {**kind, "description": field["description"]}


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _COMPONENTS.format(model=model.__name__)}


def header(description: str) -> dict[str, Any]:
    """A header of a response."""
    return {"description": description, "schema": {"type": "string"}}


REPORT = {
    "Server-Timing": header("Milliseconds of each retriever and stage."),
    "X-Ambience-Answered": header("Retrievers that answered, separated by commas."),
    "X-Ambience-Missing": header("Retrievers that did not, each with its reason."),
    "X-Ambience-Stale": header("`true` where the store could not be read."),
    "X-Ambience-Truncated": header("`true` where an uploaded picture is cut short or damaged."),
}
"""Headers of `deployments.ingress.report`."""
TAGGED = {
    "ETag": header("The version of what is sent, for If-None-Match and If-Match."),
    "Cache-Control": header("`no-cache`: ask whether the ETag still holds."),
}


def answer(
    headers: dict[str, Any], content: dict[str, Any] | None = None, status: int = 200
) -> dict[int | str, dict[str, Any]]:
    """A successful response with these headers, and schemas by type of content."""
    said: dict[str, Any] = {"headers": headers}
    if content is not None:
        said["content"] = {kind: {"schema": schema} for kind, schema in content.items()}
    return {status: said}


NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not Modified: the client has this version", "headers": TAGGED}
}


def request_headers(**described: str) -> dict[str, Any]:
    """Optional headers of a request, by name (`_` stands for `-`)."""
    shown = [
        {
            "name": name.replace("_", "-"),
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string"},
        }
        for name, description in described.items()
    ]
    return {"parameters": shown}


CACHED = request_headers(If_None_Match="ETags that the client has; 304 if one still holds.")
EDITED = request_headers(If_Match="The image's ETag; 412 if the image has changed since.")
CREATED = request_headers(
    If_Match="The image's ETag; 412 if the image has changed since.",
    If_None_Match="`*`: only add; 412 if there is an image.",
)

CREATED["parameters"][1]["schema"]["enum"] = ["*"]

ADD = _body(
    {
        "multipart/form-data": _form(["image"], image=IMAGE, metadata=_METADATA),
        "image/*": IMAGE,
    }
)
PICTURE = _body({"multipart/form-data": _form(["image"], image=IMAGE)})
_QUERY_FORM = _form(
    [],
    image={"type": "array", "items": IMAGE},
    query={"type": "string", "description": "The JSON of a query, as in the JSON body."},
)
# Generators of clients keep one type of body of an operation, or fail. So each search has a second
# operation for forms, although its first one takes them, too.
SEARCH = _body({"application/json": _reference(SearchQuery)})
SEARCH_UPLOAD = _body({"multipart/form-data": _QUERY_FORM})
_RETRIEVER_FORM = (
    _form([], image=IMAGE, **{name: _in_form(field) for name, field in _retriever_fields().items()})
    | _MORE
)
RETRIEVER_SEARCH = _body({"application/json": _reference(RetrieverQuery)})
RETRIEVER_SEARCH_UPLOAD = _body({"multipart/form-data": _RETRIEVER_FORM})
EDIT = _body({"application/json": _reference(ImageEdit)}) | EDITED
BATCH = _body(
    {
        "multipart/form-data": _form(
            ["image"],
            image={"type": "array", "items": IMAGE, "minItems": 1, "maxItems": 100},
            items={
                "type": "string",
                "description": "A JSON list with an object for each picture: its `image_id` and "
                "`metadata`, both optional.",
            },
        )
    }
)
KEEP_CHANGES = _body({"application/json": _reference(KeptChanges)})
DELETE_MANY = _body({"application/json": _reference(ImagesToDelete)})
ANNOTATE = _body(
    {
        "multipart/form-data": _form(
            ["image"],
            image=IMAGE,
            annotators={
                "type": "string",
                "description": "Only these, separated by commas; default: all.",
            },
        )
    }
)
ANY_FORM = _body({"multipart/form-data": _form(["image"], image=IMAGE) | _MORE})


def form(**fields: str) -> dict[str, Any]:
    """A multipart body of `image` and these fields, with their descriptions."""
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    return _body({"multipart/form-data": _form(["image"], image=IMAGE, **properties) | _MORE})


def json_body(required: list[str], **fields: str) -> dict[str, Any]:
    """A JSON body of these fields; numbers may be strings."""
    properties = {name: {"description": text} for name, text in fields.items()}
    return _body({"application/json": _form(required, **properties) | _MORE})


def pictures_form(most: int, least: int = 1, **fields: str) -> dict[str, Any]:
    """A multipart body of several pictures and these fields, with their descriptions."""
    images = {"type": "array", "items": IMAGE, "minItems": least, "maxItems": most}
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    required = ["image"] if least else []
    return _body({"multipart/form-data": _form(required, image=images, **properties)})


def json_of(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON body of a model that refers to no other."""
    return _body({"application/json": model.model_json_schema()})
