"""Application statuses from Serve's controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.serve.context import _get_global_client

from models.errors import RetrieverUnavailable


def applications() -> Mapping[str, Any]:
    """The applications by name, in the form of `ServeInstanceDetails`.

    `serve.status` builds that whole schema from this dict, 75 ms in which no request makes
    progress. Raises RetrieverUnavailable outside Ray, where Serve's client would start a cluster of
    its own.
    """
    if not ray.is_initialized():
        raise RetrieverUnavailable("no Ray cluster serves this process")
    client = _get_global_client()
    assert client is not None  # It raises instead.
    found: Mapping[str, Any] = client.get_serve_details()["applications"]
    return found
