"""JSON answers, written by orjson, and the rows of hits of the inherited routes."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import JSONResponse

from indexes.base import Hit


class JsonAnswer(JSONResponse):
    """Also accepts NumPy numbers and arrays."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def distance_row(hit: Hit) -> dict[str, Any]:
    """The row of a retriever of distances; whole distances are integers."""
    assert hit.distance is not None
    distance = int(hit.distance) if float(hit.distance).is_integer() else hit.distance
    return {"image_id": hit.image_id, "distance": distance} | why(hit)


def why(hit: Hit) -> dict[str, str]:
    """What a row says in words, as the gallery shows it under the picture."""
    reasons = ["mirrored"] if hit.mirrored else []
    reasons += [f"{hit.inliers} inliers"] if hit.inliers is not None else []
    return {"why": ", ".join(reasons)} if reasons else {}
