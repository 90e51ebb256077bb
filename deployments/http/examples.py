"""An example request of each operation, for `/docs` and generated clients; a test sends all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI


@dataclass(frozen=True, slots=True)
class Example:
    """A request."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Path and query parameters by name."""
    body: Mapping[str, Any] | None = None
    """A JSON body, or the fields of a form beside its pictures."""


_ID = {"image_id": 3}
_PAGE = {"limit": 20}
EXAMPLES: dict[str, Example] = {
    "put_image": Example({"image_id": 3}, {"metadata": '{"tags": ["even", "all"], "mod": 0}'}),
    "get_image": Example(_ID),
    "delete_image": Example({"image_id": 999, "remember": True, "note": "not ours"}),
    "edit_image": Example(
        _ID,
        {
            "annotations": {"caption": {"text": "a boat at the pier", "tags": ["boat"]}},
            "metadata": {"album": "harbour"},
        },
    ),
    "add_image": Example({"unless": "same"}, {"metadata": '{"album": "harbour"}'}),
    "list_images": Example({"limit": 20, "tag": ["boat"], "metadata": '{"album": "harbour"}'}),
    "get_thumbnail": Example(_ID),
    "list_retrievers": Example(),
    "search": Example(
        {},
        {
            "image_ids": [3],
            "k": 20,
            "sort": "newest",
            "collapse": True,
            "filter": {"min_width": 100, "added_after": "2020-01-01"},
        },
    ),
    "search_upload": Example({}, {"query": '{"k": 20, "explain": true}'}),
    "search_retriever": Example(
        {"name": "phash"}, {"image_id": 3, "k": 10, "variants": "dihedral"}
    ),
    "search_retriever_upload": Example({"name": "color"}, {"k": "10"}),
    "add_images": Example({}, {"items": '[{"metadata": {"album": "harbour"}}]'}),
    "delete_images": Example({}, {"ids": [998, 999], "remember": True, "note": "not ours"}),
    "list_changes": Example({"after": 0, "limit": 20, "wait": 0}),
    "keep_changes": Example({}, {"consumer": "mirror", "after": 0}),
    "annotate_upload": Example({}, {}),
    "check": Example({}, {"items": '[{"image_id": 3}]'}),
    "thumbnail_of_upload": Example({}, {}),
    "get_usage": Example({"days": 30}),
    "compare": Example({}, {"image_ids": [3, 4]}),
    "compare_upload": Example({}, {"query": '{"image_ids": [3]}'}),
    "list_tombstones": Example(_PAGE),
    "get_tombstone_thumbnail": Example({"tombstone_id": "pdq-" + "0f" * 32}),
    "forget": Example({"tombstone_id": "pdq-" + "0f" * 32}),
    "list_duplicates": Example({"level": "bytes", "limit": 20}),
    "decide_duplicates": Example({}, {"decision": "different", "image_ids": [3, 4]}),
    "list_decisions": Example(_PAGE),
    "undo_decision": Example({"decision_id": "20261130T084512.120-3f9a1c"}),
    "list_rules": Example(),
    "edit_best": Example({}, {"order": ["pixels", "not_recompressed", "metadata", "oldest"]}),
    "edit_rule": Example({"level": "bytes"}, {"automatic": False, "needed": 50}),
    "list_jobs": Example(_PAGE),
    "cancel_job": Example({"job_id": "20261130T084512.120-3f9a1c"}),
}
"""By operation, for a service that holds images 3 and 4."""
_SERVICES = ("phash", "color", "local_features", "global_features", "image_text_features")
EXAMPLES |= {
    "reverse_search": Example({}, {"find_duplicate": "1"}),
    "calculate_all": Example({}, {"image_id": "40"}),
    "delete_all": Example({}, {"image_id": 999}),
    "get_image_tags": Example({}, {}),
    "get_image_caption": Example({}, {}),
    "similar_by_text": Example({}, {"text": "a boat at the pier", "k": 10}),
}
for _service in _SERVICES:
    _name = _service if _service.endswith("_features") else f"{_service}_features"
    EXAMPLES |= {
        f"calculate_{_name}": Example({}, {"image_id": "40"}),
        f"delete_{_name}": Example({}, {"image_id": 999}),
        f"{_service}_get_similar_images_by_image_buffer": Example({}, {"k": "10"}),
        f"{_service}_get_similar_images_by_id": Example({}, {"image_id": 3, "k": 10}),
    }


def document_examples(app: FastAPI) -> None:
    """Add the examples to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for methods in document["paths"].values():
            for operation in methods.values():
                example = EXAMPLES.get(operation["operationId"])
                if example is not None:
                    _show(operation, example)
        return document

    setattr(app, "openapi", openapi)  # noqa: B010


def _show(operation: dict[str, Any], example: Example) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["name"] in example.parameters:
            parameter["example"] = example.parameters[parameter["name"]]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if example.body and not kind.startswith("image/"):
            content["example"] = dict(example.body)
