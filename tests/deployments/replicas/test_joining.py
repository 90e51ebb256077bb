"""When a new replica may begin to serve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deployments.replicas import joining
from deployments.wire import State

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("running", "states"),
    [
        (set(), []),
        ({"Retriever-0-of-3"}, []),
        ({"Retriever-1-of-3"}, ["loading", "loading", "ready"]),
        ({"Retriever-1-of-3"}, ["loading", "unavailable"]),
        ({"Retriever"}, ["loading", "unavailable", "ready"]),
        ({"Retriever-0-of-2", "Retriever-1-of-3"}, ["unavailable", "ready"]),
    ],
    ids=["alone", "first of siblings", "replica", "hopeless replica", "layout", "both"],
)
async def test_a_replica_waits_for_its_index_where_others_answer_meanwhile(
    running: set[str], states: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(app_name="local", deployment="Retriever-1-of-3")
    monkeypatch.setattr(joining.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(joining, "_running", lambda _: running)
    left = list(states)
    await joining.wait_beside_others(lambda: left.pop(0))
    assert left == []
