"""The types of the answers are those of the OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest

from ambience import answers
from ambience.calls import Query
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from tests.deployments.conftest import gateway  # noqa: F401

SCHEMAS = {
    "Added": "AddAnswer",
    "BatchOutcome": "BatchOutcome",
    "Change": "Change",
    "ChangedRegion": "ChangedRegion",
    "Changes": "ChangeList",
    "ComparedPicture": "ComparedPicture",
    "Comparison": "Comparison",
    "DeletedImages": "DeletedImages",
    "EditedImage": "EditedImage",
    "FoldedCopies": "FoldedCopies",
    "Hit": "FusedRow",
    "Image": "ImageAnswer",
    "ImagePage": "ImageList",
    "Measures": "RankedMeasures",
    "Outcome": "RetrieverOutcome",
    "RetrieverHit": "RetrieverRow",
    "RetrieverResults": "RetrieverResults",
    "RetrieverState": "RetrieverState",
    "SearchResults": "SearchResults",
    "UnappliedPart": "UnappliedPart",
}
"""The schema of each type."""
SHARED = {"rank"}
"""Keys of `Measures` that only fused hits have."""


@pytest.fixture
def schemas(gateway: Gateway) -> dict[str, Any]:  # noqa: F811
    document: dict[str, Any] = make_app(gateway).openapi()
    return document["components"]["schemas"]  # type: ignore[no-any-return]


def test_a_query_has_the_fields_of_a_search(schemas: dict[str, Any]) -> None:
    assert Query.__optional_keys__ == schemas["SearchQuery"]["properties"].keys()


def test_every_type_is_compared() -> None:
    there = {name for name, one in vars(answers).items() if hasattr(one, "__required_keys__")}
    assert there == SCHEMAS.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_type_has_the_keys_of_its_schema(name: str, schemas: dict[str, Any]) -> None:
    kind, schema = getattr(answers, name), schemas[SCHEMAS[name]]
    assert (kind.__required_keys__ | kind.__optional_keys__) - SHARED == (
        schema["properties"].keys() - SHARED
    )
    assert kind.__required_keys__ - SHARED == set(schema.get("required", ())) - SHARED
