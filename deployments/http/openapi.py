"""Request bodies for /docs, because the routes parse multipart and JSON themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from deployments.schemas import ImageEdit, RetrieverQuery, SearchQuery

_IMAGE = {"type": "string", "format": "binary", "description": "The picture's bytes."}
_METADATA = {"type": "string", "description": "A JSON object kept with the picture."}

UNKNOWN_STATE: dict[str, Any] = {
    "kind": "retriever",
    "state": "unavailable",
    "count": 0,
    "applied_seq": 0,
    "bytes": 0,
    "index": "",
    "fingerprint": "",
    "extractor": "",
}


def _body(content: dict[str, Any], required: bool = True) -> dict[str, Any]:
    shown = {kind: {"schema": schema} for kind, schema in content.items()}
    return {"requestBody": {"required": required, "content": shown}}


def _form(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _inline(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema with `$defs` inlined; references would point outside the document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    resolved: dict[str, Any] = _resolved(schema, definitions)
    return resolved


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
    return {key: _resolved(value, definitions) for key, value in node.items()}


_QUERY = _inline(SearchQuery)
_ONE = _inline(RetrieverQuery)
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
_ONE["properties"] = {**_ONE["properties"], **_OWN}
_ONE["additionalProperties"] = True

ADD = _body(
    {
        "multipart/form-data": _form(["image"], image=_IMAGE, metadata=_METADATA),
        "image/*": _IMAGE,
    }
)
SEARCH = _body(
    {
        "multipart/form-data": _form(
            [],
            image={"type": "array", "items": _IMAGE},
            query={"type": "string", "description": "The JSON of a query, as in the JSON body."},
        ),
        "application/json": _QUERY,
    }
)
RETRIEVER_SEARCH = _body(
    {
        "multipart/form-data": {**_ONE, "properties": {"image": _IMAGE, **_ONE["properties"]}},
        "application/json": _ONE,
    }
)
EDIT = _body({"application/json": _inline(ImageEdit)})
ANNOTATE = _body(
    {
        "multipart/form-data": _form(
            ["image"],
            image=_IMAGE,
            annotators={
                "type": "string",
                "description": "Only these, separated by commas; default: all.",
            },
        )
    }
)
ANY_FORM = _body({"multipart/form-data": _form(["image"], image=_IMAGE)})


def form(**fields: str) -> dict[str, Any]:
    """A multipart body of `image` and these fields, with their descriptions."""
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    return _body({"multipart/form-data": _form(["image"], image=_IMAGE, **properties)})


def json_body(required: list[str], **fields: str) -> dict[str, Any]:
    """A JSON body of these fields; numbers may be strings."""
    properties = {name: {"description": text} for name, text in fields.items()}
    return _body({"application/json": _form(required, **properties)})
