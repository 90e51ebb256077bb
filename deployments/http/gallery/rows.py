"""The answers of the inherited routes: their rows, and the names of the old services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from deployments.ingress.gateway import Gateway
from deployments.schemas import Answer
from indexes.base import Hit
from indexes.relation.judging import Relation

SERVICES = {
    "phash": "phash",
    "color": "color",
    "local": "local_features",
    "global": "global_features",
    "image_text": "image_text_features",
}
"""Retriever → the old service's name in routes and (except image_text) in results."""


class DistanceRow(Answer):
    """One hit of a retriever of distances."""

    image_id: int
    distance: float
    why: str | None = Field(None, description="What a person is told of the hit.")


class LocalRow(Answer):
    """One hit of local."""

    image_id: int
    file_name: str
    matches: int
    why: str | None = Field(None, description="What a person is told of the hit.")


class UnifiedRow(BaseModel):
    """One hit of all retrievers together."""

    image_id: int
    score: float


class ReverseSearch(Answer):
    """Hits by retriever, best first, or copies; keys without hits are absent."""

    duplicate: list[DistanceRow] | None = Field(None, description="Only with `find_duplicate`.")
    phash_res: list[DistanceRow] | None = None
    global_features_res: list[DistanceRow] | None = None
    local_features_res: list[LocalRow] | None = None
    color_res: list[DistanceRow] | None = None
    image_text_res: list[DistanceRow] | None = None
    unified_res: list[UnifiedRow] | None = Field(None, description="In at least two lists.")


class Settled(BaseModel):
    """What became of the request in one retriever."""

    status: Literal["fulfilled"]
    value: str = Field(description="Empty.")
    url: str


def rows(
    gateway: Gateway,
    name: str,
    hits: Sequence[Hit],
    relations: Mapping[int, Relation] = {},
) -> list[dict[str, Any]]:
    """A retriever's hits as the old service showed them."""
    if name != "local":
        factor = distance_factor(name)
        return [distance_row(hit, factor, relations.get(hit.image_id)) for hit in hits]
    images = gateway.store.images_by_id([hit.image_id for hit in hits])
    return [
        {
            "image_id": hit.image_id,
            "file_name": images[hit.image_id].file_name,
            "matches": hit.matches if hit.inliers is None else hit.inliers,
        }
        | why(hit, relations.get(hit.image_id))
        for hit in hits
        if hit.image_id in images
    ]


def distance_factor(name: str) -> int:
    """The old service's distance as a multiple of the retriever's.

    The old services measured unit vectors by squared L2, which is twice the cosine distance.
    """
    return 2 if name in ("global", "image_text") else 1


def distance_row(hit: Hit, factor: int = 1, relation: Relation | None = None) -> dict[str, Any]:
    """The row of a retriever of distances, times `factor`; whole distances are integers."""
    distance = (hit.distance or 0) * factor
    whole = int(distance) if float(distance).is_integer() else distance
    return {"image_id": hit.image_id, "distance": whole} | why(hit, relation)


def why(hit: Hit, relation: Relation | None = None) -> dict[str, str]:
    """What a row says in words, as the gallery shows it under the picture."""
    reasons: list[str] = [] if relation is None else [relation.kind]
    reasons += ["mirrored"] if hit.mirrored else []
    reasons += [f"{hit.inliers} inliers"] if hit.inliers is not None else []
    return {"why": ", ".join(reasons)} if reasons else {}


def feature_route(name: str) -> str:
    """The old service's name in its routes that add and delete."""
    return f"{SERVICES[name].removesuffix('_features')}_features"
